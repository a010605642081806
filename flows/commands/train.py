"""Training steps by hand: datasets by name, fields as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import CUT, REFERENCE, Result, open_store, positive

HELP = "Run a training step on datasets of the root and publish what it makes."
_ONE = ("generate", "logprobs", "describe")  # steps that read one dataset
_ASKED = ("generate", "logprobs", "describe", "evaluate")  # steps whose checkpoint is asked, not trained


def arguments(command: argparse.ArgumentParser) -> None:
    """The step, its data, and any field of its spec."""
    from gristmill.flows.train import STEPS

    command.add_argument(
        "step", choices=list(STEPS), metavar="STEP", help="; ".join(f"{k}: {v}" for k, v in STEPS.items())
    )
    command.add_argument(
        "--spec", metavar="FILE", help='a JSON file of the step\'s fields; data as {"dataset": "NAME@TAG"}'
    )
    command.add_argument(
        "--data", action="append", metavar="REF[=WEIGHT]", help=f"what to read: {REFERENCE}; repeatable"
    )
    command.add_argument("--start", metavar="REF", help="the checkpoint to go on from, or that is asked")
    command.add_argument("--tokenizer", metavar="REF", help="a chat tokenizer, where the checkpoint has none")
    command.add_argument("--validation", action="append", metavar="REF", help="held-out data; repeatable")
    command.add_argument("--name", help="what to call the result")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=JSON",
        help="any other field, such as optimiser.learning_rate=1e-5",
    )
    command.add_argument("--processes", type=positive, default=1, metavar="N", help="on this machine, one for each GPU")
    command.add_argument(
        "--dry-run", action="store_true", help="say how many steps and how much memory, and do nothing"
    )


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Run it; stopped by SIGTERM, its status is the step's own."""
    from gristmill.flows.ranks import STOPPED
    from gristmill.flows.train import Terminated, train

    store = open_store(settings)
    spec = _read(options.spec) if options.spec else {}
    if options.data:
        data = [_weighted(item) for item in options.data]
        if options.step in _ONE and (len(data) > 1 or "weight" in data[0]):
            raise InputError(f"--data {' '.join(options.data)}: {options.step} reads one dataset, without a weight")
        spec["data"] = data[0] if options.step in _ONE else data
    for field, given in (("start", options.start), ("tokenizer", options.tokenizer)):
        if given is not None:
            spec["model" if field == "start" and options.step in _ASKED else field] = {"dataset": given}
    if options.validation:
        spec["validation"] = [{"dataset": item} for item in options.validation]
    if options.name is not None:
        spec["name"] = options.name
    for item in options.set:
        put(spec, item)
    try:
        told = train(options.step, store, spec, processes=options.processes, dry=options.dry_run)
    except Terminated:
        message = "stopped; what is published is whole, and the same command goes on from the state that is kept"
        return {"error": message, "status": STOPPED}, f"gristmill: {message}"
    return told, _text(told)


def _read(file: str) -> dict[str, Any]:
    try:
        spec = json.loads(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no spec can be read: {error}") from None
    if not isinstance(spec, dict):
        raise InputError(f"{file}: a spec is a JSON object, this is a {type(spec).__name__}")
    return spec


def _weighted(text: str) -> dict[str, Any]:
    """NAME or NAME=WEIGHT."""
    reference, _, weight = text.partition("=")
    try:
        return {"dataset": reference, **({"weight": float(weight)} if weight else {})}
    except ValueError:
        raise InputError(f"--data {text}: {weight!r} is no weight") from None


def put(spec: dict[str, Any], item: str) -> None:
    """Set one field of a spec: a.b=JSON; what is no JSON is text. Raises InputError without a name or a value."""
    path, equals, text = item.partition("=")
    if not path or not equals:
        raise InputError(f"--set {item}: give FIELD=JSON")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *outer, last = path.split(".")
    for name in outer:
        spec = spec.setdefault(name, {})
        if not isinstance(spec, dict):
            raise InputError(f"--set {item}: {name} is no object")
    spec[last] = value


def _text(told: dict[str, Any]) -> str:
    """A line per value, the path first; what is nested stands indented below its name. Nothing is cut but long lists,
    which --json has."""
    rest = {key: value for key, value in told.items() if key != "path"}
    return "\n".join(([str(told["path"])] if "path" in told else []) + _lines(rest, ""))


def _lines(values: dict[str, Any], indent: str) -> list[str]:
    shown = {key: value for key, value in values.items() if value is not None and value != {} and value != []}
    flat = [key for key, value in shown.items() if not isinstance(value, dict)]
    width = max(map(len, flat), default=0)
    lines = []
    for key, value in shown.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}", *_lines(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{key.ljust(width)}  {_value(value)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        text = ", ".join(json.dumps(item) if isinstance(item, dict | list) else _value(item) for item in value)
        return text if len(text) <= CUT else f"{len(value):,} values (--json has them)"
    return str(value)
