"""Judgements of people or of an AI judge, to preference pairs or thumbs for training, with their report."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, plain, positive, table

HELP = "Make preference pairs or thumbs of judgements, from files or datasets: with raters' quality and a report."
_TRAIN = {"pairs": "preference", "thumbs": "preference --set loss=kto"}
_LISTED = 20  # raters in the table


def arguments(command: argparse.ArgumentParser) -> None:
    """Which judgements, what is made of them, and what is left out."""
    from gristmill.dataops.preferences.imports import Format
    from gristmill.dataops.preferences.pairs import Policy

    command.add_argument(
        "judgements", nargs="+", metavar="FILE|REF",
        help=f"files, globs, folders or URLs; or datasets of judgements, such as a queue's feedback-NAME: {REFERENCE}",
    )  # fmt: skip
    command.add_argument(
        "--format", choices=get_args(Format), default="judgements", metavar="NAME",
        help=f"what the files are in: {', '.join(get_args(Format))} (default: our own rows)",
    )  # fmt: skip
    command.add_argument("--rater", metavar="NAME", help="who judged, where the files do not say")
    command.add_argument(
        "--fields", metavar="A,B,...", help="of argilla and label-studio: the columns of the prompt and the replies"
    )
    command.add_argument(
        "--name", type=folder_name, default="preferences", help="what to call it (default preferences)"
    )
    command.add_argument("--kind", choices=["pairs", "thumbs"], default="pairs", help="what to make (default pairs)")
    command.add_argument(
        "--policy", choices=get_args(Policy), default="best_worst",
        help="of several replies: the best against the worst (default), or against another, or every two",
    )  # fmt: skip
    command.add_argument("--min-margin", type=float, default=0.0, metavar="X", help="leave out pairs that are closer")
    command.add_argument("--aspects", metavar="A,B", help="of ratings by aspect: those that count (default: the whole)")
    command.add_argument("--min-accuracy", type=float, metavar="X", help="drop raters who are right less often")
    command.add_argument(
        "--adjudicator", action="append", default=[], metavar="RATER", help="whose word is the last; repeatable"
    )
    command.add_argument("--min-probability", type=float, metavar="X", help="drop labels that are less probably true")
    command.add_argument(
        "--benchmark", action="append", default=[], metavar="[NAME=]FILE", help="drop rows that hold an item of it"
    )
    command.add_argument("--holdout", type=float, default=0.0, metavar="X", help="share of the prompts to keep out")
    command.add_argument("--noisy", type=float, metavar="X", help="drop noisy pairs, at most this share of them")
    command.add_argument("--tokenizer", metavar="REF", help="encode for this chat tokenizer, or this model's")
    command.add_argument("--model", metavar="REF", help="report how much of the replies this model could have said")
    command.add_argument("--max-tokens", type=positive, default=2048, metavar="N", help="of a row (default 2048)")
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of flows/sets/preferences.py, without a Prefect server."""
    from pathlib import Path

    from gristmill.dataops.executor import InProcess, LocalPool
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.preferences import build

    with LocalPool(settings.get("workers")) as pool:
        store = Store(Path(settings["root"]), InProcess() if pool.workers == 1 else pool, draw)
        result = build(
            store, options.judgements, name=options.name, kind=options.kind, format=options.format, rater=options.rater,
            fields=_names(options.fields), tokenizer=options.tokenizer, model=options.model, policy=options.policy,
            min_margin=options.min_margin, aspects=_names(options.aspects), min_accuracy=options.min_accuracy,
            adjudicators=options.adjudicator, min_probability=options.min_probability, benchmarks=options.benchmark,
            holdout=options.holdout, noisy=options.noisy, max_tokens=options.max_tokens,
        )  # fmt: skip
    if "encoded" in result["datasets"]:
        result["train"] = _train(options)
    return result, _text(result)


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _train(options: argparse.Namespace) -> str:
    """How training is started on what was made."""
    start = options.model or "MODEL"
    chat = f" --tokenizer {options.tokenizer}" if options.tokenizer and options.model else ""
    return f"gristmill train {_TRAIN[options.kind]} --data {options.name}@latest --start {start}{chat}"


def _text(result: dict[str, Any]) -> str:
    lines = [funnel(result["counts"]), *_lost(result["examples"]), ""]
    for family, found in result["raters"].items():
        lines += [_agreement(family, found["agreement"]), *_raters(found), ""]
    rows = [["", "dataset", "rows"]]
    rows += [[part, f"{one['name']}:{one['key'][:12]}", f"{one['rows']:,}"] for part, one in result["datasets"].items()]
    lines += [table(rows, right=(2,)), ""]
    lines += [line for line in (_noise(result.get("noise")), _policy(result.get("policy"))) if line]
    lines += [f"report: {result['report']}", result.get("train", "for training, encode them: give --tokenizer")]
    return "\n".join(lines)


def _lost(examples: list[dict[str, str]]) -> list[str]:
    """Records of files that made no judgement, one of each reason."""
    rows = [[one["reason"], one["file"], str(plain(one["why"]))] for one in examples]
    return ["", "no judgement, one of each reason:", table(rows)] if rows else []


def _agreement(family: str, found: dict[str, Any]) -> str:
    """One line: how far raters agree, or why that is not known."""
    said = f"{family}: {found['votes']:,} votes of {found['raters']:,} raters on {found['units']:,} units"
    if found["unnamed"]:
        said += f", {found['unnamed']:,} votes of nobody named"
    names = ("percent", "fleiss_kappa", "krippendorff_alpha")
    told = [f"{name} {found[name]:.4f}" for name in names if found[name] is not None]
    told += [] if found["why_not"] is None else [found["why_not"]]
    return f"{said}; agreement: {', '.join(told)}"


def _raters(found: dict[str, Any]) -> list[str]:
    """A table of raters, those with something odd first and then the least accurate."""
    from gristmill.dataops.preferences.standing import FLAGS

    def rank(one: dict[str, Any]) -> tuple[bool, float, str]:
        return set(one["flags"]) <= {"few_votes"}, 2 if one["accuracy"] is None else one["accuracy"], one["rater"]

    raters = sorted(found["raters"], key=rank)
    if not raters:
        return []
    rows = [["rater", "votes", "accuracy", "first won", "most given", "caveats"]]
    for one in raters[:_LISTED]:
        shares = ["-" if one[name] is None else f"{one[name]:.1%}" for name in ("accuracy", "first_share", "top_share")]
        rows.append([one["rater"], f"{one['votes']:,}", *shares, ", ".join(FLAGS[flag] for flag in one["flags"])])
    more = len(raters) - _LISTED
    return [
        table(rows, right=(1, 2, 3, 4)),
        *([f"and {more:,} more: --json lists all"] if more > 0 else []),
        *found["caveats"],
    ]


def _noise(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    if found["why_not"] is not None:
        return f"noise: not looked for, {found['why_not']}"
    held = f"held-out accuracy {found['accuracy']['value']:.3f}"
    return f"noise: {held}, {found['suspect']:,} pairs suspect" if found["told"] else f"noise: cannot be told, {held}"


def _policy(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    shares = ", ".join(f"{side} {found[side]['value']:.1%}" for side in ("chosen", "rejected"))
    return f"on-policy for {found['model']}: {shares} of {found['pairs']:,} pairs, at {found['threshold']} nats a token"
