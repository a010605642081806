"""From a judge's scores to probabilities that a person agrees, fitted on labelled rows.

`platt` fits a logistic curve over the score's log-odds (two numbers: for few labels), `isotonic` the best rising steps
(pool adjacent violators: for many). Both give knots of a rising line, as plain data, so that a calibrated judge is a
verifier with the knots in its identity. `reliability` and `calibration_error` say how far scores are from frequencies.

Labels lie in 0 .. 1; a tie is 0.5. The law: calibration keeps the order of scores and never makes one where there was
none. Fit and measure on other rows, as `cross_fitted` does: on the rows it was fitted on, isotonic has no error at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier, verifier

#: (score, probability), rising in both; between knots the line is straight, beyond the ends it is level.
Knots = tuple[tuple[float, float], ...]

_GRID = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Bin:
    """Scores from `low` to `high`: how many, their mean, and the mean of their labels."""

    low: float
    high: float
    n: int
    score: float
    label: float


def platt(scores: Sequence[float], labels: Sequence[float]) -> Knots:
    """A logistic curve over the log-odds of the score, by Newton's steps, on targets drawn in as Platt (1999) does: so
    separable labels have an end too."""
    s, y = _pairs(scores, labels)
    x = np.column_stack([_log_odds(s), np.ones(len(s))])
    ones, n = y.sum(), len(y)
    targets = y * (ones + 1) / (ones + 2) + (1 - y) / (n - ones + 2)
    weights = np.array([0.0, np.log((ones + 1) / (n - ones + 1))])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -500, 500)))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, x.T @ (targets - p) - 1e-6 * weights)
        step *= min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    slope = max(0.0, float(weights[0]))  # a judge that is wrong more often than right is calibrated to say nothing
    level = float(weights[1]) if slope > 0 else float(np.log((ones + 1) / (n - ones + 1)))
    line = 1 / (1 + np.exp(-np.clip(slope * _log_odds(_GRID) + level, -500, 500)))
    return _knots(_GRID, line)


def isotonic(scores: Sequence[float], labels: Sequence[float]) -> Knots:
    """The rising steps nearest to the labels in squares (pool adjacent violators, Ayer et al. 1955)."""
    s, y = _pairs(scores, labels)
    values, inverse = np.unique(s, return_inverse=True)
    weights = np.bincount(inverse).astype(float)
    means = np.bincount(inverse, weights=y) / weights
    blocks: list[list[float]] = []  # mean, weight, first score, last score
    for value, mean, weight in zip(values.tolist(), means.tolist(), weights.tolist(), strict=True):
        blocks.append([mean, weight, value, value])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, weight, _, last = blocks.pop()
            top = blocks[-1]
            top[0] = (top[0] * top[1] + mean * weight) / (top[1] + weight)
            top[1], top[3] = top[1] + weight, last
    points = [(at, block[0]) for block in blocks for at in dict.fromkeys((block[2], block[3]))]
    return _knots(np.array([at for at, _ in points]), np.array([p for _, p in points]))


def apply(knots: Knots, scores: Sequence[float]) -> list[float]:
    """Scores to probabilities."""
    xs, ys = zip(*knots, strict=True)
    return [min(1.0, max(0.0, float(value))) for value in np.interp(np.asarray(scores, float), xs, ys)]


def cross_fitted(
    fit: Callable[[Sequence[float], Sequence[float]], Knots],
    scores: Sequence[float],
    labels: Sequence[float],
    *,
    folds: int = 5,
    seed: int = 0,
) -> list[float]:
    """Each score calibrated by knots fitted on the other folds' labels: what calibration will do on new rows."""
    s, y = _pairs(scores, labels)
    if not 2 <= folds <= len(s):
        raise InputError(f"{folds} folds of {len(s)} labelled scores: there are 2 folds or more, and a score in each")
    fold = np.random.default_rng(seed).permutation(len(s)) % folds
    found = np.empty(len(s))
    for k in range(folds):
        knots = fit(s[fold != k].tolist(), y[fold != k].tolist())
        found[fold == k] = apply(knots, s[fold == k].tolist())
    return [float(value) for value in found]


def reliability(scores: Sequence[float], labels: Sequence[float], bins: int = 10) -> list[Bin]:
    """The bins of equal width that hold a score."""
    s, y = _pairs(scores, labels)
    at = np.minimum((s * bins).astype(int), bins - 1)
    return [
        Bin(k / bins, (k + 1) / bins, int(here.sum()), float(s[here].mean()), float(y[here].mean()))
        for k in range(bins)
        if (here := at == k).any()
    ]


def calibration_error(scores: Sequence[float], labels: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): mean score from mean label, over bins by size."""
    return sum(item.n * abs(item.score - item.label) for item in reliability(scores, labels, bins)) / len(scores)


def calibrated(judge: Verifier, knots: Knots) -> Verifier:
    """The verifier `judge.calibrated`: a judge whose scores go through the knots."""
    xs, ys = zip(*knots, strict=True)
    if list(xs) != sorted(set(xs)) or list(ys) != sorted(ys):
        raise InputError("the knots of a calibration rise: scores strictly, probabilities not strictly")
    return _calibrated(parts=[judge], knots=[list(knot) for knot in knots])


@verifier("judge.calibrated", version=1)
def _calibrated(rows: Sequence[Row], *, parts: Sequence[Verifier], knots: Sequence[Sequence[float]]) -> list[Verdict]:
    (judge,) = parts
    line = tuple((float(x), float(y)) for x, y in knots)
    return [
        verdict
        if verdict.score is None or "attack" in verdict.evidence
        else Verdict(apply(line, [verdict.score])[0], verdict.reason, {**verdict.evidence, "raw": verdict.score})
        for verdict in judge.rows(rows)
    ]


def _pairs(scores: Sequence[float], labels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    s, y = np.asarray(scores, float), np.asarray(labels, float)
    if s.ndim != 1 or s.shape != y.shape or not len(s):
        raise InputError(
            f"{len(s)} scores and {len(y)} labels: calibration wants as many of one as of the other, and some"
        )
    if not (((s >= 0) & (s <= 1)).all() and ((y >= 0) & (y <= 1)).all()):
        raise InputError("scores and labels lie in 0 .. 1; leave out what was not judged")
    return s, y


def _log_odds(p: np.ndarray) -> np.ndarray:
    kept = np.clip(p, 1e-3, 1 - 1e-3)
    return np.log(kept / (1 - kept))


def _knots(xs: np.ndarray, ys: np.ndarray) -> Knots:
    return tuple((float(x), float(y)) for x, y in zip(xs, np.maximum.accumulate(ys), strict=True))
