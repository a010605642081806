"""How good each rater is, and what the items' labels probably are: Dawid and Skene's model, majority, adjudication.

Dawid and Skene 1979: every item has one true class, every rater a confusion matrix (which label for which true class),
raters err independently given the class. Expectation maximisation finds the matrices, the class shares and each item's
posterior without any gold label.

The laws kept here: the objective never falls from one step to the next; an item without ratings moves nothing; a tie is
no majority unless the caller says how to break it. Not covered: items of different difficulty, raters who copy from
each other, and a maximum other than the one next to the majority vote, from which the search starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.agreement.table import Codes, Floats, Ratings, ratings


@dataclass(frozen=True)
class DawidSkene:
    """`confusion` (raters, true class, label), rows adding up to 1; `priors` (classes); `posteriors` (items, classes).

    `log_likelihood` is in nats, of all ratings; `objective` is it plus the logarithm of the smoothing prior, per step.
    `caveats` say what the numbers cannot tell.
    """

    values: tuple[Any, ...]
    confusion: Floats
    priors: Floats
    posteriors: Floats
    log_likelihood: float
    objective: tuple[float, ...]
    converged: bool
    caveats: tuple[str, ...]

    @property
    def accuracy(self) -> Floats:
        """Per rater, the probability of the true label."""
        return np.einsum("k,rkk->r", self.priors, self.confusion)

    @property
    def labels(self) -> list[Any]:
        """The most probable class of each item (the first of equals)."""
        return [self.values[k] for k in self.posteriors.argmax(axis=1)]


@dataclass(frozen=True)
class Case:
    """An item to look at again: `entropy` in bits, `votes` by label, `label` as it stands (None: a tie)."""

    item: int
    entropy: float
    votes: tuple[tuple[Any, int], ...]
    label: Any


def dawid_skene(
    table: Any,
    *,
    order: Sequence[Any] | None = None,
    smoothing: float = 0.01,
    tolerance: float = 1e-8,
    max_iterations: int = 1_000,
) -> DawidSkene:
    """Fit the model to items (rows) by raters; None is missing.

    `smoothing` is added to every count (0: plain maximum likelihood), so that one lucky rater is not certain.
    Converged where the objective gains less than `tolerance` nats per rating. Raises InputError without any rating.
    """
    rated = ratings(table, order)
    item, rater = np.nonzero(rated.codes >= 0)
    if not len(item):
        raise InputError("there is no rating to learn from")
    if smoothing < 0:
        raise InputError(f"smoothing is a count of 0 or more, not {smoothing}")
    label, (items, raters), classes = rated.codes[item, rater], rated.codes.shape, len(rated.values)
    known = np.bincount(item, minlength=items) > 0
    votes = np.bincount(item * classes + label, minlength=items * classes).reshape(items, classes).astype(np.float64)
    posteriors = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    objective: list[float] = []
    converged = False
    while not converged and len(objective) < max_iterations:
        priors, confusion = _maximise(posteriors, item, rater, label, raters, smoothing, known)
        posteriors, likelihood = _expect(priors, confusion, item, rater, label, known)
        logs = np.log(np.maximum(confusion, 1e-300)).sum() + np.log(np.maximum(priors, 1e-300)).sum()
        objective.append(likelihood + smoothing * float(logs))
        converged = len(objective) > 1 and objective[-1] - objective[-2] < tolerance * len(item)
    return DawidSkene(
        rated.values,
        confusion,
        priors,
        posteriors,
        likelihood,
        tuple(objective),
        converged,
        _caveats(priors, confusion, raters, np.bincount(rater, minlength=raters), converged),
    )


def _maximise(
    posteriors: Floats, item: Codes, rater: Codes, label: Codes, raters: int, smoothing: float, known: Any
) -> tuple[Floats, Floats]:
    classes = posteriors.shape[1]
    priors = posteriors[known].sum(axis=0) + smoothing
    cell = rater * classes + label
    counts = np.stack(
        [np.bincount(cell, posteriors[item, k], raters * classes).reshape(raters, classes) for k in range(classes)],
        axis=1,
    ) + np.float64(smoothing)
    totals = counts.sum(axis=2, keepdims=True)
    # a class that a rater has never met, without smoothing: nothing is known of the row, so nothing is claimed
    confusion = np.where(totals > 0, counts / np.where(totals > 0, totals, 1), 1 / classes)
    return priors / priors.sum(), confusion


def _expect(
    priors: Floats, confusion: Floats, item: Codes, rater: Codes, label: Codes, known: Any
) -> tuple[Floats, float]:
    logs = np.log(np.maximum(confusion, 1e-300))
    joint = np.log(np.maximum(priors, 1e-300)) + np.stack(
        [np.bincount(item, logs[rater, k, label], len(known)) for k in range(len(priors))], axis=1
    )
    top = joint.max(axis=1, keepdims=True)
    shares = np.exp(joint - top)
    totals = shares.sum(axis=1, keepdims=True)
    return shares / totals, float((top + np.log(totals))[known].sum())


def _caveats(priors: Floats, confusion: Floats, raters: int, given: Codes, converged: bool) -> tuple[str, ...]:
    told = []
    if raters < 3:
        told.append("fewer than three raters: many confusion matrices explain the ratings equally well")
    if not converged:
        told.append("not converged: raise max_iterations")
    if len(priors) > 1:
        weak = np.flatnonzero((np.einsum("k,rkk->r", priors, confusion) < (priors**2).sum()) & (given > 0))
        if len(weak):
            told.append(f"raters {weak.tolist()} are worse than guessing by class shares: spam, or labels swapped")
    few = np.flatnonzero(given < 10 * len(priors))
    if len(few):
        told.append(f"raters {few.tolist()} gave fewer than ten ratings per class: their matrices are mostly prior")
    return tuple(told)


def majority(table: Any, *, tie: Literal["none", "lowest"] = "none") -> list[Any]:
    """The most frequent label of each item; None without ratings.

    `tie`: "none" leaves a tied item without a label, "lowest" takes the first of the tied categories in their order
    (numbers ascending, other labels by spelling).
    """
    if tie not in ("none", "lowest"):
        raise InputError(f"a tie is broken by 'none' or 'lowest', not {tie!r}")
    rated = ratings(table)
    item, value, count = _votes(rated)
    best = np.lexsort((value, -count, item))
    item, value, count = item[best], value[best], count[best]
    first = np.flatnonzero(np.diff(item, prepend=-1) > 0)
    tied = np.zeros(len(first), dtype=bool)
    more = first + 1 < len(item)
    after = first[more] + 1
    tied[more] = (item[after] == item[first[more]]) & (count[after] == count[first[more]])
    made: list[Any] = [None] * len(rated.codes)
    for at, is_tied in zip(first.tolist(), tied.tolist(), strict=True):
        if tie == "lowest" or not is_tied:
            made[item[at]] = rated.values[value[at]]
    return made


def adjudicate(table: Any, model: DawidSkene | None = None, most: int | None = None) -> list[Case]:
    """Items on which raters differ, or of which the model is unsure, the most uncertain first (then by position).

    Uncertainty is the entropy of the model's posterior, without a model that of the votes. `most`: at most so many.
    """
    rated = ratings(table)
    if model is not None and (len(model.posteriors) != len(rated.codes) or model.values != rated.values):
        raise InputError("the model was fitted to another table")
    item, value, count = _votes(rated)
    items = len(rated.codes)
    given = np.bincount(item, count, items)
    shares = count / given[item]
    split = np.bincount(item, -shares * np.log2(shares), items)
    entropy = split
    labels = majority(rated)
    if model is not None:
        sure = np.maximum(model.posteriors, 1e-300)
        entropy = -(model.posteriors * np.log2(sure)).sum(axis=1)
        labels = model.labels
    asked = np.flatnonzero((given > 0) & ((split > 0) | (entropy > 0.01)))
    ranked = asked[np.lexsort((asked, -np.round(entropy[asked], 9)))][:most]
    starts = np.searchsorted(item, np.arange(items + 1))
    return [
        Case(
            int(i),
            float(max(entropy[i], 0.0)),
            tuple((rated.values[value[n]], int(count[n])) for n in range(starts[i], starts[i + 1])),
            labels[i],
        )
        for i in ranked
    ]


def _votes(rated: Ratings) -> tuple[Codes, Codes, Codes]:
    """(item, value, count) of all items, sorted by item, then value."""
    item, rater = np.nonzero(rated.codes >= 0)
    width = max(len(rated.values), 1)
    keys, counts = np.unique(item * width + rated.codes[item, rater], return_counts=True)
    return keys // width, keys % width, counts
