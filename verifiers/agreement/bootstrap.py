"""Bootstrap intervals over items: how far a coefficient would move with other items of the same kind.

Items are drawn with replacement (raters are not: the interval speaks of these raters), the percentile method of Efron
1979. The law kept here: the same seed gives the same interval. Not covered: bias-corrected intervals, and samples so
small (under about 20 items) that percentiles are too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.verifiers.agreement.coefficients import Statistic
from gristmill.verifiers.agreement.table import Ratings

_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """Percentile limits; `undefined` of the `replicates` had no value (all their ratings were alike) and are left out.

    `low` and `high` are None where no replicate had a value.
    """

    low: float | None
    high: float | None
    level: float
    replicates: int
    undefined: int


def bootstrap(
    rated: Ratings, statistic: Statistic, *, replicates: int = 1_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of a statistic of coefficients.py (`fleiss_over`, `alpha_over("ordinal")`) over paired items."""
    rng, items = np.random.default_rng(seed), len(rated.paired)
    if not items or not replicates:
        return Interval(None, None, level, replicates, replicates)
    values = np.empty(replicates)
    step = max(1, _BLOCK // items)
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        drawn = rng.integers(0, items, size=(rows, items)) + np.arange(rows)[:, None] * items
        weights = np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items).astype(np.float64)
        values[start : start + rows] = statistic(rated, weights)
    told = values[~np.isnan(values)]
    if not len(told):
        return Interval(None, None, level, replicates, replicates)
    low, high = np.quantile(told, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, replicates, replicates - len(told))
