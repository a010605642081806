"""Which pairs are likely the wrong way round: confident learning over cross-fitted chances, and an op that drops them.

Confident learning (Northcutt, Jiang and Chuang 2021) counts a label as wrong where the model is at least as sure of
another one as it is on average of labels of that kind. Which side of a pair is named first is arbitrary, so both kinds
are one, and it comes to this: with t the mean chance that a pair is the right way round, a pair speaks against itself
where its chance is at most 1 - t, and for itself where it is at least t. The share of the first among both estimates
how many pairs are wrong; as many, those of the lowest chances, are `suspect`.

The law: a model that does no better than tossing a coin accuses nobody. Where the interval of the held-out accuracy
reaches down to one half, no pair is suspect and no share is estimated; with few pairs, or prompts, nothing is fitted.
The estimate counts what the cheap model cannot learn as noise too: where its accuracy is low, it is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from gristmill.dataops.dataset import InputError
from gristmill.dataops.noise.crossfit import crossfit, folds_of
from gristmill.dataops.noise.features import features
from gristmill.dataops.noise.pairs import check_pairs, texts, wilson
from gristmill.dataops.op import ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus

LEAST = 50  # pairs, and prompts, below which nothing is fitted
MOST = 50_000  # pairs that are fitted at once; of more, those with the smallest ids


@dataclass(frozen=True)
class Noise:
    """Of n pairs: `chance` that each is the right way round, float64[n]; `order`, int64[n], the least likely first;
    `suspect`, bool[n]; the `accuracy` of the held-out chances with its 95 % interval; `threshold`, the t of confident
    learning; and the estimated `share` of wrong pairs, None where nobody is accused."""

    chance: np.ndarray
    order: np.ndarray
    suspect: np.ndarray
    accuracy: float
    low: float
    high: float
    threshold: float
    share: float | None


def find_noise(ids: list[bytes], groups: np.ndarray, chosen: pl.Series, rejected: pl.Series) -> Noise | None:
    """The noise of pairs of texts; `groups` numbers their prompts from 0, int64[n]. None for fewer than LEAST."""
    if len(ids) < LEAST or len(np.unique(groups)) < LEAST:
        return None
    fold = folds_of(ids, groups)
    fitted = crossfit(features(chosen, rejected), fold)
    chance, order = fitted.chance, np.lexsort((fitted.score, fitted.chance))
    right = (chance > 0.5) + 0.5 * (chance == 0.5)
    accuracy, low, high = wilson(right, groups)
    threshold = float(chance.mean())
    against, for_ = int((1 - chance >= threshold).sum()), int((chance >= threshold).sum())
    suspect = np.zeros(len(ids), dtype=bool)
    if low <= 0.5:
        return Noise(chance, order, suspect, accuracy, low, high, threshold, None)
    share = against / (against + for_)
    suspect[order[: round(share * len(ids))]] = True
    return Noise(chance, order, suspect & (chance < 0.5), accuracy, low, high, threshold, share)


@op("pairs.drop_noisy", version=1, kind="corpus")
def drop_noisy(corpus: Corpus, *, most: float = 0.1) -> Iterator[pl.DataFrame]:
    """Drop suspect pairs, the least likely first and no more than this share of all, as "noisy_pair" with the chance as
    value.

    What stays agrees more with the model, its liking for length too: look at the report of both. Of more than MOST
    pairs only these are looked at. Raises InputError for a dataset without pairs, or one of which nothing can be told:
    there are too few, or the model does no better than chance.
    """
    dataset = corpus.dataset
    check_pairs(dataset)
    if not 0 < most <= 0.5:
        raise InputError(f"most is {most}: give a share above 0, and 0.5 at most")
    found = texts(dataset, MOST)
    noise = find_noise(found["id"].to_list(), found["group"].to_numpy(), found["chosen"], found["rejected"])
    if noise is None:
        raise InputError(f"{dataset.name} at {dataset.path}: {LEAST} pairs of {LEAST} prompts are needed to tell noise")
    if noise.low <= 0.5:
        raise InputError(
            f"{dataset.name} at {dataset.path}: held-out accuracy {noise.accuracy:.3f} ({noise.low:.3f} to "
            f"{noise.high:.3f}) is no better than chance, so no pair can be called noisy; leave this step out"
        )
    corpus.stats |= {"pairs": found.height, "accuracy": round(noise.accuracy, 4), "share": noise.share}
    worst = noise.order[noise.suspect[noise.order]][: int(most * found.height)]
    gone = found.select("id").with_columns(value=pl.Series(noise.chance))[worst]
    for shard in dataset.shards():
        lost = positioned(shard, ["id"]).join(gone, on="id", how="inner", maintain_order="left")
        yield ledger(lost, reason="noisy_pair")
