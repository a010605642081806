"""What a batch of responses is worth: scores of several scorers, their weighted total, and which samples count.

The law kept here: None is "could not judge", and a sample that a scorer with a weight could not judge has no total and
is as if it had not been drawn: it enters neither its group's mean nor its deviation, and gives no gradient. A group
with fewer than two totals has nothing to compare and gives none either. A scorer of weight 0 is watched and decides
nothing: a gold measure beside the proxy that is trained on.

Not covered: tasks of several kinds in one dataset, each with a scorer of its own; one scorer that looks at the row and
asks the right one does that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gristmill.dataops.dataset import InputError
from gristmill.training.evaluation.intervals import ratio
from gristmill.training.scoring import Score, Scorer, Scoring, open_scorer
from gristmill.training.spec import Input


class Outage(OSError):
    """Something outside is gone, a scorer or the server that samples; what was trained until then is kept."""


@dataclass(frozen=True)
class Judged:
    """Of a batch of responses that stand by groups: every scorer's scores, the totals, and whether a sample counts."""

    scores: tuple[tuple[Score, ...], ...]
    totals: tuple[float | None, ...]
    counts: tuple[bool, ...]


def check_scorers(scorers: Sequence[Scorer]) -> None:
    """Raises InputError for a spec's scorers that cannot be trained with."""
    names = [scorer.name for scorer in scorers]
    if not any(scorer.weight for scorer in scorers):
        raise InputError("spec: rewards names no scorer with a weight: there is nothing to train on")
    if len(set(names)) < len(names):
        raise InputError(f"spec: rewards: two scorers have one name ({', '.join(names)})")


def open_scorers(scorers: Sequence[Scorer]) -> list[Scoring]:
    """Their functions, in order. Raises InputError for one that cannot be found or made."""
    return [open_scorer(scorer) for scorer in scorers]


def judges(scorers: Sequence[Scorer]) -> list[Input]:
    """The models that judge: what scorers name in their settings by `path` and `digest`."""
    named = [scorer.settings for scorer in scorers if {"path", "digest"} <= scorer.settings.keys()]
    return [Input(item["path"], item["digest"]) for item in named]


def identity(scorers: Sequence[Scorer]) -> list[dict[str, Any]]:
    """What scorers are, wherever the models that judge lie."""
    return [
        asdict(scorer)
        | {"settings": {k: v for k, v in scorer.settings.items() if k != "path" or "digest" not in scorer.settings}}
        for scorer in scorers
    ]


def judge(
    scorers: Sequence[Scorer],
    scorings: Sequence[Scoring],
    rows: Sequence[Mapping[str, Any]],
    responses: Sequence[str],
    group: int,
) -> Judged:
    """Ask every scorer about every response to its task row; `group` responses beside each other are to one task."""
    scores = tuple(tuple(scoring(rows, responses)) for scoring in scorings)
    totals = tuple(total(scorers, column) for column in zip(*scores, strict=True))
    counts: list[bool] = []
    for start in range(0, len(totals), group):
        judged = [value is not None for value in totals[start : start + group]]
        counts += judged if sum(judged) >= 2 else [False] * len(judged)
    return Judged(scores, totals, tuple(counts))


def total(scorers: Sequence[Scorer], scores: Sequence[Score]) -> float | None:
    """The weighted sum of one response's scores; None where one that has a weight could not judge."""
    weighed = [(scorer.weight, item.score) for scorer, item in zip(scorers, scores, strict=True) if scorer.weight]
    if any(score is None for _, score in weighed):
        return None
    return math.fsum(weight * score for weight, score in weighed if score is not None)


def why_not(scorers: Sequence[Scorer], judged: Judged) -> str:
    """Who could not judge, and the first reason of each."""
    told = []
    for scorer, column in zip(scorers, judged.scores, strict=True):
        missing = [item.reason for item in column if item.score is None]
        if missing and scorer.weight:
            told.append(f"{scorer.name}: {missing[0]} ({len(missing)} of {len(column)})")
    return "; ".join(told)


def measures(scorers: Sequence[Scorer], judged: Judged, group: int) -> dict[str, float]:
    """What is logged of a batch: every scorer's mean with its bootstrap interval over the groups and the share that it
    could not judge; the share of samples without a total, of groups with fewer than two, and of those without spread.
    A mean of nothing is left out."""
    out: dict[str, float] = {}
    for scorer, column in zip(scorers, judged.scores, strict=True):
        values = [item.score for item in column]
        out[f"rewards/{scorer.name}/unjudged"] = values.count(None) / len(values)
        found = ratio(*by_group(values, group))
        if found is not None:
            out[f"rewards/{scorer.name}"] = found.value
            if found.low is not None and found.high is not None and found.n > 1:
                out |= {f"rewards/{scorer.name}/low": found.low, f"rewards/{scorer.name}/high": found.high}
    groups = [judged.totals[start : start + group] for start in range(0, len(judged.totals), group)]
    told = [[value for value in values if value is not None] for values in groups]
    out["unjudged"] = judged.totals.count(None) / len(judged.totals)
    out["groups/unjudged"] = sum(len(values) < 2 for values in told) / len(told)
    out["groups/no_spread"] = sum(len(values) >= 2 and min(values) == max(values) for values in told) / len(told)
    return out


def by_group(values: Sequence[float | None], group: int) -> tuple[np.ndarray, np.ndarray]:
    """The sum of every group's values, and how many there are; None is none."""
    table = np.array([math.nan if value is None else value for value in values]).reshape(-1, group)
    return np.nansum(table, axis=1), np.isfinite(table).sum(1).astype(np.float64)
