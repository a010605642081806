"""Packed token shards as an endless stream of batches, read straight from the page cache.

Shards are uncompressed Arrow IPC with fixed-size lists, so a mapped file already is the array [rows, seq_len]: opening
a dataset reads no tokens and allocates nothing for them, and a batch costs one copy, from the map into an int64 tensor.

The law kept here: which rows a batch holds is a pure function of (rows in the dataset, seed, step, rows per batch).
The stream is one permutation of all rows after another, cut into batches of equal size, so every row comes exactly
once per epoch and a batch may hold the end of one epoch and the start of the next. A `Cursor` says where to go on.
Not covered: weights per source (mix before packing), and remote shards (they cannot be mapped).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import torch

from gristmill.dataops.dataset import Dataset, InputError, Shard, is_remote

IGNORED = -100  # what torch's cross_entropy leaves out by default


@dataclass(frozen=True)
class Cursor:
    """Where the stream goes on: `step` batches have been given; the next one begins in epoch `epoch` (both from 0)."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Batch:
    """int64 tensors [rows, seq_len]: `tokens`, `labels`, `positions`; and `length` [rows], the real tokens of each row.

    `labels[r, t]` is what position t has to predict, tokens[r, t + 1]. It is -100 where there is no such token: where
    t + 1 lies in the padding or beyond the row, or is the first token of another document (positions[r, t + 1] == 0).
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    length: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        columns = (self.tokens, self.labels, self.positions, self.length)
        return Batch(*(column.to(device, non_blocking=True) for column in columns))


@dataclass(frozen=True)
class _Part:
    """One record batch: views [rows, seq_len] and [rows] into the map; `kept` are the rows that views leave in."""

    path: str
    tokens: np.ndarray
    positions: np.ndarray
    length: np.ndarray
    kept: np.ndarray | None

    @property
    def rows(self) -> int:
        return len(self.length) if self.kept is None else len(self.kept)


class Shards:
    """The rows of a packed dataset (kind "tokens", or a view of one), mapped.

    `seq_len`, `eod` and `vocab_size` are those it was packed with. Raises InputError where the dataset is not packed,
    is remote, has no rows, or has a shard that cannot be mapped as it is.
    """

    def __init__(self, dataset: Dataset) -> None:
        base = dataset.base
        if base.kind != "tokens":
            raise InputError(
                f"{dataset.name} at {dataset.path} is of kind {base.kind!r}; training reads packed 'tokens'"
            )
        params = base.manifest["ops"][-1]["params"]
        missing = {"seq_len", "eod", "vocab_size"} - set(params)
        if missing:
            raise InputError(
                f"{dataset.path}: the op that packed it does not say {', '.join(sorted(missing))}; pack anew"
            )
        self.seq_len: int = params["seq_len"]
        self.eod: int = params["eod"]
        self.vocab_size: int = params["vocab_size"]
        self.parts = [part for shard in dataset.shards() for part in _map(shard, self.seq_len) if part.rows]
        self._ends = np.cumsum([part.rows for part in self.parts], dtype=np.int64)
        if not self.parts:
            raise InputError(f"{dataset.name} at {dataset.path} has no rows to train on")

    @property
    def rows(self) -> int:
        """Rows in one epoch."""
        return int(self._ends[-1])

    def read(self, rows: int, seed: int, start: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """Batches of `rows` rows without end, each with the cursor that gives the batch after it.

        Raises InputError for a cursor of another dataset or batch size, where its epoch shows that.
        """
        step = 0 if start is None else start.step
        if start is not None and start != self.cursor(start.step, rows):
            raise InputError(
                f"cannot go on at epoch {start.epoch}, step {start.step}: with {rows} of {self.rows} rows a batch this "
                f"step is in epoch {self.cursor(start.step, rows).epoch}; give the dataset and batch size it came from"
            )
        while True:
            batch = self.gather(batch_rows(self.rows, seed, step, rows))
            step += 1
            yield batch, self.cursor(step, rows)

    def cursor(self, step: int, rows: int) -> Cursor:
        """The cursor after `step` batches of `rows` rows."""
        return Cursor(step * rows // self.rows, step)

    def gather(self, rows: np.ndarray) -> Batch:
        """The batch of these rows (int64, 0 .. self.rows - 1). Raises InputError for a token beyond the vocabulary."""
        tokens = torch.empty((len(rows), self.seq_len), dtype=torch.int64)
        positions, length = torch.empty_like(tokens), torch.empty(len(rows), dtype=torch.int64)
        tokens_out, positions_out, length_out = tokens.numpy(), positions.numpy(), length.numpy()
        for i, (row, at) in enumerate(zip(rows, np.searchsorted(self._ends, rows, side="right"), strict=True)):
            part = self.parts[at]
            local = row - self._ends[at] + part.rows
            local = local if part.kept is None else part.kept[local]
            tokens_out[i] = part.tokens[local]  # the one copy: from the map, widened to int64 on the way
            positions_out[i] = part.positions[local]
            length_out[i] = part.length[local]
            if tokens_out[i].max() >= self.vocab_size:  # on a GPU this would end in an assertion without a place
                raise InputError(f"{part.path}: a row has token {tokens_out[i].max()}, vocab_size is {self.vocab_size}")
        return Batch(tokens, _labels(tokens, positions, length), positions, length)


def batch_rows(n: int, seed: int, step: int, rows: int) -> np.ndarray:
    """Which of `n` rows batch number `step` (from 0) holds: int64[rows], from the concatenated epochs."""
    epochs, places = np.divmod(np.arange(step * rows, (step + 1) * rows, dtype=np.int64), n)
    out = np.empty(rows, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = epoch_order(n, seed, int(epoch))[places[here]]
    return out


@functools.lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of n rows in an epoch, int64[n]; seed and epoch are the key of a counter-based generator.

    Rows are sorted by Philox's raw integers: NumPy promises that stream for good, but not that of `permutation`.
    """
    raw = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    order = np.argsort(raw, kind="stable")
    order.setflags(write=False)
    return order


def _labels(tokens: torch.Tensor, positions: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """The rule of `Batch.labels`."""
    labels = torch.full_like(tokens, IGNORED)
    real = torch.arange(1, tokens.shape[1]) < length[:, None]
    labels[:, :-1] = tokens[:, 1:].masked_fill(~real | (positions[:, 1:] == 0), IGNORED)
    return labels


def _map(shard: Shard, seq_len: int) -> list[_Part]:
    """A shard's record batches as views into its memory map."""
    if is_remote(shard.path):
        raise InputError(f"{shard.path}: remote shards cannot be mapped; copy the dataset to a local folder first")
    source = pa.memory_map(shard.path)
    whole = source.read_buffer()  # the map itself, not a copy of it
    source.seek(0)
    reader = ipc.open_file(source)
    mask = shard.mask()
    keep = None if mask is None else mask.to_numpy(zero_copy_only=False)
    parts, start = [], 0
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        tokens, positions = (_matrix(shard.path, batch, name, seq_len) for name in ("tokens", "positions"))
        for array in (tokens, positions):
            address = array.__array_interface__["data"][0]
            if array.size and not whole.address <= address < whole.address + whole.size:
                raise InputError(
                    f"{shard.path} is compressed; token shards are mapped, so write them without compression"
                )
        kept = None if keep is None else np.flatnonzero(keep[start : start + batch.num_rows])
        parts.append(_Part(shard.path, tokens, positions, batch.column("length").to_numpy(), kept))
        start += batch.num_rows
    return parts


def _matrix(path: str, batch: pa.RecordBatch, name: str, seq_len: int) -> np.ndarray:
    """A fixed-size list column as a view [rows, seq_len]."""
    column = batch.column(name)
    kind = column.type
    numbers = (pa.uint16(), pa.uint32())
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != seq_len or kind.value_type not in numbers:
        raise InputError(
            f"{path}: column {name!r} is {kind}, not fixed_size_list<uint16 or uint32>[{seq_len}]; pack anew"
        )
    return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, seq_len)
