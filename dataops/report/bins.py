"""Histograms of any column by fixed rules: the same numbers give the same bins, with nothing to choose by hand.

The axis spans the middle 99% of the values and every threshold; what lies outside is counted, not drawn. Skewed counts
get a log10(1 + x) axis, on which zero has a place. Whole numbers get bins that hold whole numbers, so that no bin is
empty because no number falls in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 40
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def tidy(value: float | None) -> float | int | None:
    """Whole numbers as they are, fractions to six significant digits, null where the value is no number: for JSON."""
    if value is None or not math.isfinite(value):
        return None
    if value == int(value):
        return int(value)
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded == int(rounded) else rounded


def quantiles(values: np.ndarray) -> dict[str, float | int | None]:
    """Quantiles by name ("p50"); empty for no values. Each is a value that occurs."""
    if not len(values):
        return {}
    found = np.quantile(values, QUANTILES, method="nearest")
    return {f"p{round(q * 100)}": tidy(float(value)) for q, value in zip(QUANTILES, found, strict=True)}


def histogram(values: np.ndarray, kept: np.ndarray, thresholds: Sequence[float] = ()) -> dict[str, Any]:
    """Counts of all values and of those of kept rows, float64[n] and bool[n], over common bins.

    `scale` "linear" or "log" (log10(1 + x)), `whole` where all values are whole numbers, `edges` (one more than the
    counts), `all`, `kept`, and how many values lie `below` the first edge or `above` the last.
    """
    if not len(values):
        nothing: dict[str, Any] = {"edges": [], "all": [], "kept": [], "below": 0, "above": 0}
        return {"scale": "linear", "whole": False, **nothing}
    low, high = (float(value) for value in np.quantile(values, (0.005, 0.995), method="nearest"))
    whole = bool((values == np.round(values)).all()) and float(np.abs(values).max()) < 1e12
    if whole and values.max() - values.min() <= BINS:
        low, high = float(values.min()), float(values.max())
    room = 1.0 if whole else 0.0  # so that both sides of a threshold have a place
    low, high = (
        min([low, *(limit - room for limit in thresholds)]),
        max([high, *(limit + room for limit in thresholds)]),
    )
    low = max(low, 0.0) if values.min() >= 0 else low
    middle = float(np.median(values))
    log = low >= 0 and high >= 100 and high > 8 * max(middle, 1.0)
    edges = _written(_log_edges(low, high, whole) if log else _linear_edges(low, high, whole))
    counts = np.histogram(values, edges)[0]
    kept_counts = np.histogram(values[kept], edges)[0]
    return {
        "scale": "log" if log else "linear",
        "whole": whole,
        "edges": edges.tolist(),
        "all": counts.tolist(),
        "kept": kept_counts.tolist(),
        "below": int((values < edges[0]).sum()),
        "above": int((values > edges[-1]).sum()),
    }


def _written(edges: np.ndarray) -> np.ndarray:
    """Edges of 15 digits, which read well and mean the same when they are read back; two of them at least."""
    rounded = np.unique([float(f"{edge:.15g}") for edge in edges])
    if len(rounded) > 1:
        return rounded
    room = max(0.5, 1e-3 * abs(float(rounded[0])))
    return np.array([rounded[0] - room, rounded[0] + room])


def _linear_edges(low: float, high: float, whole: bool) -> np.ndarray:
    if 0 <= low < high / 3:
        low = 0.0
    if whole and high - low <= BINS:
        return np.arange(low, high + 2) - 0.5
    if high - low <= 1e-9 * abs(high):  # no room for a step between two such numbers
        return np.array([low])
    step = nice_step((high - low) / BINS)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return np.arange(first, last + 1) * step - (0.5 if whole else 0.0)


def _log_edges(low: float, high: float, whole: bool) -> np.ndarray:
    edges = 10 ** np.linspace(math.log10(1 + low), math.log10(1 + high), BINS + 1) - 1
    if not whole:
        edges[0], edges[-1] = low, high
        return edges
    return np.unique([*np.round(edges[:-1]), high + 1]) - 0.5


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
