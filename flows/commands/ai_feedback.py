"""Preferences by judges: responses sampled from engines, and pairs of them judged by a constitution."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, positive, table

HELP = "Preferences by AI: sample responses from engines, judge pairs of them in both orders by a constitution."
WHO = "a checkpoint (NAME[@TAG]), a model's folder, a server (URL[#MODEL]), or the fields of an engine as JSON"
#: The shares of the bias report that are told in a line each, and what they are of.
_SHARES = {
    "first_seat": "choose the first seat (0.5: none favoured)",
    "longer": "prefer the longer response",
    "own": "prefer the judge's own model",
}


def arguments(command: argparse.ArgumentParser) -> None:
    """What is asked, who answers, who judges, and which pairs."""
    command.add_argument(
        "prompts",
        metavar="PROMPTS",
        help=f"a file of rows with a prompt, or a dataset of them or of responses: {REFERENCE}",
    )
    command.add_argument("--engine", action="append", default=[], metavar="WHO", help=f"who answers; repeatable: {WHO}")
    command.add_argument(
        "--judge", action="append", required=True, metavar="WHO", help="who judges, named likewise; repeatable"
    )
    command.add_argument("--constitution", metavar="FILE", help="the principles (YAML; default the shipped ones)")
    command.add_argument(
        "--by",
        choices=["letters", "reasons", "logprobs"],
        default="letters",
        help="how judges are asked: for a letter (default), for reasons first, or for log-probabilities",
    )
    command.add_argument("--samples", type=positive, default=2, help="responses of each engine to a prompt (default 2)")
    command.add_argument("--max-tokens", type=positive, default=512, help="of a response (default 512)")
    command.add_argument("--temperature", type=float, default=1.0, help="of the responses (default 1)")
    command.add_argument(
        "--pairs",
        choices=["all", "best"],
        default="all",
        help="which are judged: every two (default), or the best so far against the next and then against the rest",
    )
    command.add_argument("--most", type=positive, metavar="N", help="of all pairs of a prompt, at most N, drawn")
    command.add_argument("--seed", type=int, default=0, help="of sampling and drawing (default 0)")
    command.add_argument("--name", type=folder_name, default="ai-feedback", help="what to call the judgements")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Sample and judge; status 1 where no pair could be judged."""
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.flows.sets import rlaif
    from gristmill.flows.sets.engines import prompts_of
    from gristmill.flows.sets.judging import Judge

    store = Store(Path(settings["root"]), progress=draw)
    judges = [Judge(who, options.constitution, options.by) for who in options.judge]
    given = prompts_of(store, options.prompts, f"{options.name}-prompts")
    which: dict[str, Any] = {"which": options.pairs, "most": options.most, "seed": options.seed, "name": options.name}
    if "response" not in given.schema().names:
        made = rlaif.ai_feedback(
            store, given, options.engine, judges, samples=options.samples, max_tokens=options.max_tokens,
            temperature=options.temperature, **which,
        )  # fmt: skip
    elif options.engine:
        raise InputError(f"{given.name} has responses already: leave out --engine, or name a dataset of prompts")
    else:
        made = {"responses": [given], "judged": rlaif.judged(store, [given], judges, **which)}
    result: dict[str, Any] = {
        "responses": [{"name": item.name, "key": item.key, "rows": item.rows} for item in made["responses"]],
        "judged": [rlaif.summary(item) for item in made["judged"]],
        "between": rlaif.between(made["judged"]),
    }
    result["status"] = 0 if any(item["judged"] for item in result["judged"]) else 1
    return result, told(result)


def told(result: Mapping[str, Any]) -> str:
    """As lines for a terminal."""
    lines = []
    for item in result["judged"]:
        lines += [f"{item['name']}:{item['key'][:12]}  by {item['rater']}", *of_judge(item), ""]
    if result["between"] is not None:
        lines += [f"judges agree on {result['between']['agree']:.0%} of {result['between']['pairs']:,} pairs", ""]
    names = " ".join(item["name"] for item in result["judged"])
    none = "nothing could be judged, so there is nothing to make preferences of: the reasons stand above"
    return "\n".join([*lines, none if result["status"] else f"gristmill build-preferences {names}"])


def of_judge(item: Mapping[str, Any]) -> list[str]:
    """What a judge's judgements are, and what moves it besides which response is better."""
    asked = (
        f"{item['responses']:,} responses to {item['prompts']:,} prompts ({item['null']:,} null, {item['same']:,} the "
        f"same as another, {item['alone']:,} prompts with fewer than two)"
    )
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in item["reasons"].items())
    judged = f"{item['pairs']:,} pairs, {item['judged']:,} judged, {item['ties']:,} of them ties: {reasons or 'none'}"
    rows = [_share("orders agree", item["consistency"], "of both orders, give one verdict")]
    rows += [_share(name.replace("_", " "), item["bias"]["shares"][name], means) for name, means in _SHARES.items()]
    rows.append(_share("length slope", item["bias"]["length_slope"], "log-odds for the longer response (0: none)"))
    known = [row for row in rows if row[1] != "-"]
    return [asked, judged, *([table(known, right=(1, 3))] if known else [])]


def _share(name: str, share: Mapping[str, Any], means: str) -> list[str]:
    if share["value"] is None:
        return [name, "-", "", "", means]
    ends = "" if share["low"] is None else f"{share['low']:.2f} .. {share['high']:.2f}"
    return [name, f"{share['value']:.3f}", ends, f"n {share['n']:,}", means]
