"""Shares and slopes over pairs, each with a bootstrap interval; what the bias report is computed with.

A share is a sum over pairs divided by another sum over the same pairs, so that one drawing of pairs serves all shares.
Intervals are percentiles over pairs drawn with replacement (Efron 1979), 95 %. The law: the same seed, the same
interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

#: The variance of the normal prior on a slope (log-odds per unit), so that pairs that separate have a finite one.
PRIOR = 10.0


@dataclass(frozen=True)
class Share:
    """A value over `n` things with the ends of its 95 % interval; all None where there was nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Counted:
    """Per pair what goes into a share: `hits` of `tries`."""

    hits: np.ndarray
    tries: np.ndarray


def shares(counted: Mapping[str, Counted], *, seed: int, replicates: int) -> dict[str, Share]:
    """The shares by name. The arrays are equally long: one place per pair, 0 tries where it does not count."""
    if not counted:
        return {}
    hits = np.column_stack([item.hits for item in counted.values()]).astype(float)
    tries = np.column_stack([item.tries for item in counted.values()]).astype(float)
    drawn = np.full((replicates, len(counted)), np.nan)
    for k, weights in enumerate(_drawings(len(hits), seed, replicates)):
        below = weights @ tries
        np.divide(weights @ hits, below, out=drawn[k], where=below > 0)
    below = tries.sum(axis=0)
    return {
        name: _share(float(hits[:, j].sum() / below[j]) if below[j] else None, drawn[:, j], int(below[j]))
        for j, name in enumerate(counted)
    }


def slope(features: np.ndarray, labels: np.ndarray, *, seed: int, replicates: int) -> Share:
    """The first feature's coefficient in a logistic regression of labels (0 .. 1) without an intercept, since which of
    two responses stands first in a row means nothing."""
    if not len(labels):
        return Share(None, None, None, 0)
    drawn = np.array([_fit(features, labels, weights)[0] for weights in _drawings(len(labels), seed, replicates)])
    return _share(float(_fit(features, labels, np.ones(len(labels)))[0]), drawn, len(labels))


def _fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Newton's steps with a normal prior on each coefficient."""
    found = np.zeros(features.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(features @ found, -500, 500)))
        curvature = (features.T * (weights * p * (1 - p))) @ features + np.eye(len(found)) / PRIOR
        step = np.linalg.solve(curvature, features.T @ (weights * (labels - p)) - found / PRIOR)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    return found


def _drawings(n: int, seed: int, replicates: int) -> Iterator[np.ndarray]:
    """How often each of n pairs is drawn, once per replicate."""
    rng = np.random.default_rng(seed)
    for _ in range(replicates if n else 0):
        yield np.bincount(rng.integers(0, n, n), minlength=n).astype(float)


def _share(value: float | None, drawn: np.ndarray, n: int) -> Share:
    known = drawn[~np.isnan(drawn)]
    if value is None or not len(known):
        return Share(value, None, None, n)
    low, high = np.percentile(known, [2.5, 97.5])
    return Share(value, float(low), float(high), n)
