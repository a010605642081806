"""A teacher's answers as rows to learn from, filtered by a verifier or a judge."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.ai_feedback import WHO
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, plain, positive
from gristmill.flows.commands.verify import open_verifier, verifier_arguments

if TYPE_CHECKING:
    from gristmill.dataops.store import Store
    from gristmill.flows.sets.scored import By

HELP = "Distill a teacher: its answers, those that a verifier or a judge lets pass, as SFT rows."


def arguments(command: argparse.ArgumentParser) -> None:
    """What is asked, who teaches, and what lets an answer pass."""
    command.add_argument(
        "prompts",
        metavar="PROMPTS",
        help=f"a file of rows with a prompt, or a dataset of them or of a teacher's responses: {REFERENCE}",
    )
    command.add_argument("--teacher", metavar="WHO", help=f"who answers: {WHO}")
    verifier_arguments(command, required=False)
    command.add_argument("--judge", metavar="WHO", help="who grades the answers from 0 to 1, named as a teacher is")
    command.add_argument(
        "--at-least", type=float, metavar="SCORE", help="the least score that is learnt (default of verifiers: 1)"
    )
    command.add_argument("--samples", type=positive, default=1, help="answers to a prompt (default 1)")
    command.add_argument("--max-tokens", type=positive, default=512, help="of an answer (default 512)")
    command.add_argument("--temperature", type=float, default=1.0, help="of the answers (default 1)")
    command.add_argument("--seed", type=int, default=0, help="of sampling (default 0)")
    command.add_argument("--name", type=folder_name, default="distilled", help="what to call the rows")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of flows/sets/distill.py; status 1 where no answer is left."""
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.distill import distill
    from gristmill.flows.sets.engines import prompts_of

    store = Store(Path(settings["root"]), progress=draw)
    prompts = prompts_of(store, options.prompts, f"{options.name}-prompts")
    with contextlib.ExitStack() as stack:
        by = _by(options, settings, store, stack)
        built = distill(
            store, prompts, options.teacher, by=by, at_least=options.at_least, samples=options.samples,
            max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed, name=options.name,
        )  # fmt: skip
    result = summary(built)
    return result, _text(result)


def _by(options: argparse.Namespace, settings: dict[str, Any], store: Store, stack: contextlib.ExitStack) -> By | None:
    """Who scores. A judge's engine is open for as long as the stack."""
    from gristmill.flows.sets.judging import Judge, opened
    from gristmill.flows.sets.scored import by_verifier
    from gristmill.verifiers.judge.verify import pointwise

    if options.judge is not None:
        if options.verifier is not None:
            raise InputError("--verifier and --judge are both who scores: give one of them")
        if options.at_least is None:
            raise InputError("a judge grades from 0 to 1: give the least grade that is learnt, as --at-least 0.7")
        judge = stack.enter_context(opened(store, Judge(options.judge, options.constitution)))
        return by_verifier(pointwise(judge.engine, judge.laws))
    if options.verifier is not None:
        return by_verifier(open_verifier(options, settings))
    of_verifiers = [name for name in ("set", "model", "engine", "constitution", "unsafe") if getattr(options, name)]
    if of_verifiers:
        raise InputError(f"--{of_verifiers[0]} is of a verifier: name it with --verifier")
    return None


def summary(built: dict[str, Any]) -> dict[str, Any]:
    """What was made, as data."""
    import polars as pl

    from gristmill.flows.sets.scored import summary as of_scores

    sft = built["sft"]
    known = sft.scan().select(pl.col("logprob").drop_nulls().len(), pl.col("answer_tokens").sum()).collect().row(0)
    return {
        "name": sft.name,
        "key": sft.key,
        "digest": sft.digest,
        "rows": sft.rows,
        "teacher": sft.manifest["ops"][-1]["params"]["teacher"],
        "sampling": sft.manifest["ops"][-1]["params"]["sampling"],
        "at_least": sft.manifest["ops"][-1]["params"]["at_least"],
        "scores": of_scores(built["scored"]) if "scored" in built else None,
        "logprobs": known[0],
        "tokens": known[1],
        "counts": sft.manifest["counts"],
        "status": 0 if sft.rows else 1,
    }


def _text(result: dict[str, Any]) -> str:
    teacher, sampling = result["teacher"], result["sampling"]
    lines = [
        f"taught by {teacher['name']}@{teacher['version']}, {sampling['samples']} to a prompt at temperature "
        f"{sampling['temperature']:g}, of at most {sampling['max_tokens']:,} tokens",
    ]
    scores = result["scores"]
    if scores is not None:
        mean = "-" if scores["mean"] is None else f"{scores['mean']:.3f}"
        reasons = ", ".join(f"{plain(reason)} {n:,}" for reason, n in scores["reasons"].items())
        lines.append(f"scores: mean {mean}, {scores['unjudged']:,} not judged ({reasons})")
    lines += ["", funnel(result["counts"]), ""]
    lines.append(
        f"{result['name']}:{result['key'][:12]}  {result['rows']:,} rows to learn from, {result['tokens']:,} tokens of "
        f"answers, {result['logprobs']:,} with the teacher's log-probability"
    )
    return "\n".join(lines)
