"""Held-out packed text: perplexity, entropy and KL of a model, row by row.

The law: which rows are read and what is said of each depends on the rows, not on their order or shards. Not covered:
byte-level perplexity, so compare models of one tokenizer only.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.evaluation.intervals import Measure, ratio
from gristmill.training.evaluation.likelihood import Reader, Sums, read
from gristmill.training.shards import Batch, Shards

BATCH_TOKENS = 4_096  # tokens read at a time


@dataclass(frozen=True)
class Read:
    """What was said of some rows: their ids, and sums over each; `seconds` it took."""

    ids: list[bytes]
    sums: Sums
    seconds: float


def chosen(data: Dataset, limit: int | None) -> tuple[list[bytes], np.ndarray]:
    """The ids and places of at most `limit` rows, those with the lowest ids (which are hashes), in the ids' order."""
    ids = [row.as_py() for batch in data.batches(4_096, ["id"]) for row in batch.column(0)]
    places = sorted(range(len(ids)), key=lambda place: ids[place])[:limit]
    return [ids[place] for place in places], np.array(places, dtype=np.int64)


def read_slice(name: str, data: Dataset, limit: int | None, model: Reader, reference: Reader | None) -> Read:
    """Ask about the rows of a slice. Raises InputError where it has nothing to predict."""
    shards = Shards(data)
    ids, places = chosen(data, limit)
    started = told = time.monotonic()
    found: list[Sums] = []
    for batch in _batches(shards, places):
        found.append(read(model, batch.tokens, batch.positions, batch.labels, reference))
        if time.monotonic() - told >= 1:
            told = time.monotonic()
            done = sum(len(item.targets) for item in found)
            print(f"{name}: {done:,} of {len(ids):,} rows", file=sys.stderr, flush=True)
    sums = Sums.joined(found)
    if not sums.targets.sum():
        raise InputError(f"slice {name}: {data.path} has no token that follows another one of its document")
    return Read(ids, sums, time.monotonic() - started)


def _batches(shards: Shards, places: np.ndarray) -> Iterator[Batch]:
    rows = max(1, BATCH_TOKENS // shards.seq_len)
    for start in range(0, len(places), rows):
        yield shards.gather(places[start : start + rows])


def measures(told: Read, *, seed: int) -> dict[str, Measure]:
    """Per token, with intervals over rows: `loss` (nats), `perplexity` (its exponential), `entropy`; beside a reference
    `kl`, and `loss_change`: ours less the reference's on the same tokens."""
    sums = told.sums
    columns: dict[str, np.ndarray] = {
        name: sums.columns[name] for name in ("loss", "entropy", "kl") if name in sums.columns
    }
    if "reference_loss" in sums.columns:
        columns["loss_change"] = sums.columns["loss"] - sums.columns["reference_loss"]
    found = {name: ratio(column, sums.targets, seed=seed) for name, column in columns.items()}
    told_of = {name: measure for name, measure in found.items() if measure is not None}
    return told_of | {"perplexity": told_of["loss"].through(_exponential)}


def _exponential(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # beyond it there is no float
