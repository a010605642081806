"""What a model earns on tasks that it is not trained on, before and after.

Every task is answered several times at the training's temperature; a task's value is the mean over those of its
samples that were judged, and the interval is over tasks. The change is told task by task, before and after paired.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gristmill.dataops.dataset import write_json
from gristmill.training.evaluation.intervals import Measure, change, mean, share
from gristmill.training.online.rewards import by_group, judge
from gristmill.training.online.tasks import Tasks
from gristmill.training.scoring import Scorer, Scoring

TASKS = 256  # of each dataset, its first

#: By dataset and scorer (and "total"), the value of every task; None where nothing could be judged.
Values = dict[str, dict[str, list[float | None]]]


def values(
    trainer: Any, held: Sequence[Tasks], scorers: Sequence[Scorer], scorings: Sequence[Scoring], samples: int
) -> Values:
    """Answer the tasks and have the answers judged; the random state of training is not touched."""
    out: Values = {}
    at_once = trainer.args.generation_batch_size
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(trainer.args.seed)
        for tasks in held:
            numbers = [n for n in range(min(TASKS, len(tasks.prompts))) for _ in range(samples)]
            replies: list[list[int]] = []
            for start in range(0, len(numbers), at_once):
                replies += trainer.sample([tasks.prompts[n] for n in numbers[start : start + at_once]])
            texts = trainer.processing_class.batch_decode(replies, skip_special_tokens=True)
            judged = judge(scorers, scorings, [tasks.row(n) for n in numbers], texts, samples)
            columns = {
                scorer.name: [item.score for item in column]
                for scorer, column in zip(scorers, judged.scores, strict=True)
            }
            columns["total"] = list(judged.totals)
            out[tasks.name] = {name: _by_task(column, samples) for name, column in columns.items()}
    return out


def remembered(path: Path, found: Any) -> Values:
    """The values before training: those on disk, else `found()`, which are put there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found())
    return json.loads(path.read_text())


def compare(before: Values, after: Values) -> dict[str, dict[str, Any]]:
    """For statistics: by dataset and scorer, {"before", "after", "change"} with intervals, and how many tasks had no
    value."""
    out: dict[str, dict[str, Any]] = {}
    for data, columns in after.items():
        out[data] = {}
        for name, later in columns.items():
            first = before[data][name]
            both = [(b, a) for b, a in zip(first, later, strict=True) if b is not None and a is not None]
            gained = change(np.array([a for _, a in both]), np.array([b for b, _ in both]))
            out[data][name] = {
                "before": _json(_measure(first)),
                "after": _json(_measure(later)),
                "change": _json(gained),
                "unjudged": {"before": first.count(None), "after": later.count(None)},
            }
    return out


def _measure(column: Sequence[float | None]) -> Measure | None:
    told = [value for value in column if value is not None]
    return share(told) if all(0 <= value <= 1 for value in told) else mean(told)


def _json(measure: Measure | None) -> dict[str, Any] | None:
    return None if measure is None else measure.as_json()


def _by_task(column: Sequence[float | None], samples: int) -> list[float | None]:
    sums, counts = by_group(column, samples)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
