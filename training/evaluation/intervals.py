"""Measures with bootstrap intervals: how far a figure would move with other rows or prompts of the same kind.

Units (prompts, or packed rows) are drawn with replacement, REPLICATES times, and the interval is between percentiles
of what comes out (Efron 1979). Where every unit of a share is 0, or every one is 1, drawing them again says nothing;
there the exact binomial limit is told (Clopper and Pearson 1934).

The laws: the same seed gives the same interval, whatever the order of the units; a unit without a value is no unit and
is never a 0. Not covered: bias-corrected intervals, and fewer than about 20 units, where percentiles are too narrow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REPLICATES = 2_000
LEVEL = 0.95
_BLOCK = 4_000_000  # numbers drawn at a time

#: Columns drawn again, float64 [replicates, units] each, to one value per replicate (NaN where there is none).
Statistic = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Measure:
    """`value` over `n` units, with the limits of its interval at LEVEL; None where there are none."""

    value: float
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, Any]:
        """As it stands in an evaluation's `stats["measures"]`."""
        return dataclasses.asdict(self)

    def through(self, function: Callable[[float], float]) -> Measure:
        """The measure of a rising function of the value."""
        low, high = (None if limit is None else function(limit) for limit in (self.low, self.high))
        return Measure(function(self.value), low, high, self.n)


def bootstrap(columns: Sequence[np.ndarray], statistic: Statistic, *, seed: int = 0) -> Measure | None:
    """A statistic of columns of equal length, units beside each other, drawn together: paired. None without units, or
    where the statistic of all of them has no value."""
    table = [np.asarray(column, dtype=np.float64) for column in columns]
    units = len(table[0])
    if not units:
        return None
    order = np.lexsort(table)  # the units' order decides which are drawn, so it is made one
    table = [column[order] for column in table]
    value = float(statistic(*(column[None, :] for column in table))[0])
    if math.isnan(value):
        return None
    rng = np.random.default_rng(seed)
    found = np.empty(REPLICATES)
    step = max(1, _BLOCK // units)
    for start in range(0, REPLICATES, step):
        drawn = rng.integers(0, units, size=(min(step, REPLICATES - start), units))
        found[start : start + len(drawn)] = statistic(*(column[drawn] for column in table))
    told = found[~np.isnan(found)]
    if not len(told):
        return Measure(value, None, None, units)
    low, high = np.quantile(told, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(value, float(low), float(high), units)


def mean(values: Sequence[float | None] | np.ndarray, *, seed: int = 0) -> Measure | None:
    """The mean over the units that have a value."""
    return bootstrap([_told(values)], lambda x: x.mean(1), seed=seed)


def share(values: Sequence[float | None] | np.ndarray, *, seed: int = 0) -> Measure | None:
    """The mean of values from 0 to 1 (a unit's own share, or whether it has a property)."""
    told = _told(values)
    n, edge = len(told), (1 - LEVEL) / 2
    if n and not told.any():
        return Measure(0.0, 0.0, 1 - edge ** (1 / n), n)
    if n and (told == 1).all():
        return Measure(1.0, edge ** (1 / n), 1.0, n)
    return mean(told, seed=seed)


def ratio(parts: np.ndarray, wholes: np.ndarray, *, seed: int = 0) -> Measure | None:
    """The sum of `parts` over the sum of `wholes`: a mean per token, over rows with many tokens and few."""
    return bootstrap([parts, wholes], _ratio, seed=seed)


def change(ours: np.ndarray, theirs: np.ndarray, *, seed: int = 0) -> Measure | None:
    """The mean of ours - theirs over units that both have: what makes a unit hard falls out of it."""
    return mean(np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64), seed=seed)


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    total = wholes.sum(1)
    return np.divide(parts.sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


def _told(values: Sequence[float | None] | np.ndarray) -> np.ndarray:
    told = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return told[~np.isnan(told)]
