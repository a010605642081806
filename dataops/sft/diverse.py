"""N rows that differ most: by the n-grams they cover, or by their places in an embedding space. "1,000 good ones".

`coverage` is greedy: at each step the row goes in whose n-grams that nobody chosen has yet are worth most. Gains only
fall as rows are chosen, so most need not be counted again (lazy evaluation, Minoux 1978). With `scale` 0 a greedy
choice reaches at least 63% of the best coverage of as many rows (Nemhauser et al. 1978), but long rows win by length
alone: so a gain is divided by the row's number of n-grams to the power `scale` (Lin and Bilmes 2010). `k_center` takes
the row farthest from all chosen ones, again and again (Gonzalez 1985: at most twice the least possible radius).

The law: the same rows in the same order give the same choice, on any number of shards; every row left out has its
reason and how near the choice comes to it. Not covered: meaning beyond the words (`coverage`) or beyond the embedding;
`k_center` compares all rows with each chosen one, so its time is rows times `rows` times dimensions.
"""

from __future__ import annotations

import heapq
import re

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.sft.scores import scored
from gristmill.dataops.store import Corpus
from gristmill.dataops.text.shingles import join, shingle


@op("sft.coverage", version=1, kind="corpus")
def coverage(
    corpus: Corpus,
    *,
    rows: int,
    column: str = "prompt",
    ngram: int = 2,
    scale: float = 0.5,
    score: str | None = None,
) -> list[pl.DataFrame]:
    """Keep `rows` rows that cover the n-grams of words of `column` best; each gain times the row's `score`, if named.

    Where all n-grams are covered before, what is left is covered anew. Of equal gains the earlier row wins. Ledger:
    `covered`, `value` the share of a row's n-grams that the choice has; of rows without a score `unjudged`, of those
    with one of 0 and less `worthless`. Stats: n-grams, those covered, and gains counted. Raises InputError.
    """
    if rows < 1 or ngram < 1 or not 0 <= scale <= 1:
        raise InputError(
            f"sft.coverage: rows and ngram are at least 1, scale is from 0 to 1; not {rows}, {ngram}, {scale}"
        )
    frames = _texts(corpus.dataset, column)
    grams = join([shingle(frame[column].fill_null(""), ngram) for frame in frames])
    known, place = np.unique(grams.hashes, return_inverse=True)
    sizes = np.diff(grams.offsets)
    worth = np.maximum(sizes, 1).astype(np.float64) ** -scale
    fit, values = np.ones(len(grams), dtype=bool), np.ones(len(grams))
    if score is not None:
        given = [frame["score"].fill_null(np.nan).to_numpy() for frame in scored(corpus.dataset, score)]
        values = np.concatenate([np.empty(0), *given])
        fit, worth = values > 0, worth * np.fmax(values, 0.0)  # NaN, not judged, is not above 0
    chosen, counted = _greedy(place, grams.offsets, worth, np.flatnonzero(fit), rows)
    covered = np.zeros(len(known), dtype=bool)
    for row in chosen:
        covered[place[grams.offsets[row] : grams.offsets[row + 1]]] = True
    corpus.stats |= {"ngrams": len(known), "covered": int(covered.sum()), "gains_counted": counted}
    having = np.add.reduceat(np.append(covered[place], False), grams.offsets[:-1]) if len(grams) else sizes
    share = np.where(sizes > 0, having, 0) / np.maximum(sizes, 1)
    reasons = np.where(fit, "covered", np.where(values <= 0, "worthless", "unjudged"))
    return _left_out(frames, chosen, reasons, np.where(fit, share, np.nan), None)


@op("sft.k_center", version=1, kind="corpus")
def k_center(corpus: Corpus, *, rows: int, column: str = "embedding") -> list[pl.DataFrame]:
    """Keep `rows` rows such that no other is far from all of them, by the cosine distance of `column` (0 to 2).

    The first is the row nearest to the mean; of equal distances the earlier row wins. Ledger: `near_center`, the
    distance to the nearest row that stays as `value`, its id as evidence; `no_embedding` for null, zero and not finite
    ones. Stats: the `radius`. Raises InputError for a column that holds no vectors of one length.
    """
    if rows < 1:
        raise InputError(f"sft.k_center keeps at least 1 row, not {rows}")
    frames = _vectors(corpus.dataset, column)
    points = np.concatenate(
        [np.empty((0, frames[0][1].shape[1] if frames else 1), np.float32), *(f[1] for f in frames)]
    )
    size = np.linalg.norm(points, axis=1)
    fit = np.isfinite(size) & (size > 0)
    units = np.where(fit[:, None], points / np.where(fit, size, 1)[:, None], 0).astype(np.float32)
    chosen: list[int] = []
    nearest, center = np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)
    if fit.any():
        following = int(np.argmax(np.where(fit, np.round(units @ units[fit].mean(axis=0), 6), -np.inf)))
        for _ in range(min(rows, int(fit.sum()))):
            chosen.append(following)
            # Rounded, so that the last bits of a dot product do not decide between equals.
            distance = np.round(1 - units @ units[following], 6)
            closer = distance < nearest
            nearest[closer], center[closer] = distance[closer], following
            nearest[following] = 0.0
            open_ = np.where(fit, nearest, -1.0)
            open_[chosen] = -1.0
            following = int(np.argmax(open_))
    corpus.stats |= {"radius": float(nearest[fit].max(initial=0.0))}
    ids = pl.concat([pl.Series([], dtype=pl.Binary), *(frame["id"] for frame, _ in frames)])
    evidence = ids.gather(center).bin.encode("hex").to_list() if len(ids) else []
    reasons = np.where(fit, "near_center", "no_embedding")
    told = [at if ok else None for at, ok in zip(evidence, fit, strict=True)]
    return _left_out([frame for frame, _ in frames], chosen, reasons, np.where(fit, nearest, np.nan), told)


def _greedy(
    place: np.ndarray, offsets: np.ndarray, worth: np.ndarray, fit: np.ndarray, rows: int
) -> tuple[list[int], int]:
    """Rows in the order in which they are chosen, and how many gains were counted."""
    bounds = offsets.tolist()
    free = np.ones(int(place.max(initial=-1)) + 1, dtype=bool)
    sizes = np.diff(offsets)
    heap = [(-float(sizes[row]) * float(worth[row]), row) for row in fit.tolist()]
    heapq.heapify(heap)
    chosen: list[int] = []
    counted, fresh = 0, True  # since the cover was begun anew, has anything been chosen?
    while heap and len(chosen) < rows:
        _, row = heap[0]
        mine = place[bounds[row] : bounds[row + 1]]
        gain = float(np.count_nonzero(free[mine])) * float(worth[row])
        counted += 1
        if heap[0][0] != -gain:
            heapq.heapreplace(heap, (-gain, row))
        elif gain == 0 and not fresh:
            free[:], fresh = True, True
            heap = [(-float(sizes[row]) * float(worth[row]), row) for _, row in heap]
            heapq.heapify(heap)
        else:
            heapq.heappop(heap)
            chosen.append(row)
            free[mine], fresh = False, fresh and gain == 0
    return chosen, counted


def _texts(dataset: Dataset, column: str) -> list[pl.DataFrame]:
    have = dict(dataset.base.manifest["schema"])
    if have.get(column, "").removeprefix("large_") != "string":
        there = [name for name, kind in have.items() if kind.removeprefix("large_") == "string"]
        raise InputError(f"{dataset.name} has no text column {column!r}; it has: {', '.join(there) or 'none'}")
    return [positioned(shard, ["id", column]) for shard in dataset.shards()]


def _vectors(dataset: Dataset, column: str) -> list[tuple[pl.DataFrame, np.ndarray]]:
    """By shard `row` and `id`, and float32[n, d]; nulls as zeros. Raises InputError."""
    have = dict(dataset.base.manifest["schema"])
    if not re.match(r"(?:large_|fixed_size_)?list<\w+: (?:halffloat|float|double|u?int\d+)\b", have.get(column, "")):
        raise InputError(f"{dataset.name} has no column {column!r} of vectors; it has: {', '.join(have)}")
    frames = [positioned(shard, ["id", column]) for shard in dataset.shards()]
    lists = [frame[column].cast(pl.List(pl.Float32), strict=False) for frame in frames]
    found = {int(size) for each in lists for size in each.list.len().drop_nulls().unique()}
    if len(found) > 1:
        raise InputError(f"the vectors in {column!r} of {dataset.name} differ in length: {sorted(found)[:5]}")
    width = max(found, default=1)
    made = []
    for frame, each in zip(frames, lists, strict=True):
        there = each.is_not_null().to_numpy()
        points = np.zeros((frame.height, width), dtype=np.float32)
        points[there] = each.drop_nulls().explode().fill_null(float("nan")).to_numpy().reshape(-1, width)
        made.append((frame.select("row", "id"), points))
    return made


def _left_out(
    frames: list[pl.DataFrame],
    chosen: list[int],
    reasons: np.ndarray,
    values: np.ndarray,
    evidence: list[str | None] | None,
) -> list[pl.DataFrame]:
    """A ledger frame per shard of all rows but the chosen ones; arrays are over the rows of all shards."""
    stay = np.zeros(len(reasons), dtype=bool)
    stay[chosen] = True
    told = pl.DataFrame(
        {
            "reason": pl.Series(reasons.tolist(), dtype=pl.String),
            "value": pl.Series(values, dtype=pl.Float64).fill_nan(None),
            "evidence": pl.Series(evidence if evidence is not None else [None] * len(reasons), dtype=pl.String),
            "stay": stay,
        }
    )
    out, base = [], 0
    for frame in frames:
        here = frame.select("row", "id").hstack(told.slice(base, frame.height))
        out.append(ledger(here.filter(~pl.col("stay")).drop("stay")))
        base += frame.height
    return out
