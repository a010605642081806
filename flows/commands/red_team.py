"""Attacks on a model, with harmless controls: how often they succeed, and what is learnt of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.ai_feedback import WHO
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, positive, table

HELP = "Red-team a model: seed requests in many mutations and harmless controls, to safety pairs, refusals and rates."


def arguments(command: argparse.ArgumentParser) -> None:
    """What is asked for, dressed up how, and of whom."""
    command.add_argument(
        "seeds",
        nargs="?",
        metavar="SEEDS",
        help="a file or a dataset of rows with a prompt that should be refused, or with should_refuse false: "
        f"{REFERENCE}",
    )
    command.add_argument("--engine", required=True, metavar="WHO", help=f"who is attacked: {WHO}")
    command.add_argument("--writer", metavar="WHO", help="who writes the requests, where there is no SEEDS")
    command.add_argument(
        "--category", action="append", default=[], metavar="NAME", help="of what a writer writes; repeatable (all)"
    )
    command.add_argument(
        "--mutation", action="append", default=[], metavar="NAME", help="how to dress them up; repeatable (all)"
    )
    command.add_argument("--each", type=positive, metavar="N", help="mutations of a request, drawn (default: all)")
    command.add_argument(
        "--controls", type=float, default=0.3, metavar="SHARE", help="of the prompts, harmless ones (default 0.3)"
    )
    command.add_argument("--samples", type=positive, default=2, help="answers to a prompt (default 2)")
    command.add_argument("--max-tokens", type=positive, default=256, help="of an answer (default 256)")
    command.add_argument("--temperature", type=float, default=1.0, help="of the answers (default 1)")
    command.add_argument("--seed", type=int, default=0, help="of sampling and drawing (default 0)")
    command.add_argument("--name", type=folder_name, default="red-team", help="what to call the rows")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of flows/sets/redteam.py."""
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.engines import prompts_of
    from gristmill.flows.sets.redteam import CATEGORIES, red_team, written

    store = Store(Path(settings["root"]), progress=draw)
    if (options.seeds is None) == (options.writer is None):
        raise InputError("give SEEDS, or a --writer that writes them: one of the two")
    if options.category and options.writer is None:
        raise InputError("--category is of what a writer writes: leave it out for SEEDS")
    if options.writer is not None:
        categories = options.category or list(CATEGORIES)
        seeds = written(store, options.writer, categories=categories, seed=options.seed, name=options.name)
    else:
        seeds = prompts_of(store, options.seeds, f"{options.name}-seeds")
    built = red_team(
        store, seeds, options.engine, mutations=options.mutation, each=options.each, controls=options.controls,
        samples=options.samples, max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed,
        name=options.name,
    )  # fmt: skip
    result = summary(built)
    return result, _text(result)


def summary(built: Mapping[str, Any]) -> dict[str, Any]:
    """What was made, as data, with the rates before any instructions and, where there were some, with them."""
    from gristmill.flows.sets.redteam import rates

    steps = [built["prompts"], built["judgements"], built["sft"]]
    return {
        "datasets": {what: {"name": item.name, "key": item.key, "rows": item.rows} for what, item in built.items()},
        "counts": {op: tally for step in steps for op, tally in step.manifest["counts"].items()},
        "rates": rates(built["judged"]),
        "guided": rates(built["guided"]) if "guided" in built else None,
    }


def _text(result: Mapping[str, Any]) -> str:
    rates = result["rates"]
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in rates["reasons"].items())
    lines = [
        f"{rates['answers']:,} answers, {rates['controls']:,} of them to controls, {rates['unjudged']:,} could not be "
        f"told: {reasons}",
        _measures(rates["measures"]),
    ]
    if result["guided"] is not None:
        lines += [f"with instructions, {result['guided']['answers']:,} answers to prompts without a good one:"]
        lines += [_measures({k: v for k, v in result["guided"]["measures"].items() if "/" not in k})]
    lines += ["", funnel(result["counts"]), ""]
    for what, said in (("judgements", "prompts rated"), ("sft", "rows to learn from")):
        item = result["datasets"][what]
        lines.append(f"{item['name']}:{item['key'][:12]}  {item['rows']:,} {said}")
    lines.append(f"gristmill build-preferences {result['datasets']['judgements']['name']}")
    return "\n".join(lines)


def _measures(measures: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["rate", "value", "95 %", "n"]]
    for name, one in measures.items():
        value = "-" if one["value"] is None else f"{one['value']:.1%}"
        ends = "" if one["value"] is None else f"{one['low']:.1%} .. {one['high']:.1%}"
        rows.append([name.replace("_", " "), value, ends, f"{one['n']:,}"])
    return table(rows, right=(1, 3))
