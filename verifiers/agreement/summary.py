"""One summary of how far raters agree: `agreement(table)`.

The law kept here: what cannot be computed is None with a reason, never a number. Not covered: who is right (raters.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.verifiers.agreement.bootstrap import Interval, bootstrap
from gristmill.verifiers.agreement.coefficients import (
    Level,
    Statistic,
    alpha_over,
    cohen_over,
    fleiss_over,
    percent_over,
)
from gristmill.verifiers.agreement.table import Ratings, ratings


@dataclass(frozen=True)
class Agreement:
    """`items` and `raters` of the table, its `ratings`, how many items are `paired` (rated twice or more), and

    the coefficients, from -1 to 1 (`percent` from 0 to 1), None where `undefined` says why; `intervals` by name.
    `cohen_kappa` only for two raters.
    """

    items: int
    raters: int
    ratings: int
    paired: int
    categories: tuple[Any, ...]
    level: Level
    percent: float | None
    cohen_kappa: float | None
    fleiss_kappa: float | None
    krippendorff_alpha: float | None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)


def agreement(
    table: Any,
    *,
    level: Level = "nominal",
    order: Sequence[Any] | None = None,
    replicates: int = 1_000,
    seed: int = 0,
) -> Agreement:
    """All coefficients of a table of items (rows) by raters with None for missing, with 95 % bootstrap intervals.

    `level` is that of Krippendorff's alpha alone; `replicates=0` leaves the intervals out. Raises InputError for a
    table that is none, or a level that does not fit its labels.
    """
    rated = ratings(table, order)
    statistics: dict[str, Statistic] = {
        "percent": percent_over,
        "cohen_kappa": cohen_over("none"),
        "fleiss_kappa": fleiss_over,
        "krippendorff_alpha": alpha_over(level),
    }
    values: dict[str, float | None] = {}
    intervals, undefined = {}, {}
    for name, statistic in statistics.items():
        values[name], reason = _value(rated, name, statistic)
        if reason is not None:
            undefined[name] = reason
        elif replicates:
            intervals[name] = bootstrap(rated, statistic, replicates=replicates, seed=seed)
    return Agreement(
        items=rated.codes.shape[0],
        raters=rated.codes.shape[1],
        ratings=int((rated.codes >= 0).sum()),
        paired=len(rated.paired),
        categories=rated.values,
        level=level,
        intervals=intervals,
        undefined=undefined,
        **values,
    )


def _value(rated: Ratings, name: str, statistic: Statistic) -> tuple[float | None, str | None]:
    if name == "cohen_kappa" and rated.codes.shape[1] != 2:
        return None, "not_two_raters"
    if not len(rated.paired):
        return None, "no_item_rated_twice"
    value = float(statistic(rated, np.ones((1, len(rated.paired))))[0])
    return (None, "one_category_only") if math.isnan(value) else (value, None)
