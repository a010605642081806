"""Hold a checkpoint against gates: a candidate passes or is blocked, with the reasons."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from gristmill.dataops.gates.judge import Verdict
from gristmill.flows.commands.common import REFERENCE, Result, open_store, table

HELP = "Judge a checkpoint by gates: it passes, or is blocked with the reasons (exit status 1)."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which checkpoint, by which evaluations, against what."""
    command.add_argument("model", metavar="MODEL", help=f"the checkpoint: {REFERENCE}")
    command.add_argument(
        "--evaluation", action="append", default=[], metavar="DATASET",
        help="an evaluation of it; may be given more than once (default: its newest)",
    )  # fmt: skip
    command.add_argument(
        "--parent-evaluation", action="append", default=[], metavar="DATASET",
        help="what to hold it against (default: the evaluations of the checkpoint that it started from)",
    )  # fmt: skip
    command.add_argument("--gates", metavar="FILE", help="the gates (YAML; default the shipped ones)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Candidate, then passed or blocked; status 1 where it is blocked."""
    from gristmill.dataops.gates.record import state_of
    from gristmill.flows.stages import GATES, hold

    store = open_store(settings)
    model = store.get(options.model)
    evaluations = [store.get(name) for name in options.evaluation]
    parents = [store.get(name) for name in options.parent_evaluation]
    judgement, verdicts = hold(store, model, options.gates or GATES, evaluations, parents)
    stats = judgement.manifest["stats"]
    result = {
        "model": stats["model"],
        "verdict": stats["verdict"],
        "reasons": stats["reasons"],
        "promoted": state_of(store, model).promoted,
        "judgement": {"name": judgement.name, "key": judgement.key, "digest": judgement.digest},
        "held": stats["held"],
        "rows": [verdict.as_row() for verdict in verdicts],
        "status": int(stats["verdict"] != "passed"),
    }
    return result, _text(result, verdicts)


def _text(result: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    model, judgement = result["model"], result["judgement"]
    reference = f"{model['name']}:{model['key'][:12]}"
    parts = [f"{reference} {'is BLOCKED' if result['status'] else 'passed'}"]
    if result["held"]:
        parts[0] += "\n" + table([[f"{item['name']}:{item['key'][:12]}", item["role"]] for item in result["held"]])
    if verdicts:
        ranked = sorted(verdicts, key=lambda verdict: (verdict.passed is not False, verdict.passed is None))
        parts.append(table([["", "gate", "why"], *([_mark(item), item.gate, item.why] for item in ranked)]))
    else:
        parts.append(result["reasons"][-1])
    if result["status"] and result["promoted"]:
        parts.append(f"It is the promoted {model['name']} all the same: promote another one that passed.")
    elif not result["status"]:
        parts.append(f"`gristmill promote {reference}` makes it the promoted {model['name']}.")
    parts.append(f"Published: {judgement['name']}:{judgement['key'][:12]}")
    return "\n\n".join(parts)


def _mark(verdict: Verdict) -> str:
    if verdict.passed is None:
        return "n/a"
    return "ok" if verdict.passed else "FAIL" if verdict.judged else "?"
