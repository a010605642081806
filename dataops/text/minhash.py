"""Near-duplicates: MinHash signatures, band keys, true Jaccard, and who goes for whom. Pure functions over arrays.

Two documents are candidates when all `rows` minima of one of their `bands` agree, which happens with probability
1 - (1 - J**rows)**bands at Jaccard similarity J (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4).
Candidates are compared for their true Jaccard similarity, and only that number removes a document.

The laws: a removed row names a kept row that it is at least `threshold` alike; a kept row is alike to no kept row
before it that it shares a band with; the outcome follows from content and rank, not from the order of the rows. There
are no chains: A ~ B ~ C removes C only if C is alike to a row that stays (connected components delete such rows).

Not covered: pairs that share no band are never compared, however alike (the miss rate is the formula above), and a
bucket of k rows that are not alike costs k * (k - 1) / 2 comparisons, because each is a question of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from gristmill.dataops.identity import mix64
from gristmill.dataops.text.shingles import Shingles

#: The key of a row that belongs in no bucket of a band.
NO_KEY = np.uint64(0)

_EMPTY = np.uint32(0xFFFFFFFF)  # the minimum of nothing
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment
_MASK = (1 << 64) - 1
_BLOCK = 8192  # shingles hashed at a time: NumPy's loops are at full speed from about this length on
_GROUP = 8  # permutations at a time: 8 x 8192 uint32 are 256 KiB, which stay in the L2 cache between three passes
_PAIRS = 1 << 16  # pairs verified at a time
_NEVER = np.iinfo(np.int64).max


def signatures(shingles: Shingles, bands: int = 14, rows: int = 8, seed: int = 1) -> np.ndarray:
    """MinHash signatures, uint32[n, bands * rows]; all 2**32 - 1 where a document has no shingles.

    Shingles are mixed down to 32 bits, then permuted by a * x + b modulo 2**32 with a odd: a bijection, so no two
    values fall together after the mixing (schemes that fold a larger prime field to 32 bits inflate the estimate on
    large sets, datasketch#212). The mixing itself makes about 0.1% of a set of 10 million shingles coincide.
    Beside the result, memory does not grow with the length of a document. One seed gives one result everywhere: the
    coefficients come from splitmix64, not from a library's generator. Defaults: FineWeb's 14 bands of 8 rows.
    """
    if bands < 1 or rows < 1:
        raise ValueError(f"bands and rows count from 1, not bands={bands}, rows={rows}")
    perms = bands * rows
    multiplier, addend, salt = _coefficients(perms, seed)
    out = np.full((len(shingles), perms), _EMPTY)
    filled = np.flatnonzero(np.diff(shingles.offsets))
    starts = shingles.offsets[filled]
    products = np.empty((_GROUP, _BLOCK), dtype=np.uint32)
    for begin in range(0, len(shingles.hashes), _BLOCK):
        block = shingles.hashes[begin : begin + _BLOCK]
        mixed = (mix64(block ^ salt) >> np.uint64(32)).astype(np.uint32)
        # The first document of the block may have begun in an earlier one: its minima are merged below.
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        last = int(np.searchsorted(starts, begin + len(block), side="left"))
        cuts = np.maximum(starts[first:last] - begin, 0)
        minima = np.empty((perms, last - first), dtype=np.uint32)
        for k in range(0, perms, _GROUP):
            some = slice(k, min(k + _GROUP, perms))
            work = products[: some.stop - k, : len(block)]
            np.multiply(multiplier[some], mixed, out=work)
            np.add(work, addend[some], out=work)
            np.minimum.reduceat(work, cuts, axis=1, out=minima[some])
        documents = filled[first:last]
        out[documents] = np.minimum(out[documents], minima.T)
    return out


def band_keys(signature: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """One key per document and band, uint64[n, bands], from uint32[n, bands * rows]; NO_KEY without shingles.

    Each band has a salt of its own. Two bands that differ share a key by accident with probability 2**-64, which
    costs one comparison and removes nothing.
    """
    if signature.shape[1] != bands * rows:
        raise ValueError(f"signatures of {signature.shape[1]} minima do not make {bands} bands of {rows} rows")
    minima = signature.reshape(len(signature), bands, rows)
    keys = np.empty((len(signature), bands), dtype=np.uint64)
    keys[:] = mix64(np.arange(1, bands + 1, dtype=np.uint64) * np.uint64(_GOLDEN))
    for row in range(rows):
        keys = mix64(keys ^ minima[:, :, row])
    keys[(signature == _EMPTY).all(axis=1)] = NO_KEY
    return keys


def jaccard_pairs(left: Shingles, pairs: np.ndarray, right: Shingles | None = None) -> np.ndarray:
    """True Jaccard similarity of documents (i, j), int[k, 2], as float64[k]; j is looked up in `right` if given.

    Exact on the 64-bit shingles: one division of two counts. Two documents without shingles are 0 alike.
    """
    right = left if right is None else right
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    i, j = pairs[:, 0], pairs[:, 1]
    bounds = np.stack([left.offsets[i], left.offsets[i + 1], right.offsets[j], right.offsets[j + 1]], axis=1)
    n_left, n_right = bounds[:, 1] - bounds[:, 0], bounds[:, 3] - bounds[:, 2]
    buffer = np.empty(int((n_left + n_right).max(initial=0)), dtype=np.uint64)
    shared = np.empty(len(pairs), dtype=np.int64)
    for k, (a, b, c, d) in enumerate(bounds.tolist()):
        middle, end = b - a, b - a + d - c
        buffer[:middle] = left.hashes[a:b]
        buffer[middle:end] = right.hashes[c:d]
        both = buffer[:end]
        both.sort(kind="stable")  # two ascending runs, which a merge sort joins in one pass
        shared[k] = np.count_nonzero(both[1:] == both[:-1])
    return shared / np.maximum(n_left + n_right - shared, 1)


def resolve(
    keys: np.ndarray, rank: np.ndarray, jaccard: Callable[[np.ndarray], np.ndarray], threshold: float
) -> pl.DataFrame:
    """Which rows go, and for which kept row: row UInt32, kept UInt32, jaccard Float64, by row.

    In order of rank a row is removed if and only if a row kept before it shares a band with it and the two are at
    least `threshold` alike; `kept` is the most alike of all kept rows that share a band with it, the better ranked
    one where two are equally alike.

    keys: uint64[n, bands] of `band_keys`. rank: int64[n], a permutation of 0 .. n - 1, best first. jaccard: similarity
    of pairs (kept row, other row), int64[k, 2] to float64[k]; no pair is asked for twice, and k is at most 2**16.

    Works in rounds: a row that is the best of all its buckets is kept and compared with the rest of them; whoever is
    alike goes. So a bucket of identical rows costs one comparison each, and memory stays linear in n * bands.
    """
    n = len(keys)
    rank = np.asarray(rank, dtype=np.int64)
    if len(rank) != n or not np.array_equal(np.sort(rank), np.arange(n)):
        raise ValueError(f"rank must hold each of 0 .. {n - 1} once, for {n} rows of keys")
    row_at = np.argsort(rank)

    def alike(kept: np.ndarray, other: np.ndarray) -> np.ndarray:
        scores = [
            jaccard(np.stack([row_at[kept[k : k + _PAIRS]], row_at[other[k : k + _PAIRS]]], axis=1))
            for k in range(0, len(kept), _PAIRS)
        ]
        return np.concatenate(scores) if scores else np.empty(0)

    buckets = _buckets(keys, rank)
    found = _Found(np.full(n, -1.0), np.full(n, -1), np.full(n, _NEVER), np.full(n, _NEVER))
    _remove(buckets, alike, threshold, found)
    _compare_with_later(buckets, alike, threshold, found)
    gone = np.flatnonzero(found.removed_in != _NEVER)
    columns = {
        "row": pl.Series(row_at[gone], dtype=pl.UInt32),
        "kept": pl.Series(row_at[found.twin[gone]], dtype=pl.UInt32),
        "jaccard": pl.Series(found.score[gone], dtype=pl.Float64),
    }
    return pl.DataFrame(columns).sort("row")


@dataclass(frozen=True)
class _Buckets:
    """Rows (as ranks) that share a band key, two or more to a bucket, and the buckets of each row."""

    bounds: np.ndarray  # int64[buckets + 1] into members
    members: np.ndarray  # ascending within a bucket
    row_bounds: np.ndarray  # int64[n + 1] into of_row
    of_row: np.ndarray  # the buckets of a row


@dataclass(frozen=True)
class _Found:
    """What is known of each row (by rank): its best kept twin so far, and the rounds that kept or removed it."""

    score: np.ndarray
    twin: np.ndarray
    kept_in: np.ndarray
    removed_in: np.ndarray


def _note(found: _Found, kept: np.ndarray, other: np.ndarray, score: np.ndarray) -> None:
    """Take in matches: the highest score wins, then the better rank."""
    order = np.lexsort((kept, -score, other))
    first = order[np.unique(other[order], return_index=True)[1]]
    kept, other, score = kept[first], other[first], score[first]
    better = (score > found.score[other]) | ((score == found.score[other]) & (kept < found.twin[other]))
    found.score[other[better]], found.twin[other[better]] = score[better], kept[better]


def _buckets(keys: np.ndarray, rank: np.ndarray) -> _Buckets:
    """Group the rows of each band by key; most rows of a corpus are alone in all of theirs and drop out here."""
    members, sizes = [], []
    for band in range(keys.shape[1]):
        key = np.ascontiguousarray(keys[:, band])
        shared = pl.Series(key).is_duplicated().to_numpy() & (key != NO_KEY)
        key, ranks = key[shared], rank[shared]
        order = np.lexsort((ranks, key))
        members.append(ranks[order])
        sizes.append(np.unique(key, return_counts=True)[1])
    member, size = np.concatenate(members), np.concatenate(sizes)
    bucket = np.repeat(np.arange(len(size)), size)
    row_sizes = np.bincount(member, minlength=len(rank))
    return _Buckets(_cumulative(size), member, _cumulative(row_sizes), bucket[np.argsort(member, kind="stable")])


def _remove(buckets: _Buckets, alike: Callable[..., np.ndarray], threshold: float, found: _Found) -> None:
    """Decide every row. A bucket's head is its best undecided row; a row that heads all its buckets is kept."""
    n = len(found.twin)
    undecided = np.ones(n, dtype=bool)
    head, stop = buckets.bounds[:-1].copy(), buckets.bounds[1:]
    needed = np.diff(buckets.row_bounds)
    heads = np.bincount(buckets.members[head], minlength=n)
    front = np.flatnonzero((heads == needed) & (needed > 0))
    turn = 0
    while len(front):
        undecided[front] = False
        found.kept_in[front] = turn
        at, who = _ranges(buckets.row_bounds[front], buckets.row_bounds[front + 1])
        led = buckets.of_row[at]
        at, owner = _ranges(head[led] + 1, stop[led])
        other = buckets.members[at]
        open_ = undecided[other]
        kept, other = np.divmod(_distinct(front[who[owner[open_]]] * n + other[open_]), n)
        score = alike(kept, other)
        match = score >= threshold
        _note(found, kept[match], other[match], score[match])
        gone = _distinct(other[match])
        undecided[gone] = False
        found.removed_in[gone] = turn

        at, _ = _ranges(buckets.row_bounds[gone], buckets.row_bounds[gone + 1])
        touched = _distinct(np.concatenate([led, buckets.of_row[at]]))
        touched = touched[~undecided[buckets.members[head[touched]]]]
        at, owner = _ranges(head[touched], stop[touched])
        open_ = undecided[buckets.members[at]]
        alive, first = np.unique(owner[open_], return_index=True)
        head[touched] = stop[touched]
        head[touched[alive]] = at[open_][first]
        fresh, times = np.unique(buckets.members[head[touched[alive]]], return_counts=True)
        heads[fresh] += times
        front = fresh[heads[fresh] == needed[fresh]]
        turn += 1


def _compare_with_later(buckets: _Buckets, alike: Callable[..., np.ndarray], threshold: float, found: _Found) -> None:
    """Compare removed rows with the rows of their buckets that were kept in later rounds, so that the best is named.

    Rows kept in the round of the removal or before it have been compared already. Whole removed rows at a time, so
    that a pair which shares several bands is met in one run and compared once.
    """
    n = len(found.twin)
    is_kept = found.removed_in[buckets.members] == _NEVER
    kept_members = buckets.members[is_kept]
    bounds = np.concatenate([[0], np.cumsum(is_kept)])[buckets.bounds]
    gone = np.flatnonzero(found.removed_in != _NEVER)
    row_pairs = np.concatenate([[0], np.cumsum(np.diff(bounds)[buckets.of_row])])
    pairs = _cumulative(row_pairs[buckets.row_bounds[gone + 1]] - row_pairs[buckets.row_bounds[gone]])
    begin = 0
    while begin < len(gone):
        end = max(int(np.searchsorted(pairs, pairs[begin] + _PAIRS, side="right")) - 1, begin + 1)
        some = gone[begin:end]
        at, who = _ranges(buckets.row_bounds[some], buckets.row_bounds[some + 1])
        mine = buckets.of_row[at]
        at, owner = _ranges(bounds[mine], bounds[mine + 1])
        kept, other = kept_members[at], some[who[owner]]
        later = found.kept_in[kept] > found.removed_in[other]
        other, kept = np.divmod(_distinct(other[later] * n + kept[later]), n)
        score = alike(kept, other)
        match = score >= threshold
        _note(found, kept[match], other[match], score[match])
        begin = end


def _coefficients(perms: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.uint64]:
    """Odd multipliers and addends, uint32[perms, 1], and the salt of the mixing, from splitmix64 of the seed."""
    start = mix64(np.array([seed & _MASK], dtype=np.uint64))
    stream = mix64(start + np.arange(1, perms + 2, dtype=np.uint64) * np.uint64(_GOLDEN))
    multiplier = (stream[1:] & np.uint64(_EMPTY)).astype(np.uint32) | np.uint32(1)
    addend = (stream[1:] >> np.uint64(32)).astype(np.uint32)
    return multiplier[:, None], addend[:, None], stream[0]


def _cumulative(counts: np.ndarray) -> np.ndarray:
    """int64[n + 1] bounds from n counts."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _ranges(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All positions of the ranges one after the other, and the number of the range that each belongs to."""
    sizes = stops - starts
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return np.arange(len(owner)) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes), owner


def _distinct(values: np.ndarray) -> np.ndarray:
    """Ascending, each once. np.unique hashes before it sorts and takes 100 times as long on 2 million integers."""
    values = np.sort(values)
    first = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]
