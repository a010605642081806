"""A preference pair as numbers: what the chosen reply has more of than the rejected one.

Two blocks, both cheap: hashed n-grams of each reply (words, pairs of words and runs of 4 bytes, as the small classifier
of `learned` counts them), and lengths and formats. The law: every column is a difference, chosen minus rejected, so a
pair with its sides swapped is the same row with its sign turned; nothing here can know which side was named chosen.

Not covered: the prompt, and what a reply means. A reply that is right and one that is wrong in one digit look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from gristmill.dataops.learned.grams import BLOCKS, BUCKETS, counted

MIN_PAIRS = 3  # an n-gram on which fewer pairs differ teaches nothing that could be used on another
REACH = 5.0  # root mean squares at which a dense number is cut

#: What a format is counted by, over whole replies; (?m) lets ^ match behind line breaks.
FORMATS = {
    "lists": r"(?m)^\s*(?:[-*•]|\d{1,3}[.)])\s",
    "headings": r"(?m)^#{1,6}\s",
    "bold": r"\*\*[^*\n]+\*\*",
    "code": r"```|`[^`\n]+`",
    "paragraphs": r"\n\s*\n",
    "questions": r"\?",
    "exclamations": r"!",
}
DENSE = ("chars", "words", *FORMATS)


@dataclass(frozen=True)
class Features:
    """Of n pairs: `grams`, csr_array float32[n, columns], and `dense`, float64[n, len(DENSE)]; all are differences."""

    grams: sparse.csr_array
    dense: np.ndarray


def amounts(text: pl.Expr, prefix: str) -> list[pl.Expr]:
    """The numbers of DENSE of a text, as columns `prefix` + name: characters, words and how often each format."""
    found = {name: text.str.count_matches(pattern) for name, pattern in FORMATS.items()}
    whole = {"chars": text.str.len_chars(), "words": text.str.count_matches(r"\S+"), **found}
    return [value.fill_null(0).cast(pl.UInt32).alias(prefix + name) for name, value in whole.items()]


def features(chosen: pl.Series, rejected: pl.Series) -> Features:
    """Features of pairs of texts (String series of one length)."""
    grams = (_grams(chosen) - _grams(rejected)).tocsr()
    grams.eliminate_zeros()
    used = np.bincount(grams.indices, minlength=grams.shape[1])
    kept = np.flatnonzero(used >= MIN_PAIRS)
    grams = grams[:, kept]
    weight = np.log((1 + grams.shape[0]) / (1 + used[kept])) + 1  # inverse document frequency, of pairs
    block = kept // BUCKETS
    squares = np.bincount(grams.indices, weights=np.square(grams.data, dtype=np.float64), minlength=len(kept))
    for number in range(len(BLOCKS)):  # both blocks of the same length on average
        inside = block == number
        length = (squares * weight**2)[inside].sum() / max(1, grams.shape[0])
        weight[inside] /= np.sqrt(len(BLOCKS) * length) if length > 0 else 1.0
    scaled = sparse.csr_array(
        (grams.data * weight.astype(np.float32)[grams.indices], grams.indices, grams.indptr), shape=grams.shape
    )
    return Features(scaled, _dense(chosen, rejected))


def _grams(texts: pl.Series) -> sparse.csr_array:
    ends, columns, values = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for end, column, value in counted(texts):
        ends.append(end + ends[-1][-1])
        columns.append(column)
        values.append(value)
    shape = (len(texts), len(BLOCKS) * BUCKETS)
    return sparse.csr_array((np.concatenate(values), np.concatenate(columns), np.concatenate(ends)), shape=shape)


def _dense(chosen: pl.Series, rejected: pl.Series) -> np.ndarray:
    """Differences of log(1 + amount), each over its own root mean square and cut."""
    frame = pl.DataFrame({"c": chosen, "r": rejected})
    frame = frame.select(*amounts(pl.col("c"), "c_"), *amounts(pl.col("r"), "r_"))
    sides = [np.log1p(frame.select(f"{side}_{name}" for name in DENSE).to_numpy().astype(np.float64)) for side in "cr"]
    difference = sides[0] - sides[1]
    size = np.sqrt(np.square(difference).mean(axis=0)) if len(difference) else np.ones(len(DENSE))
    unit = np.divide(difference, size, out=np.zeros_like(difference), where=size > 0)
    return np.clip(unit, -REACH, REACH) / np.sqrt(len(DENSE))
