"""Agreement coefficients over items by raters: percent, Cohen's, Fleiss' kappa and Krippendorff's alpha.

Each is 1 - D_observed / D_expected with its own idea of chance; 1 is perfect, 0 is chance, below 0 worse than chance.
Every statistic is written over *weights of items*, (replicates, paired items): a row of ones is the estimate, a row of
resampling counts is a bootstrap replicate, so an interval costs a few matrix products (bootstrap.py).

The laws kept here: items rated fewer than twice do not count; the names and order of raters and of nominal categories
do not matter; where chance leaves no room to disagree (one category only) a coefficient is NaN, never 1 or 0. No
matrix of values by values is made, so interval ratings may all differ.

Sources: Cohen 1960 and 1968 (weighted); Fleiss 1971; Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
With missing ratings, Fleiss' kappa is generalised as in Gwet 2014: each item's own pairs and shares, items counted
alike. Not covered: ratio, polar and circular scales, and variances in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.agreement.table import Codes, Floats, Ratings, ratings

Level = Literal["nominal", "ordinal", "interval"]
Weighting = Literal["none", "linear", "quadratic"]
#: Weights (replicates, paired items) in, one number per replicate out.
Statistic = Callable[[Ratings, Floats], Floats]

_BLOCK = 4_000_000  # numbers in a temporary table
_NOTHING = 1e-12  # expected disagreement below this is none


def percent(table: Any) -> float:
    """The share of agreeing pairs of ratings, per item and then averaged over items (Fleiss' P); NaN without pairs."""
    return _estimate(table, percent_over)


def cohen_kappa(table: Any, weighting: Weighting = "none", order: Sequence[Any] | None = None) -> float:
    """Cohen's kappa of two raters; `linear` and `quadratic` weigh by how many categories lie between.

    Raises InputError for other than two raters, or weights over categories without an order.
    """
    return _estimate(table, cohen_over(weighting), order)


def fleiss_kappa(table: Any) -> float:
    """Fleiss' kappa of any number of raters; missing ratings as said above."""
    return _estimate(table, fleiss_over)


def krippendorff_alpha(table: Any, level: Level = "nominal", order: Sequence[Any] | None = None) -> float:
    """Krippendorff's alpha; missing ratings are its normal case. Raises InputError where the level does not fit."""
    return _estimate(table, alpha_over(level), order)


def _estimate(table: Any, statistic: Statistic, order: Sequence[Any] | None = None) -> float:
    rated = ratings(table, order)
    return float(statistic(rated, np.ones((1, len(rated.paired))))[0])


def percent_over(rated: Ratings, weights: Floats) -> Floats:
    """`percent` per row of weights."""
    return _ratio(weights @ _agreeing(rated), weights.sum(axis=1))


def fleiss_over(rated: Ratings, weights: Floats) -> Floats:
    """`fleiss_kappa` per row of weights."""
    items = weights.sum(axis=1)
    shares = rated.cells.count / rated.per_item[rated.cells.item]
    chance = _squares_by_value(rated, weights, shares) / np.maximum(items, 1) ** 2
    return _one_minus(1 - percent_over(rated, weights), 1 - chance)


def cohen_over(weighting: Weighting) -> Statistic:
    """`cohen_kappa` per row of weights."""

    def statistic(rated: Ratings, weights: Floats) -> Floats:
        if rated.codes.shape[1] != 2:
            raise InputError(f"Cohen's kappa compares two raters; this table has {rated.codes.shape[1]}")
        if weighting != "none" and not rated.ordered:
            raise InputError("weights need categories in an order: numbers, or `order` from low to high")
        one, two = rated.codes[rated.paired].T.astype(np.float64)
        items = weights.sum(axis=1)
        if weighting == "quadratic":
            mean_one, mean_two = _ratio(weights @ one, items), _ratio(weights @ two, items)
            expected = _ratio(weights @ (one**2 + two**2), items) - 2 * mean_one * mean_two
            return _one_minus(_ratio(weights @ (one - two) ** 2, items), expected)
        observed = _ratio(weights @ (np.abs(one - two) if weighting == "linear" else (one != two) * 1.0), items)
        expected = np.empty(len(weights))
        for rows in _blocks(len(weights), len(rated.values)):
            p = _by_code(one, weights[rows], len(rated.values)) / np.maximum(items[rows, None], 1)
            q = _by_code(two, weights[rows], len(rated.values)) / np.maximum(items[rows, None], 1)
            if weighting == "linear":  # the mean distance of two draws: where one lies below a step and the other above
                below_p, below_q = np.cumsum(p, axis=1), np.cumsum(q, axis=1)
                expected[rows] = (below_p * (1 - below_q) + below_q * (1 - below_p)).sum(axis=1)
            else:
                expected[rows] = 1 - (p * q).sum(axis=1)
        return _one_minus(observed, expected)

    return statistic


def alpha_over(level: Level) -> Statistic:
    """`krippendorff_alpha` per row of weights."""

    def statistic(rated: Ratings, weights: Floats) -> Floats:
        if level not in ("nominal", "ordinal", "interval"):
            raise InputError(f"no level is called {level!r}; there are nominal, ordinal and interval")
        if level == "ordinal" and not rated.ordered:
            raise InputError("an ordinal scale needs categories in an order: numbers, or `order` from low to high")
        total = weights @ rated.per_item
        if level == "nominal":
            cells = rated.cells
            square = np.bincount(cells.item, cells.count**2, len(rated.per_item))
            within = weights @ ((rated.per_item**2 - square) / (rated.per_item - 1))
            across = total**2 - _squares_by_value(rated, weights, cells.count)
        elif level == "interval":
            within, across = _spread(rated, weights, total, rated.numbers[None, :])
        else:
            within, across = np.empty(len(weights)), np.empty(len(weights))
            for rows in _blocks(len(weights), len(rated.cells.item)):
                # Krippendorff's ordinal distance is the squared distance of mid-ranks among all paired ratings
                given = _by_value(rated, weights[rows], rated.cells.count)
                ranks = np.cumsum(given, axis=1) - given / 2
                within[rows], across[rows] = _spread(rated, weights[rows], total[rows], ranks)
        return _one_minus(_ratio(within, total), _ratio(across, total * (total - 1)))

    return statistic


def _spread(rated: Ratings, weights: Floats, total: Floats, positions: Floats) -> tuple[Floats, Floats]:
    """Sums of squared distances of all ordered pairs, within items (each over m - 1) and across; positions per value.

    `positions` has one row, or one per replicate. Distances are taken from means first, so that large values with small
    differences keep their digits.
    """
    cells, sizes = rated.cells, rated.per_item
    if not len(sizes):
        return np.zeros(len(weights)), np.zeros(len(weights))
    starts = np.searchsorted(cells.item, np.arange(len(sizes)))
    middle = (positions.max(axis=1, keepdims=True) + positions.min(axis=1, keepdims=True)) / 2
    at = (positions - middle)[:, cells.value]
    means = np.add.reduceat(at * cells.count, starts, axis=1) / sizes
    around = np.add.reduceat((at - means[:, cells.item]) ** 2 * cells.count, starts, axis=1)
    within = (weights * (2 * sizes / (sizes - 1) * around)).sum(axis=1)
    grand = _ratio((weights * sizes * means).sum(axis=1), total)
    spread = (weights * (around + sizes * (means - grand[:, None]) ** 2)).sum(axis=1)
    return within, 2 * total * spread


def _agreeing(rated: Ratings) -> Floats:
    """Per paired item, the share of pairs of ratings that agree."""
    cells, sizes = rated.cells, rated.per_item
    same = np.bincount(cells.item, cells.count * (cells.count - 1), len(sizes))
    return same / (sizes * (sizes - 1))


def _by_value(rated: Ratings, weights: Floats, amounts: Floats) -> Floats:
    """(replicates, values): the weighted sum of an amount per cell, by value."""
    return _grouped(rated.cells.value, weights[:, rated.cells.item] * amounts, len(rated.values))


def _squares_by_value(rated: Ratings, weights: Floats, amounts: Floats) -> Floats:
    made = np.empty(len(weights))
    for rows in _blocks(len(weights), len(rated.cells.item)):
        made[rows] = (_by_value(rated, weights[rows], amounts) ** 2).sum(axis=1)
    return made


def _by_code(codes: Floats, weights: Floats, values: int) -> Floats:
    return _grouped(codes.astype(np.int64), weights, values)


def _grouped(keys: Codes, amounts: Floats, groups: int) -> Floats:
    """Sums of columns with one key; amounts (replicates, keys), result (replicates, groups)."""
    made = np.zeros((len(amounts), groups))
    if len(keys):
        by_key = np.argsort(keys, kind="stable")
        present, starts = np.unique(keys[by_key], return_index=True)
        made[:, present] = np.add.reduceat(amounts[:, by_key], starts, axis=1)
    return made


def _blocks(replicates: int, width: int) -> list[slice]:
    step = max(1, _BLOCK // max(width, 1))
    return [slice(start, start + step) for start in range(0, replicates, step)]


def _ratio(top: Floats, bottom: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _one_minus(observed: Floats, expected: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > _NOTHING, 1 - observed / expected, np.nan)
