"""A cross-fitted linear reward model: of every pair the chance that it is the right way round, told by the others.

The Bradley-Terry model over `features`: the reward of a reply is linear in its n-grams, lengths and formats, and the
chance that the chosen one is the better is sigmoid(reward of chosen - reward of rejected). There is no offset, because
a swapped pair is the same row with its sign turned. Folds are by prompt, so that a model never saw another pair of the
prompt it judges: neither a copy nor a rival. The penalty is chosen inside the training folds, on a part of them.

The law: no label of a pair's prompt enters the weights or the penalty that its score comes from; what turns scores
into chances is fitted to the scores of the other folds. A chance of c means that of such pairs a share of c would get
the same label from another rater of the same kind: where raters err often, few are near 0 or 1. Ids decide the folds
and rows come by id, so how a dataset is cut changes nothing. Not covered: noise that follows what the model sees.
Raters who prefer the longer reply against the rule teach it so, and their pairs look right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from gristmill.dataops.learned.logistic import minimise, sigmoid
from gristmill.dataops.noise.features import Features

FOLDS = 5
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_TRIED = 4_000  # pairs on which the penalty is chosen, and chances are calibrated, at most
_SLOPES, _LAPSES = 2.0 ** np.arange(-5, 6.25, 0.25), np.arange(0, 0.46, 0.02)
_TOLERANCE, _STEPS = 0.01, 100


@dataclass(frozen=True)
class Crossfit:
    """Of n pairs: `chance` that the pair is the right way round, float64[n]; `score`, of which it is a rising function,
    float64[n], to rank pairs whose chances are as low as chances get; the `penalties` taken by the folds."""

    chance: np.ndarray
    score: np.ndarray
    penalties: tuple[float, ...]


def folds_of(ids: list[bytes], groups: np.ndarray) -> np.ndarray:
    """A fold per pair: that of the smallest id of its group, which is of hashed bytes. groups: int64[n], from 0."""
    keys = np.frombuffer(b"".join(value[:8].ljust(8, b"\0") for value in ids), dtype=">u8").astype(np.uint64)
    least = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(least, groups, keys)
    order = np.argsort(np.argsort(least, kind="stable"), kind="stable")  # folds of one size, whatever the ids are
    return (order % FOLDS)[groups]


def crossfit(found: Features, fold: np.ndarray) -> Crossfit:
    """The chances of all pairs, each from the other folds. Needs a pair in two folds at least."""
    score = np.zeros(len(fold))
    penalties = []
    for number in range(FOLDS):
        apart = fold == number
        penalty = _penalty(found, np.flatnonzero(~apart), fold)
        penalties.append(penalty)
        score[apart] = _scores(found, _fit(found, np.flatnonzero(~apart), penalty), np.flatnonzero(apart))
    chance, scaled = np.empty_like(score), np.empty_like(score)
    for number in range(FOLDS):
        apart = fold == number
        slope, lapse = _calibration(score[~apart])
        scaled[apart] = slope * score[apart]
        chance[apart] = lapse + (1 - 2 * lapse) * sigmoid(scaled[apart])
    return Crossfit(chance, scaled, tuple(penalties))


def _penalty(found: Features, rows: np.ndarray, fold: np.ndarray) -> float:
    """The penalty under which one of these folds is told best by the others, in log loss. The first rows are as good a
    part as any, as ids are hashes; every so many of them would be all of one fold."""
    rows = rows[:_TRIED]
    inner = fold[rows] == fold[rows].max(initial=0)
    taught, held = rows[~inner], rows[inner]
    losses = []
    for penalty in PENALTIES:
        told = _scores(found, _fit(found, taught, penalty), held)
        losses.append(float(np.logaddexp(0.0, -told).sum()))
    return PENALTIES[int(np.argmin(losses))]


def _fit(found: Features, rows: np.ndarray, penalty: float) -> np.ndarray:
    """Weights of the grams and then of the dense columns that minimise log loss + penalty / 2 |w|^2 over these rows."""
    grams, dense = found.grams[rows], found.dense[rows]
    turned = sparse.csr_array(grams.T)
    columns = grams.shape[1]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = _product(grams, x[:columns]) + _times(dense, x[columns:])
        pull = -sigmoid(-z)
        gradient = np.concatenate([_product(turned, pull), (dense * pull[:, None]).sum(axis=0)]) + penalty * x
        return float(np.logaddexp(0.0, -z).sum()) + penalty / 2 * float((x * x).sum()), gradient

    return minimise(loss, np.zeros(columns + dense.shape[1]), _TOLERANCE, _STEPS)[0]


def _scores(found: Features, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    columns = found.grams.shape[1]
    return _product(found.grams[rows], weights[:columns]) + _times(found.dense[rows], weights[columns:])


def _product(grams: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """grams @ values; of float32, as a matrix of these would be copied for every product with float64."""
    return (grams @ values.astype(np.float32)).astype(np.float64)


def _times(dense: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """dense @ weights without BLAS, whose sums depend on its threads."""
    return (dense * weights).sum(axis=1)


def _calibration(score: np.ndarray) -> tuple[float, float]:
    """(slope, lapse) of the chance lapse + (1 - 2 lapse) sigmoid(slope * score) of least log loss over these scores.

    A share `lapse` of the labels are taken for given whatever the replies are, as psychometric curves have it: without
    it far scores would be near 0 and 1 however often raters err.
    """
    score = score[:_TRIED]
    size = float(np.sqrt(np.square(score).mean())) if len(score) else 0.0
    if size <= 0:
        return 0.0, 0.0
    best = (float("inf"), 0.0, 0.0)
    for slope in (_SLOPES / size).tolist():
        agrees = sigmoid(slope * score)
        for lapse in _LAPSES.tolist():
            loss = -float(np.log(np.maximum(lapse + (1 - 2 * lapse) * agrees, 1e-12)).sum())
            best = min(best, (loss, slope, lapse))
    return best[1], best[2]
