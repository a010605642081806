"""Responses judged: a file of cases into a file of verdicts, or a dataset into one with verdicts."""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import Result, open_store, positive, table

if TYPE_CHECKING:
    from gristmill.verifiers.verifier import Verifier

#: By which a name that stands for nothing was meant as a file.
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".gz", ".zst", ".lz4")

HELP = (
    "Judge responses by a verifier: maths, programs, instructions, tools, facts, formats, safety, or one of your own."
)


def arguments(command: argparse.ArgumentParser) -> None:
    """What is judged, by which verifier, and where the verdicts go."""
    command.add_argument(
        "cases", metavar="CASES", help="a file of JSON lines {id, prompt, response, ...}, or a dataset"
    )
    verifier_arguments(command, required=True)
    command.add_argument("--out", metavar="FILE", help="where the verdicts of a file go, one JSON line for each line")
    command.add_argument("--name", help="what to publish a dataset with verdicts as (default DATASET-verified)")
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def verifier_arguments(command: argparse.ArgumentParser, *, required: bool) -> None:
    """What `open_verifier` reads."""
    command.add_argument(
        "--verifier", required=required, metavar="NAME", help="its name, or FILE.py:FUNCTION for one of your own"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="PARAMETER=VALUE", help="a parameter of the verifier"
    )
    command.add_argument("--model", metavar="DATASET", help="safety: a classifier that train-toxicity made")
    command.add_argument("--engine", metavar="FOLDER", help="judges: the folder of a model that is asked")
    command.add_argument(
        "--constitution", metavar="FILE", help="judges: the principles (YAML; default the shipped ones)"
    )
    command.add_argument("--unsafe", action="store_true", help="run programs without a sandbox where none can be had")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Judge; status 1 where there were rows and none of them could be judged."""
    from gristmill.verifiers.verdict import Summary

    verifier = open_verifier(options, settings)
    cases = Path(options.cases)
    if not cases.exists() and cases.suffix in _SUFFIXES:
        raise InputError(f"no file of cases at {cases}")
    if cases.is_file() or options.out is not None:
        judged, where = _file(options, settings, verifier)
    else:
        judged, where = _dataset(options, settings, verifier)
    summary: Summary = judged.summary
    result = {
        "verifier": verifier.identity,
        **where,
        "rows": summary.rows,
        "mean": None if math.isnan(summary.mean) else summary.mean,
        "unjudged": summary.unjudged,
        "reasons": dict(sorted(summary.reasons.items(), key=lambda item: (-item[1], item[0]))),
        "seconds": round(judged.seconds, 3),
        "status": int(0 < summary.rows == summary.unjudged),
    }
    return result, _text(result)


def open_verifier(options: argparse.Namespace, settings: dict[str, Any]) -> Verifier:
    """The verifier of `verifier_arguments`. Raises InputError for one that there is not, and for its parameters."""
    from gristmill.verifiers.verifier import find

    params = dict(_parameter(text) for text in options.set)
    if options.unsafe:
        if options.verifier != "programs":
            raise InputError(f"{options.verifier} runs no programs; --unsafe is for programs")
        params["sandbox_context"] = "none"
    if options.model is not None:
        from gristmill.verifiers.safety.verify import classifier

        params |= classifier(open_store(settings).get(options.model))
    try:
        if options.engine is not None:
            return _judge(options, params)
        factory = find(options.verifier)
        _check(factory, params)
        return factory(**params)
    except TypeError as error:  # a parameter that is missing or unknown; no row has been judged yet
        raise InputError(f"{options.verifier}: {error}") from None


def _check(factory: Any, params: dict[str, Any]) -> None:
    """Raises TypeError for a parameter that is not of its declared kind, before any row meets it."""
    try:
        hints = typing.get_type_hints(factory)
    except NameError:  # names that only a type checker has imported, in a verifier of one's own
        return
    for name, value in params.items():
        if name in hints and not _fits(value, hints[name]):
            kind = hints[name].__name__ if isinstance(hints[name], type) else str(hints[name])
            raise TypeError(f"{name} is {json.dumps(value)}, which is no {re.sub(r'[a-z_.]+[.](?=[A-Z])', '', kind)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a declared kind; kinds that JSON knows nothing of are left to the verifier."""
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, item) for item in args)
    if kind is typing.Literal:
        return value in args
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (list, tuple, Sequence) and isinstance(value, list):
        return all(_fits(item, args[0]) for item in value) if args else True
    return isinstance(value, kind) if isinstance(kind, type) else True


def _judge(options: argparse.Namespace, params: dict[str, Any]) -> Verifier:
    """A judge over the model in a folder."""
    from gristmill.training.engines.local import TransformersEngine
    from gristmill.verifiers.judge import constitution, verify

    judges = {"judge": verify.pointwise, "judge.pairwise": verify.pairwise, "judge.best_of": verify.best_of}
    if options.verifier not in judges:
        raise InputError(f"{options.verifier} asks no engine; --engine is for {', '.join(judges)}")
    laws = None if options.constitution is None else constitution.read(options.constitution)
    return judges[options.verifier](TransformersEngine(options.engine), laws, **params)


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set {text}: write PARAMETER=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _file(options: argparse.Namespace, settings: dict[str, Any], verifier: Verifier) -> tuple[Any, dict[str, Any]]:
    from gristmill.dataops.executor import LocalPool
    from gristmill.flows.progress import draw
    from gristmill.verifiers.cases import verify_file

    if options.out is None:
        raise InputError("where should the verdicts go? name a file with --out")
    with LocalPool(settings.get("workers")) as pool:

        def progress(done: int, total: int, rows: int) -> None:
            draw("verify", done, total, rows)

        judged = verify_file(options.cases, options.out, verifier, executor=pool, progress=progress)
    return judged, {"out": options.out}


def _dataset(options: argparse.Namespace, settings: dict[str, Any], verifier: Verifier) -> tuple[Any, dict[str, Any]]:
    from gristmill.dataops.executor import InProcess, LocalPool
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.verifiers.cases import Judged, added
    from gristmill.verifiers.over import verify
    from gristmill.verifiers.verdict import Verdict, summarise

    started = time.perf_counter()
    source = open_store(settings).get(options.cases)
    name = options.name or f"{source.name}-verified"
    with LocalPool(settings.get("workers")) as pool:
        store = Store(open_store(settings).root, InProcess() if verifier.many else pool, draw)
        made = store.build(name, verify(verifier), [source])
    parts = [
        summarise(Verdict(said["score"], said["reason"]) for said in batch.column("verdict").to_pylist())
        for batch in made.batches(8192)
    ]
    where = {"dataset": {"name": made.name, "key": made.key, "digest": made.digest}}
    return Judged(added(parts), time.perf_counter() - started), where


def _text(result: dict[str, Any]) -> str:
    mean = "none could be judged" if result["mean"] is None else f"mean score {result['mean']:.4f}"
    head = f"{result['rows']:,} rows by {result['verifier']['name']}, {mean}, {result['unjudged']:,} not judged"
    head += f", {result['seconds']:.1f} s"
    rows = [["reason", "rows"], *([reason, f"{count:,}"] for reason, count in result["reasons"].items())]
    made = result.get("dataset")
    where = f"Verdicts: {result['out']}" if made is None else f"Published: {made['name']}:{made['key'][:12]}"
    return "\n\n".join([head, table(rows, (1,)), where])
