"""Answers criticised by a principle and written again: rows to learn from, and preferences."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gristmill.flows.commands.ai_feedback import WHO, of_judge
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, plain, positive

HELP = "Critique and revise answers by a constitution: SFT rows of the revisions, and preferences over the originals."


def arguments(command: argparse.ArgumentParser) -> None:
    """What is revised, by whom, and who judges whether it is better."""
    command.add_argument(
        "prompts",
        metavar="PROMPTS",
        help=f"a file of rows with a prompt, or a dataset of them or of responses: {REFERENCE}",
    )
    command.add_argument("--engine", required=True, metavar="WHO", help=f"who answers, criticises and revises: {WHO}")
    command.add_argument(
        "--judge", metavar="WHO", help="who says in both orders whether a revision is better: only those are learnt"
    )
    command.add_argument("--constitution", metavar="FILE", help="the principles (YAML; default the shipped ones)")
    command.add_argument(
        "--by", choices=["letters", "reasons", "logprobs"], default="letters", help="how the judge is asked"
    )
    command.add_argument("--max-tokens", type=positive, default=512, help="of what is generated (default 512)")
    command.add_argument("--temperature", type=float, default=0.7, help="of what is generated (default 0.7)")
    command.add_argument("--seed", type=int, default=0, help="of sampling, and of which principle is drawn (default 0)")
    command.add_argument("--name", type=folder_name, default="revised", help="what to call the rows to learn from")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of flows/sets/critique.py; status 1 where no revision is left."""
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.critique import revise
    from gristmill.flows.sets.engines import prompts_of
    from gristmill.flows.sets.judging import Judge
    from gristmill.verifiers.judge import constitution

    store = Store(Path(settings["root"]), progress=draw)
    laws = constitution.shipped() if options.constitution is None else constitution.read(options.constitution)
    given = prompts_of(store, options.prompts, f"{options.name}-prompts")
    judge = None if options.judge is None else Judge(options.judge, options.constitution, options.by)
    built = revise(
        store, given, options.engine, laws=laws, judge=judge, max_tokens=options.max_tokens,
        temperature=options.temperature, seed=options.seed, name=options.name,
    )  # fmt: skip
    steps = [store.get(f"{options.name}-{step}") for step in ("asked", "again", "changed")] + [built["sft"]]
    result: dict[str, Any] = {
        "datasets": {what: {"name": item.name, "key": item.key, "rows": item.rows} for what, item in built.items()},
        "counts": {op: tally for step in steps for op, tally in step.manifest["counts"].items()},
        "judge": None if judge is None else built["judged"].manifest["stats"],
        "example": next(iter(_first(built["sft"])), None),
        "status": 0 if built["sft"].rows else 1,
    }
    return result, _text(result)


def _first(dataset: Any) -> list[dict[str, Any]]:
    rows = [row for batch in dataset.batches(1, ["messages", "principle"]) for row in batch.to_pylist()][:1]
    return [{"principle": row["principle"], "revised": row["messages"][-1]["content"]} for row in rows]


def _text(result: dict[str, Any]) -> str:
    lines = [funnel(result["counts"]), ""]
    if result["judge"] is not None:
        lines += [f"by {result['judge']['rater']}", *of_judge(result["judge"]), ""]
    if result["example"] is not None:
        revised = plain(" ".join(result["example"]["revised"].split()))
        lines += [f"by the principle {result['example']['principle']!r}: {revised}", ""]
    sft, judged = result["datasets"]["sft"], result["datasets"]["judged"]
    lines.append(f"{sft['name']}:{sft['key'][:12]}  {sft['rows']:,} rows to learn from")
    lines.append(f"{judged['name']}:{judged['key'][:12]}  {judged['rows']:,} judgements")
    if not sft["rows"]:
        lines += ["", "no revision is left: the table says why (of those cut, --max-tokens was the end)"]
    return "\n".join(lines)
