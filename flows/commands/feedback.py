"""Feedback from people: what they said elsewhere, what they are asked, the batches it becomes, and how it stands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import Result, folder_name, positive, table

HELP = "Judgements of people: import them, ask for them over HTTP, close batches, see how it stands."
_COEFFICIENTS = ("percent", "fleiss_kappa", "krippendorff_alpha")


def arguments(command: argparse.ArgumentParser) -> None:
    """One of six actions, on the root's database or another."""
    from gristmill.dataops.feedback.values import KINDS, STRATEGIES
    from gristmill.flows.service.serve import serve_arguments, token_arguments

    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, told: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=told, description=told)
        made.add_argument("--root", default=argparse.SUPPRESS, help="where datasets stand")
        made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
        made.add_argument(
            "--database", metavar="URL",
            help="postgresql://USER@HOST/NAME, password in PGPASSWORD or ~/.pgpass (default: feedback.db in the root)",
        )  # fmt: skip
        return made

    taken = action("import", "Take judgements from files into a queue; those that are there already are not added.")
    taken.add_argument("files", nargs="+", metavar="FILE", help="JSON lines, a JSON array or Parquet")
    taken.add_argument(
        "--format", default="judgements", help="hh-rlhf, pairs, ratings, pandalm, thumbs, argilla, label-studio; or "
        "our own rows {prompt, responses, kind, value, rater}, judgements (default)",
    )  # fmt: skip
    taken.add_argument("--queue", type=folder_name, metavar="NAME", help="default: the name of the first file")
    taken.add_argument("--kind", choices=list(KINDS), help="of files with several kinds of judgements the one to take")
    taken.add_argument("--rater", metavar="NAME", help="who judged, where the files do not say")

    asked = action("queue", "Make a queue, change what is given of it, and put candidates into it.")
    asked.add_argument("queue", type=folder_name, metavar="NAME")
    asked.add_argument("files", nargs="*", metavar="FILE", help="rows {prompt, responses: [{text, policy, scores}]}")
    asked.add_argument("--kind", choices=list(KINDS), help="what raters are asked for (default pairwise)")
    asked.add_argument("--strategy", choices=STRATEGIES, default="random", help="which candidates come first")
    asked.add_argument("--most", type=positive, metavar="N", help="candidates to put in (default: all)")
    asked.add_argument("--seed", type=int, default=0, help="for what a strategy does not decide (default 0)")
    asked.add_argument("--wanted", type=positive, metavar="N", help="raters per item (default 1)")
    asked.add_argument("--lease", type=float, metavar="S", help="seconds that an item is a rater's (default 600)")
    asked.add_argument("--gold-share", type=float, metavar="X", help="checks among what a rater is shown (default 0)")
    asked.add_argument("--threshold", type=positive, metavar="N", help="judgements that close a batch")
    asked.add_argument("--max-age", type=float, metavar="S", help="seconds of the oldest judgement that close a batch")

    closed = action(
        "close", "Close what was judged since the last batch: a dataset, and an event for who waits for it."
    )
    closed.add_argument("queue", nargs="?", metavar="NAME", help="the queue; or --due")
    closed.add_argument("--due", action="store_true", help="all queues that their threshold or time asks to close")

    shown = action("status", "Queues, what was said in them, how far raters agree, and the batches.")
    shown.add_argument("queue", nargs="?", metavar="NAME", help="one queue (default: all)")

    serve_arguments(action("serve", "Ask raters and take thumbs over HTTP, and close batches that are due."))
    token_arguments(action("token", "Make a token for the HTTP service, revoke one, or list them."))


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The action; status 1 where there was nothing to close."""
    from gristmill.dataops.feedback.database import open_database
    from gristmill.flows.service.serve import serve, token

    root = Path(settings["root"])
    if options.action in ("close", "status") and options.database is None and not root.is_dir():
        raise InputError(f"no root at {root}: import judgements or make a queue first, or give --root")
    db = open_database(options.database or root)
    actions = {
        "import": _import, "queue": _queue, "close": _close, "status": _status, "serve": serve, "token": token,
    }  # fmt: skip
    return actions[options.action](options, root, db)


def _import(options: argparse.Namespace, root: Path, db: Any) -> Result:
    from gristmill.dataops.feedback.imports import import_judgements
    from gristmill.dataops.preferences.imports import read_judgements
    from gristmill.dataops.store import Store

    queue = options.queue or Path(options.files[0]).name.split(".")[0]
    try:
        folder_name(queue)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{error}; give the queue's with --queue") from None
    judged = read_judgements(Store(root), f"judgements-{queue}", options.files, options.format, rater=options.rater)
    lost = {name: number for tally in judged.manifest["counts"].values() for name, number in tally["reasons"].items()}
    if not judged.rows:
        raise InputError(f"no judgement in {', '.join(options.files)} as {options.format}: {_listed(lost)}")
    made = import_judgements(db, queue, judged, kind=options.kind)
    result = {
        "queue": queue, "kind": made.kind, "items": made.items, "raters": made.raters,
        "judgements": made.judgements + made.known, "added": made.judgements, "corrections": made.corrections,
        "known": made.known, "dropped": lost, **_agreement(db, queue),
        "dataset": {"name": judged.name, "key": judged.key, "digest": judged.digest},
    }  # fmt: skip
    lines = [
        f"{queue}: {made.items:,} items, {made.raters:,} raters, {result['judgements']:,} judgements ({made.kind}), "
        f"{made.judgements:,} of them new, {made.corrections:,} corrections",
        *([f"dropped: {_listed(lost)}"] if lost else []),
        *_told(result),
    ]
    return result, "\n".join(lines)


def _queue(options: argparse.Namespace, root: Path, db: Any) -> Result:
    from gristmill.dataops.feedback.queues import make_queue, put, queue_kind
    from gristmill.dataops.feedback.standing import status

    kind = options.kind or queue_kind(db, options.queue) or "pairwise"
    candidates = _candidates(options.files)
    make_queue(
        db, options.queue, kind, wanted=options.wanted, lease_seconds=options.lease, gold_share=options.gold_share,
        threshold=options.threshold, max_age_seconds=options.max_age,
    )  # fmt: skip
    made = put(db, options.queue, candidates, strategy=options.strategy, most=options.most, seed=options.seed)
    stands = next(one for one in status(db) if one["queue"] == options.queue)
    result = {
        "queue": options.queue, "kind": kind, "added": made.added, "known": made.known, "left": made.left,
        "same_responses": made.same_responses, "items": stands["items"], "open": stands["open"],
    }  # fmt: skip
    text = f"{options.queue} ({kind}): {stands['items']:,} items, {stands['open']:,} of them open"
    if options.files:
        text += (
            f"\n{made.added:,} added by {options.strategy}, {made.known:,} were there, {made.left:,} left out, "
            f"{made.same_responses:,} have nothing to choose between"
        )
    return result, text


def _candidates(files: Sequence[str]) -> list[Any]:
    from gristmill.dataops.chat.formats.find import find
    from gristmill.dataops.chat.formats.rows import rows
    from gristmill.dataops.chat.messages import Fault
    from gristmill.dataops.feedback.candidates import candidate

    found = []
    for file in find(list(files)) if files else []:
        for number, _, row in rows(file):
            if isinstance(row, Fault):
                raise InputError(f"{file.url}, record {number}: {row}")
            found.append(candidate(row, f"{file.url}, record {number}"))
    return found


def _close(options: argparse.Namespace, root: Path, db: Any) -> Result:
    from dataclasses import asdict

    from gristmill.dataops.feedback.batches import close, close_due

    if (options.queue is None) == (not options.due):
        raise InputError("name a queue to close, or give --due for all that are due")
    made = [close(db, root, options.queue)] if options.queue else close_due(db, root)
    batches = [asdict(batch) for batch in made if batch is not None]
    result = {"batches": batches, "status": 0 if batches or options.due else 1}
    lines = [
        f"batch {one['number']} of {one['queue']}: {one['judgements']:,} judgements, closed by {one['reason']}: "
        f"{one['dataset']}:{one['key'][:12]}"
        for one in batches
    ]
    nothing = "nothing is due" if options.due else "nothing was judged since the last batch"
    return result, "\n".join(lines) or nothing


def _status(options: argparse.Namespace, root: Path, db: Any) -> Result:
    from gristmill.dataops.feedback.standing import status

    found = [one for one in status(db) if options.queue in (None, one["queue"])]
    if options.queue is not None and not found:
        raise InputError(f"no queue {options.queue!r}: `gristmill feedback queue {options.queue}` makes it")
    queues = [one | _agreement(db, one["queue"]) for one in found]
    return {"queues": queues}, "\n\n".join(_text(one) for one in queues) or "no queue yet"


def _agreement(db: Any, queue: str) -> dict[str, Any]:
    """How far raters agree: of a rating queue by aspect, as numbers; of the others as labels. What cannot be computed
    is null, and `undefined` says why."""
    from gristmill.dataops.feedback.standing import VALUE, tables
    from gristmill.verifiers.agreement.summary import agreement

    def of(rows: Any, level: Any) -> dict[str, Any]:
        found = agreement(rows, level=level, replicates=0)
        told = {name: getattr(found, name) for name in _COEFFICIENTS}
        return told | {"undefined": {name: why for name, why in found.undefined.items() if name in told}}

    made = tables(db, queue)
    if set(made) == {VALUE}:
        return {"agreement": of(made[VALUE], "nominal")}
    return {"agreement": {aspect: of(rows, "interval") for aspect, rows in made.items()}}


def _told(result: dict[str, Any]) -> list[str]:
    """Agreement as lines."""
    found = result["agreement"]
    parts = found.items() if found and "percent" not in found else [("", found)] if found else []
    rows = [["agreement", *_COEFFICIENTS]]
    for name, one in parts:
        cells = ["-" if one[key] is None else f"{one[key]:.4f}" for key in _COEFFICIENTS]
        rows.append([name, *cells, ", ".join(sorted(set(one["undefined"].values())))])
    return table([row + [""] * (5 - len(row)) for row in rows], right=(1, 2, 3)).splitlines() if len(rows) > 1 else []


def _text(one: dict[str, Any]) -> str:
    lines = [
        f"{one['queue']} ({one['kind']}): {one['items']:,} items, {one['open']:,} open; {one['judgements']:,} "
        f"judgements of {one['raters']:,} raters, {one['standing']:,} stand; {one['waiting']:,} wait for a batch"
        + (f", due by {one['due']}" if one["due"] else ""),
        *_told(one),
    ]
    lines += [
        f"checks: {name} right in {found['right']:,} of {found['judged']:,}" for name, found in one["checks"].items()
    ]
    lines += [
        f"batch {batch['number']}: {batch['judgements']:,} judgements, {batch['state']} by {batch['reason']}"
        + (f", {batch['dataset']}:{batch['key'][:12]}" if batch["dataset"] else "; close it again to finish it")
        + ("" if batch["event_sent"] or not batch["dataset"] else ", not announced yet")
        for batch in one["batches"]
    ]
    return "\n".join(lines)


def _listed(lost: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(lost.items())) or "the files are empty"
