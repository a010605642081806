"""Which rows come when: pure functions of seed, number and weights, without state.

A stream is endless. Its samples are numbered from 0; sample n is row `rows(...)[n]` of source `draws(...)[n]`. Each
source is read as one permutation of its rows after another, so within a source every row comes once per epoch. Sources
take turns in blocks of BLOCK samples: each block holds every source by its weight, to a whole sample (what rounding
leaves over goes to the next block), in an order of its own.

The laws: any range of samples can be computed alone and is what the whole stream has there; after n samples a source
has had n times its share, to within two samples per block it is in. Philox is used by its raw integers, which NumPy
promises for good, unlike the stream of `permutation`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from gristmill.dataops.dataset import InputError

#: Samples per block, and what weights are rounded to (parts of their sum).
BLOCK, PARTS = 4096, 1 << 20
_MIXING = 1 << 62  # keeps the keys of blocks apart from those of epochs


def shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as whole PARTS that add up. Raises InputError for a weight that is none, or too small for a block."""
    total = float(sum(weights))
    if not weights or not 0 < total < float("inf") or not all(weight >= 0 for weight in weights):
        raise InputError(f"weights are {list(weights)}: one per source is needed, above 0")
    ends = [round(PARTS * float(sum(weights[: k + 1])) / total) for k in range(len(weights))]
    parts = tuple(int(end - start) for start, end in zip([0, *ends], ends, strict=False))
    if min(parts) * BLOCK < 2 * PARTS:
        raise InputError(f"weights are {list(weights)}: the least one must be at least {2 / BLOCK:.2%} of their sum")
    return parts


def draws(parts: Sequence[int], seed: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """For samples start .. stop - 1: the source of each, and its number within that source; int64 both.

    `parts` are `shares`.
    """
    source, number = np.empty(stop - start, dtype=np.int64), np.empty(stop - start, dtype=np.int64)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        whole_source, whole_number = _block(tuple(parts), seed, block)
        first = block * BLOCK
        inside = slice(max(start, first) - first, min(stop, first + BLOCK) - first)
        there = slice(max(start, first) - start, min(stop, first + BLOCK) - start)
        source[there], number[there] = whole_source[inside], whole_number[inside]
    return source, number


@functools.lru_cache(maxsize=4)
def _block(parts: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = _given(parts, block), _given(parts, block + 1)
    source = np.repeat(np.arange(len(parts)), after - before)
    if len(parts) > 1:
        raw = np.random.Philox(key=np.array([seed, _MIXING | block], dtype=np.uint64)).random_raw(BLOCK)
        source = source[np.argsort(raw, kind="stable")]
    number = np.empty(BLOCK, dtype=np.int64)
    for k in range(len(parts)):
        here = source == k
        number[here] = before[k] + np.arange(here.sum())
    return source, number


def _given(parts: Sequence[int], block: int) -> np.ndarray:
    """How many samples each source has given before a block: whole numbers that add up to block * BLOCK."""
    ends = [block * BLOCK * int(end) // PARTS for end in np.cumsum(parts)]
    return np.diff([0, *ends])


def rows(n: int, seed: int, source: int, numbers: np.ndarray) -> np.ndarray:
    """Which of the source's n rows its samples of these numbers are; int64, as long as `numbers`."""
    epochs, places = np.divmod(numbers, n)
    out = np.empty(len(numbers), dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = epoch_order(n, seed, source, int(epoch))[places[here]]
    return out


@functools.lru_cache(maxsize=8)
def epoch_order(n: int, seed: int, source: int, epoch: int) -> np.ndarray:
    """The permutation of n rows in an epoch of a source, int64[n]: rows sorted by a counter-based generator's raw
    integers, whose key is the seed and (source, epoch)."""
    raw = np.random.Philox(key=np.array([seed, source << 40 | epoch], dtype=np.uint64)).random_raw(n)
    order = np.argsort(raw, kind="stable")
    order.setflags(write=False)
    return order
