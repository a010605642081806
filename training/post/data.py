"""Rows for a trainer, in our order: which rows a step sees is a pure function of the datasets, weights, seed and step.

Trainers shuffle with samplers of their own, whose order changes with their versions. Here a run is one long list of
row numbers, by training/order.py, that the trainer walks from the first to the last; a resumed run walks on.

The law kept here: every row of a dataset comes once per epoch, and sources come by their weights. Rows are read from
mapped shards when they are needed; in memory stand only their numbers, 16 bytes per row of the whole run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.training.order import draws, rows, shares

if TYPE_CHECKING:
    import datasets


def plan(counts: Sequence[int], weights: Sequence[float], seed: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `total` samples: the source of each, and the row in it; int64 both. `counts` are the rows of the sources."""
    source, number = draws(shares(weights), seed, 0, total)
    row = number.copy()
    for k, count in enumerate(counts):
        row[source == k] = rows(count, seed, k, number[source == k])
    return source, row


def planned(counts: Sequence[int], weights: Sequence[float], seed: int, total: int) -> datasets.Dataset:
    """The plan as rows of `source` and `row`, for a collator that fetches what they name."""
    import datasets

    source, row = plan(counts, weights, seed, total)
    return datasets.Dataset(pa.table({"source": source, "row": row}))


def epochs(counts: Sequence[int], weights: Sequence[float], total: int, names: Sequence[str]) -> dict[str, Any]:
    """How often each source's rows come in `total` samples, by name."""
    parts = shares(weights)
    return {name: total * part / sum(parts) / count for name, part, count in zip(names, parts, counts, strict=True)}
