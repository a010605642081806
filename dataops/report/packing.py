"""Tokens and what packing makes of them: fill, padding, split documents, and how much of the vocabulary is in use.

Sequences are read batch by batch. Everything here is counted, nothing is sampled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.bins import tidy
from gristmill.dataops.report.chain import read_batches

_FILL_BINS = 20


def packing(dataset: Dataset) -> dict[str, Any]:
    """Of a dataset of kind "tokens": columns tokens (fixed-size lists), length, and segments where there are some.

    `tokens` are those of documents; padding is what is left of the sequences. `documents` begin in a segment whose
    start is 0; one is split where it goes on in another segment. A document lies within one shard.
    """
    shards = dataset.manifest["shards"]
    seq_len = vocabulary = None
    sequences = tokens = segments = documents = split = 0
    fill = np.zeros(_FILL_BINS, dtype=np.int64)
    full = 0
    counts = np.zeros(0, dtype=np.int64)
    for entry in shards:
        path = f"{dataset.path}/{entry['file']}"
        continued: list[pl.Series] = []
        for _, batch in read_batches(path, ["tokens", "length", *_segments(dataset)]):
            seq_len = batch.schema.field("tokens").type.list_size
            length = batch.column("length").to_numpy(zero_copy_only=False).astype(np.int64)
            sequences += len(length)
            tokens += int(length.sum())
            full += int((length == seq_len).sum())
            fill += np.bincount(np.minimum(length * _FILL_BINS // seq_len, _FILL_BINS - 1), minlength=_FILL_BINS)
            counts = _added(counts, _used(batch.column("tokens"), length, seq_len))
            if _segments(dataset):
                inside = pl.DataFrame(pa.table({"segments": batch.column("segments")})).explode("segments")
                inside = inside.drop_nulls().unnest("segments")
                segments += inside.height
                documents += inside.filter(pl.col("start") == 0).height
                continued.append(inside.filter(pl.col("start") > 0)["id"])
        split += pl.concat(continued).n_unique() if continued else 0
    for recipe in dataset.manifest["ops"]:
        vocabulary = recipe["params"].get("vocab_size", vocabulary)
        seq_len = recipe["params"].get("seq_len", seq_len)
    return {
        "dataset": dataset.name,
        "seq_len": seq_len,
        "sequences": sequences,
        "tokens": tokens,
        "padding": sequences * (seq_len or 0) - tokens,
        "full": full,
        "documents": documents,
        "segments": segments,
        "split_documents": split,
        "fill": fill.tolist(),
        "vocabulary": _vocabulary(counts, vocabulary),
    }


def _segments(dataset: Dataset) -> list[str]:
    return [name for name, _ in dataset.manifest["schema"] if name == "segments"]


def _used(tokens: pa.FixedSizeListArray, length: np.ndarray, seq_len: int) -> np.ndarray:
    """How often each token id stands in documents; padding is not counted."""
    flat = tokens.flatten().to_numpy(zero_copy_only=False).reshape(-1, seq_len)
    return np.bincount(flat[np.arange(seq_len) < length[:, None]])


def _added(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _vocabulary(counts: np.ndarray, size: int | None) -> dict[str, Any]:
    """Ids that occur, and the share of all tokens that the most frequent ones make up."""
    ranked = np.sort(counts[counts > 0])[::-1]
    total = int(ranked.sum())
    shares = {
        str(n): tidy(float(ranked[:n].sum() / total)) for n in (10, 100, 1_000, 10_000) if total and n < len(ranked)
    }
    return {"size": size, "used": len(ranked), "used_once": int((ranked == 1).sum()), "share_of_top": shares}
