"""Win rate by a judge: both orders, ties, consistency, and what is left of it at equal length.

A judge says how far the response in the first seat is preferred to the one in the second: 1, 0, 0.5 for a tie, or any
share between. It is asked twice, with ours in the first seat and in the second: `first` and `second` are its answers.

    preference      (first + 1 - second) / 2: 1 ours, 0 theirs; where hard answers contradict each other, 0.5
    win rate        the mean preference; a tie counts half
    consistency     the share of pairs of which both orders say the same (the same side, or both a tie)
    first seat      the mean of (first + second) / 2: 0.5 where no seat is favoured

Length control follows AlpacaEval 2 (Dubois et al. 2024) without its term for the difficulty of an instruction, which
needs many models: a logistic regression

    P(preferred) = sigmoid(theta + phi * tanh(d / std(d))),    d = characters of ours - characters of theirs

fitted by maximum likelihood with a unit normal prior on phi; the length-controlled win rate is sigmoid(theta), the
preference foretold for responses of equal length. Where all d are equal there is no length to control for, and it is
the win rate. The law: two equal models have a win rate of 0.5, whatever the judge and its bias. Not covered: a judge
that likes its own model's style.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.training.evaluation.intervals import Measure, bootstrap, mean, share

_STEPS = 50
_FAR = 30.0  # log-odds at which a share is 0 or 1 to thirteen digits


def preferences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(first + 1 - second) / 2; NaN where an order was not judged."""
    return (np.asarray(first, dtype=np.float64) + 1 - np.asarray(second, dtype=np.float64)) / 2


def consistent(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where both orders prefer the same response, or none; 0 where not; NaN where one was not judged."""
    one, two = np.asarray(first, dtype=np.float64) - 0.5, 0.5 - np.asarray(second, dtype=np.float64)
    return np.where(np.isnan(one + two), np.nan, np.sign(one) == np.sign(two))


def controlled(preference: np.ndarray, difference: np.ndarray, scale: float | None = None) -> np.ndarray:
    """The length-controlled win rate of each row of pairs: float64 [..., pairs] to [...]; a pair of NaN is none.
    `scale` is std(d), by default that of the differences given."""
    y = np.atleast_2d(np.asarray(preference, dtype=np.float64))
    d = np.atleast_2d(np.asarray(difference, dtype=np.float64))
    there = ~np.isnan(y)
    scale = float(d[there].std()) if scale is None else scale
    x = np.where(there, np.tanh(d / scale), 0.0) if scale > 0 else np.zeros_like(d)
    y = np.where(there, y, 0.0)
    theta, phi = np.zeros(len(y)), np.zeros(len(y))
    for _ in range(_STEPS):  # Newton's method; the objective is concave, its steps are bounded
        p = there / (1 + np.exp(-(theta[:, None] + phi[:, None] * x)))
        w = p * (1 - p)
        g0, g1 = (y - p).sum(1), ((y - p) * x).sum(1) - phi
        h00, h01, h11 = w.sum(1) + 1e-9, (w * x).sum(1), (w * x * x).sum(1) + 1
        det = h00 * h11 - h01 * h01
        step0, step1 = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        theta, phi = np.clip(theta + np.clip(step0, -4, 4), -_FAR, _FAR), phi + np.clip(step1, -4, 4)
        if max(np.abs(step0).max(), np.abs(step1).max()) < 1e-10:
            break
    return (1 / (1 + np.exp(-theta))).reshape(np.shape(preference)[:-1])


def win_rates(first: np.ndarray, second: np.ndarray, difference: np.ndarray, *, seed: int = 0) -> dict[str, Measure]:
    """All measures of pairs, [prompts, samples] each: the judge's two answers (NaN: not judged) and the difference in
    length. The unit is the prompt."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    preference = preferences(first, second)
    d = np.where(np.isnan(preference), np.nan, difference)
    scale = 0.0 if np.isnan(d).all() else float(np.nanstd(d))
    tied = np.where(np.isnan(preference), np.nan, np.abs(preference - 0.5) < 1e-12)
    some = ~np.isnan(preference).all(1)
    samples = preference.shape[1]

    def at_equal_length(*columns: np.ndarray) -> np.ndarray:
        return controlled(np.concatenate(columns[:samples], 1), np.concatenate(columns[samples:], 1), scale)

    found = {
        "win_rate": share(_by_prompt(preference), seed=seed),
        "ties": share(_by_prompt(tied), seed=seed),
        "consistency": share(_by_prompt(consistent(first, second)), seed=seed),
        "first_seat": mean(_by_prompt((first + second) / 2), seed=seed),
        "win_rate_length_controlled": bootstrap([*preference[some].T, *d[some].T], at_equal_length, seed=seed),
        "win_rate_unjudged": share(_by_prompt(np.isnan(preference)), seed=seed),
    }
    return {name: measure for name, measure in found.items() if measure is not None}


def _by_prompt(values: np.ndarray) -> list[float | None]:
    told = ([float(x) for x in row if not np.isnan(x)] for row in np.asarray(values, dtype=np.float64))
    return [math.fsum(row) / len(row) if row else None for row in told]
