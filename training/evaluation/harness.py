"""Tasks of the language model evaluation harness (EleutherAI's lm_eval), where it is installed.

Its tasks read their own data, most of them from a hub: that data has no digest of ours, so an evaluation with such
tasks is not reproducible and says so. A YAML file of a task enters the identity with its SHA-256. Intervals are those
of a normal distribution with the harness's standard error. Not covered: tasks that run code or ask other services.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.evaluation.intervals import Measure

Z = 1.959964  # of a normal distribution's middle 95 %


def check(tasks: Sequence[str]) -> None:
    """Raises InputError where the harness is not installed, or a file of a task is not there."""
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "spec: lm_eval names tasks, but the package is not installed: pip install lm_eval, or leave it out"
        )
    for name in tasks:
        if name.endswith((".yaml", ".yml")) and not Path(name).is_file():
            raise InputError(f"spec: lm_eval names {name}, which is not there")


def files(tasks: Sequence[str]) -> list[str]:
    """What of these tasks can be hashed, as external identities."""
    paths = [Path(name) for name in tasks if name.endswith((".yaml", ".yml"))]
    return [f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]


def run(tasks: Sequence[str], model: Any, tokenizer: Any, limit: int | None, seed: int) -> dict[str, Measure]:
    """Measures by "<task>.<metric>". Raises InputError for a task that the harness does not know."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    named = [name for name in tasks if not name.endswith((".yaml", ".yml"))]
    if unknown := [name for name in named if name not in manager.all_tasks]:
        raise InputError(f"spec: lm_eval knows no task {', '.join(unknown)}; `lm_eval ls tasks` lists them")
    with contextlib.redirect_stdout(sys.stderr):  # a step's own output is one line of JSON
        told = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=1_000,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            log_samples=False,
        )
    assert told is not None  # only ranks above 0 get none
    return measures(told)


def measures(told: Mapping[str, Any]) -> dict[str, Measure]:
    """Out of what the harness returns: its `results`, where "acc,none" stands beside "acc_stderr,none"."""
    found = {}
    for task, values in told["results"].items():
        counted = told.get("n-samples", {}).get(task, {}).get("effective", 0)
        for name, value in values.items():
            metric, comma, chosen = name.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, bool | str):
                continue
            error = values.get(f"{metric}_stderr,{chosen}")
            low, high = (value - Z * error, value + Z * error) if isinstance(error, float) else (None, None)
            suffix = "" if chosen == "none" else f".{chosen}"
            found[f"{task}.{metric}{suffix}"] = Measure(float(value), low, high, int(counted))
    return found
