"""What pairs are about: prompts clustered by the words that tell them apart.

Spherical k-means (Dhillon and Modha 2001) over tf-idf of the words of the last message of each prompt. Words of more
than a fifth of the prompts are left out, which does for stop words of any language without a list. A cluster is
named by the words that weigh most in its centre. The law: rows come by id and the start is drawn with a fixed seed, so
the same pairs give the same clusters. Not covered: scripts without spaces between words, two words for one thing.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import sparse

WORDS, SEED = 4_000, 0
COMMON = 5  # a word of more than every fifth prompt says little of any
MOST, LEAST = 16, 50  # clusters at most; prompts below which there are none
_TRIES, _ROUNDS, _NAMES, _CHARS = 4, 20, 5, 2_000


def topics(asked: pl.Series, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(a cluster per pair, int64[n], -1 for prompts without a word that another one has; names of the clusters).

    `groups` numbers the prompts; every prompt counts once, however many pairs it has.
    """
    none = np.full(len(asked), -1, dtype=np.int64)
    first = np.unique(groups, return_index=True)[1]
    if len(first) < LEAST:
        return none, []
    weights, words = _weights(asked.gather(np.sort(first)))
    used = np.diff(weights.indptr) > 0
    if used.sum() < LEAST:
        return none, []
    clusters = int(min(MOST, max(2, round(float(np.sqrt(used.sum() / 12))))))
    found, centres = _cluster(weights[np.flatnonzero(used)], clusters)
    of_prompt = np.full(len(first), -1, dtype=np.int64)
    of_prompt[used] = found
    by_group = dict(zip(groups[np.sort(first)].tolist(), of_prompt.tolist(), strict=True))
    names = []
    for centre in centres:
        best = [k for k in np.argsort(-centre, kind="stable")[:_NAMES] if centre[k] > 0]
        names.append(" ".join(words[k] for k in best))
    return np.array([by_group[group] for group in groups.tolist()], dtype=np.int64), names


def _weights(asked: pl.Series) -> tuple[sparse.csr_array, list[str]]:
    """tf-idf of unit length, float64[prompts, words], and the words."""
    found = (
        pl.DataFrame({"word": asked.str.head(_CHARS).str.to_lowercase().str.extract_all(r"\p{L}[\p{L}\p{N}]{2,}")})
        .with_row_index("row")
        .explode("word", empty_as_null=True)
        .drop_nulls("word")
        .group_by("row", "word")
        .len()
    )
    seen = found.group_by("word").agg(rows=pl.len())
    kept = (
        seen.filter((pl.col("rows") >= 2) & (pl.col("rows") <= max(2, len(asked) // COMMON)))
        .sort(["rows", "word"], descending=[True, False])
        .head(WORDS)
        .with_row_index("column")
    )
    cells = found.join(kept, on="word", how="inner").sort("row", "column")
    rare = np.log(len(asked) / cells["rows"].to_numpy())
    value = (1 + np.log(cells["len"].to_numpy())) * rare**2  # squared: what few prompts say is what they are about
    row = cells["row"].to_numpy()
    length = np.sqrt(np.bincount(row, weights=value * value, minlength=len(asked)))
    matrix = sparse.csr_array(
        (value / length[row], (row, cells["column"].to_numpy())), shape=(len(asked), max(1, kept.height))
    )
    return matrix, kept["word"].to_list()


def _cluster(weights: sparse.csr_array, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """(cluster of each row, centres of unit length) of the closest of a few attempts."""
    rng = np.random.default_rng(SEED)
    tries = [_settle(weights, _drawn(weights, clusters, rng)) for _ in range(_TRIES)]
    return max(tries, key=lambda found: found[2])[:2]


def _drawn(weights: sparse.csr_array, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Rows as first centres, drawn as in k-means++: the likelier, the further from those that are drawn."""
    picked = [int(rng.integers(weights.shape[0]))]
    nearest = np.zeros(weights.shape[0])
    while len(picked) < clusters:
        nearest = np.maximum(nearest, weights @ weights[[picked[-1]]].toarray()[0])
        far = np.clip(1 - nearest, 0, None)
        far[picked] = 0
        if far.sum() <= 0:
            break  # fewer different prompts than clusters
        place = np.searchsorted(np.cumsum(far), rng.random() * far.sum(), side="right")
        picked.append(int(min(place, len(far) - 1)))
    return weights[picked].toarray()


def _settle(weights: sparse.csr_array, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Lloyd's rounds from these centres: (clusters, centres, sum of the likeness of rows to their centres)."""
    rows = weights.shape[0]
    found = np.full(rows, -1)
    for _ in range(_ROUNDS):
        like = weights @ centres.T
        now = like.argmax(axis=1)
        if (now == found).all():
            break
        found = now
        member = sparse.csr_array((np.ones(rows), (found, np.arange(rows))), shape=(len(centres), rows))
        sums = (member @ weights).toarray()
        length = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
        centres = np.divide(sums, length, out=centres.copy(), where=length > 0)
    return found, centres, float(like.max(axis=1).sum())
