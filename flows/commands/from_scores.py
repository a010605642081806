"""Responses scored by a verifier, a judge or a reward model, and what is learned from the scores."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, open_store, positive, table
from gristmill.flows.commands.verify import open_verifier, verifier_arguments

if TYPE_CHECKING:
    from gristmill.flows.sets.scored import By

HELP = (
    "Make preference judgements, chats (best-of-n, rejection sampling) or a curriculum of tasks from scored responses."
)
MAKES = ("judgements", "best", "rejection", "rates")


def arguments(command: argparse.ArgumentParser) -> None:
    """Which responses, scored by whom, and what is made of the scores."""
    command.add_argument(
        "responses",
        metavar="RESPONSES",
        help=f"what `train generate` published, several samples to a prompt: {REFERENCE}",
    )
    command.add_argument(
        "--make",
        required=True,
        choices=MAKES,
        help="judgements: a rating of each prompt's responses, for pairs; best: the best response as a chat; "
        "rejection: all that are good enough; rates: the tasks that are solved sometimes, with their pass rate",
    )
    verifier_arguments(command, required=False)
    command.add_argument(
        "--scorer",
        metavar="JSON|FILE",
        help='a judge or a reward model as in a spec: {"name", "call", "settings"}, models as {"dataset": "NAME@TAG"}; '
        "without --verifier and --scorer each row's own verifier (see build-tasks)",
    )
    command.add_argument(
        "--at-least",
        type=float,
        metavar="SCORE",
        help="from which score on a response passes (default of verifiers: 1)",
    )
    command.add_argument(
        "--most", type=positive, metavar="N", help="of rejection: responses to a prompt, the best ones"
    )
    command.add_argument(
        "--previous", metavar="REF", help="the responses of the round before: an alarm where diversity fell"
    )
    command.add_argument(
        "--collapse-limit", type=float, metavar="SHARE", help="how far diversity may fall (default 0.2 of what it was)"
    )
    command.add_argument("--name", type=folder_name, help="what to call the result (default RESPONSES-MAKE)")
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of flows/sets/scored.py; status 2 where nothing is left."""
    from gristmill.dataops.executor import InProcess, LocalPool
    from gristmill.dataops.tasks.collapse import LIMIT
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.scored import collapsed, from_scores, scored, summary

    if options.collapse_limit is not None and options.previous is None:
        raise InputError("--collapse-limit holds this round against the one before: name it with --previous")
    store = open_store(settings)
    responses = store.get(options.responses)
    previous = None if options.previous is None else store.get(options.previous)
    by = _by(options, settings)
    at_least = options.at_least
    if at_least is None and options.make != "judgements":
        at_least = by.passes
    name = options.name or f"{responses.name}-{options.make}"
    with LocalPool(settings.get("workers")) as pool:
        store.executor, store.progress = InProcess() if pool.workers == 1 else pool, draw
        scores = scored(store, responses, by)
        limit = LIMIT if options.collapse_limit is None else options.collapse_limit
        alarm = collapsed(store, scores, previous, name=f"{name}-collapse", limit=limit)
        made = from_scores(store, scores, options.make, name=name, at_least=at_least, most=options.most)
    result = {
        "name": made.name,
        "key": made.key,
        "digest": made.digest,
        "make": options.make,
        "rows": made.rows,
        "at_least": at_least,
        "scorer": dict(by.identity),
        "scored": {"name": scores.name, "key": scores.key, **summary(scores)},
        "counts": made.manifest["counts"],
        "collapse": {"name": alarm.name, "key": alarm.key, **alarm.manifest["stats"]},
        **(_rates(made) if options.make == "rates" else {}),
        "next": _next(made, options),
    }
    return result, _text(result)


def _by(options: argparse.Namespace, settings: dict[str, Any]) -> By:
    from gristmill.flows.sets.scored import by_json, by_rows, by_verifier

    of_verifiers = [name for name in ("set", "model", "engine", "constitution", "unsafe") if getattr(options, name)]
    if options.verifier is not None:
        if options.scorer is not None:
            raise InputError("--verifier and --scorer are both who scores: give one of them")
        return by_verifier(open_verifier(options, settings))
    if of_verifiers:
        raise InputError(f"--{of_verifiers[0]} is of a verifier: name it with --verifier")
    if options.scorer is None:
        return by_rows()
    return by_json(open_store(settings), options.scorer)


def _rates(made: Dataset) -> dict[str, Any]:
    """How many tasks are solved how often, by tenths."""
    import polars as pl

    tenth = (pl.col("pass_rate") * 10).floor().cast(pl.Int64).alias("tenth")
    found = made.scan().select(tenth).collect()["tenth"].value_counts().sort("tenth")
    return {"pass_rates": {f"{n / 10:.1f}": rows for n, rows in found.rows()}}


def _next(made: Dataset, options: argparse.Namespace) -> str:
    make = options.make
    if make == "judgements":
        return f"gristmill build-preferences {made.name}@latest"
    if make == "rates":
        rewards: list[dict[str, Any]] = [{"name": "own", "call": "gristmill.flows.sets.scored:own"}]
        if options.verifier is not None:
            settings = {"verifier": options.verifier}
            rewards = [{"name": options.verifier, "call": "gristmill.flows.scoring:verifier", "settings": settings}]
        known = options.verifier is not None or "verifier" in made.schema().names
        asked = f" --set 'rewards={json.dumps(rewards)}'" if known else ""
        return f"gristmill train rl --data {made.name}@latest --start MODEL{asked}"
    return f"gristmill build-sft {made.name} --tokenizer MODEL --name NAME"


def _text(result: dict[str, Any]) -> str:
    told = result["scored"]
    mean = "" if told["mean"] is None else f", mean {told['mean']:.4f}"
    reasons = [["reason", "responses"], *([name, f"{rows:,}"] for name, rows in told["reasons"].items())]
    head = (
        f"{told['responses']:,} responses to {told['prompts']:,} prompts scored{mean}, {told['unjudged']:,} not judged"
    )
    lines = [head, "", table(reasons, (1,)), "", funnel(result["counts"]), ""]
    lines.append(f"{result['name']}:{result['key'][:12]}  {result['rows']:,} rows")
    if "pass_rates" in result:
        lines.append("pass rate from: " + ", ".join(f"{rate} {rows:,}" for rate, rows in result["pass_rates"].items()))
    return "\n".join([*lines, "", _collapse(result["collapse"]), "", result["next"]])


def _collapse(told: dict[str, Any]) -> str:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    now, before = told["now"], told["before"]
    names = [name for name in now if name not in ("prompts", "samples")]
    if before is None:
        measures = ", ".join(f"{name} {shown(now[name])}" for name in names)
        return f"diversity: {measures} (no --previous round to hold it against)"
    rows = [["diversity", "now", "before", "fell"]]
    for name in names:
        fell = told["fell"][name]
        rows.append([name, shown(now[name]), shown(before[name]), "-" if fell is None else f"{fell:+.1%}"])
    over = f"{told['shared']:,} shared prompts" if told["shared"] else "all prompts, since no prompt is in both rounds"
    verdict = f"COLLAPSE: {', '.join(told['alarms'])} fell" if told["alarms"] else "no alarm: nothing fell"
    return f"{table(rows, (1, 2, 3))}\n{verdict} by more than {told['limit']:.0%}, over {over}"
