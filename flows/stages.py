"""One stage of a model's life: train, evaluate, hold against the gates. Every flow that makes a model goes through it.

The laws: what a stage makes is judged before anything else is made of it, and a blocked model stops the chain with its
reasons; nothing that stands already is trained, evaluated or judged again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.gates.conditions import read_gates
from gristmill.dataops.gates.judge import Verdict, judge
from gristmill.dataops.gates.record import put_up, record
from gristmill.dataops.gates.sides import sides
from gristmill.dataops.store import Store
from gristmill.flows.train import named, train

#: The gates that are used where no file is named.
GATES = Path(__file__).with_name("gates.yaml")


@dataclass(frozen=True)
class Stage:
    """What a stage made: the model, its evaluation, the judgement on it, and what the step said of itself."""

    model: Dataset
    evaluation: Dataset
    judgement: Dataset
    told: Mapping[str, Any]
    seconds: float

    def value(self, measure: str) -> float | None:
        """Of a measure of the evaluation, None where it has no such one."""
        found = self.evaluation.manifest["stats"]["measures"].get(measure)
        return None if found is None else found["value"]


class Blocked(Exception):
    """A model did not pass; the text says which and why, `stage` is what was made."""

    def __init__(self, text: str, made: Stage) -> None:
        super().__init__(text)
        self.stage = made


def stage(
    store: Store, step: str, spec: Mapping[str, Any], evaluation: Mapping[str, Any], gates: str | Path = GATES
) -> Stage:
    """Run a training step (flows/train.py), evaluate what it makes (`evaluation` are fields of its spec but `model`),
    judge it. Raises Blocked where it does not pass, and whatever `train` raises."""
    started = time.perf_counter()
    return weigh(store, train(step, store, spec), evaluation, gates, started)


def weigh(
    store: Store, told: Mapping[str, Any], evaluation: Mapping[str, Any], gates: str | Path, started: float
) -> Stage:
    """Evaluate and judge what a training step told that it made; `started` by time.perf_counter. Raises as `stage`."""
    model = Dataset.load(told["path"])
    found = train("evaluate", store, {"model": named(model), "name": f"{model.name}-evaluation", **evaluation})
    measured = Dataset.load(found["path"])
    judgement, _ = hold(store, model, gates, [measured])
    stats = judgement.manifest["stats"]
    spent = time.perf_counter() - started
    made = Stage(model, measured, judgement, told, spent)
    print(f"  {model.name}:{model.key[:12]} {stats['verdict']}, {spent:.0f} s", file=sys.stderr, flush=True)
    if stats["verdict"] != "passed":
        reasons = "\n".join(f"  {reason}" for reason in stats["reasons"])
        raise Blocked(f"{model.name}:{model.key[:12]} is blocked, and nothing more is made of it:\n{reasons}", made)
    return made


def hold(
    store: Store,
    model: Dataset,
    gates: str | Path = GATES,
    evaluations: Sequence[Dataset] = (),
    parents: Sequence[Dataset] = (),
) -> tuple[Dataset, tuple[Verdict, ...]]:
    """Put a model up as the candidate of its name and judge it: the judgement and its verdicts. `evaluations` are its
    own, `parents` those of what it started from (none: the newest of each). Raises InputError where it is no model or
    the gates cannot be read."""
    read = read_gates(gates)
    put_up(store, model)
    found = sides(store, model, read, evaluations, parents)
    verdicts = judge(read, found.stage, found.model, found.others)
    return record(store, model, read, verdicts, found.held), verdicts
