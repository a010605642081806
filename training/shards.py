"""Packed token shards, mapped, and batches of their rows; which rows come when is stream.py's.

Shards are uncompressed Arrow IPC with fixed-size lists, so a mapped file already is the array [rows, seq_len]: opening
a dataset reads no tokens and allocates nothing for them, and a batch costs one copy, from the map into an int64 tensor
(pinned where there is a GPU, so that the copy to the device needs no other).

The law kept here: a label never asks for a token of another document or of the padding, nor for one that the data says
not to learn (`targets`: what others say in a chat). Not covered: remote shards, which cannot be mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import torch

from gristmill.dataops.dataset import Dataset, InputError, Shard, is_remote

IGNORED = -100  # what torch's cross_entropy leaves out by default


@dataclass(frozen=True)
class Batch:
    """int64 tensors [rows, seq_len]: `tokens`, `labels`, `positions`; and `length` [rows], the real tokens of each row.

    `labels[r, t]` is what position t has to predict, tokens[r, t + 1]. It is -100 where there is no such token: where
    t + 1 lies in the padding or beyond the row, is the first token of another document (positions[r, t + 1] == 0), or
    is none of the dataset's `targets`.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    length: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        columns = (self.tokens, self.labels, self.positions, self.length)
        return Batch(*(column.to(device, non_blocking=True) for column in columns))

    def pieces(self, number: int) -> list[Batch]:
        """The batch cut into `number` runs of rows, as equal as can be."""
        columns = (self.tokens, self.labels, self.positions, self.length)
        return [Batch(*piece) for piece in zip(*(column.tensor_split(number) for column in columns), strict=True)]


@dataclass(frozen=True)
class _Part:
    """One record batch: views [rows, seq_len] and [rows] into the map, `targets` where the loss does not count all;
    `kept` are the rows that views leave in."""

    path: str
    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray | None
    length: np.ndarray
    kept: np.ndarray | None

    @property
    def rows(self) -> int:
        return len(self.length) if self.kept is None else len(self.kept)


class Shards:
    """The rows of a packed dataset (kind "tokens", or a view of one), mapped.

    `seq_len`, `eod`, `vocab_size` and `tokenizer` (a digest) are those it was packed with. Raises InputError where the
    dataset is not packed, is remote, has no rows, or has a shard that cannot be mapped as it is.
    """

    def __init__(self, dataset: Dataset) -> None:
        base = dataset.base
        if base.kind != "tokens":
            raise InputError(
                f"{dataset.name} at {dataset.path} is of kind {base.kind!r}; training reads packed 'tokens'"
            )
        params = base.manifest["ops"][-1]["params"]
        missing = {"seq_len", "eod", "vocab_size", "tokenizer"} - set(params)
        if missing:
            raise InputError(
                f"{dataset.path}: the op that packed it does not say {', '.join(sorted(missing))}; pack anew"
            )
        self.digest = dataset.digest
        self.name = dataset.name
        self.seq_len: int = params["seq_len"]
        self.eod: int = params["eod"]
        self.vocab_size: int = params["vocab_size"]
        self.tokenizer: str = params["tokenizer"]
        self.parts = [part for shard in dataset.shards() for part in _map(shard, self.seq_len) if part.rows]
        self.ends = np.cumsum([part.rows for part in self.parts], dtype=np.int64)
        if not self.parts:
            raise InputError(f"{dataset.name} at {dataset.path} has no rows to train on")

    @property
    def rows(self) -> int:
        """Rows in one epoch."""
        return int(self.ends[-1])

    def lengths(self) -> np.ndarray:
        """Real tokens of each row, uint32[rows]."""
        return np.concatenate([p.length if p.kept is None else p.length[p.kept] for p in self.parts])

    def gather(self, rows: np.ndarray) -> Batch:
        """The batch of these rows (int64, 0 .. self.rows - 1). Raises InputError for a token beyond the vocabulary."""
        return gather([self], np.zeros(len(rows), dtype=np.int64), rows)


def gather(sources: Sequence[Shards], source: np.ndarray, rows: np.ndarray) -> Batch:
    """The batch that holds row rows[i] of sources[source[i]] at place i; the sources have one seq_len."""
    pinned = torch.cuda.is_available()
    shape = (len(rows), sources[0].seq_len)

    def empty() -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int64, pin_memory=pinned)

    batch = Batch(empty(), empty(), empty(), torch.empty(len(rows), dtype=torch.int64))
    # Row by row through NumPy: torch shares small operations like these among threads, and waits for each to wake.
    tokens, labels, positions = batch.tokens.numpy(), batch.labels.numpy(), batch.positions.numpy()
    length = batch.length.numpy()
    for i, (which, row) in enumerate(zip(source, rows, strict=True)):
        shards = sources[which]
        at = int(np.searchsorted(shards.ends, row, side="right"))
        part = shards.parts[at]
        local = row - shards.ends[at] + part.rows
        local = local if part.kept is None else part.kept[local]
        tokens[i] = part.tokens[local]  # the one copy: from the map, widened to int64 on the way
        positions[i] = part.positions[local]
        length[i] = part.length[local]
        if tokens[i].max() >= shards.vocab_size:  # on a GPU this would end in an assertion without a place
            raise InputError(f"{part.path}: a row has token {tokens[i].max()}, vocab_size is {shards.vocab_size}")
        _label(labels[i], tokens[i], positions[i], length[i], None if part.targets is None else part.targets[local])
    return batch


def _label(
    labels: np.ndarray, tokens: np.ndarray, positions: np.ndarray, length: int, targets: np.ndarray | None
) -> None:
    """Fill in the labels of a row by the rule of `Batch.labels`."""
    last = max(int(length) - 1, 0)  # the place of the last real token, which has nothing to predict
    labels[:last] = tokens[1 : last + 1]
    labels[last:] = IGNORED
    dropped = positions[1 : last + 1] == 0
    if targets is not None:
        dropped |= targets[1 : last + 1] == 0
    labels[:last][dropped] = IGNORED


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
        targets = _matrix(shard.path, batch, "targets", seq_len) if "targets" in batch.schema.names else None
        kept = None if keep is None else np.flatnonzero(keep[start : start + batch.num_rows])
        parts.append(_Part(shard.path, tokens, positions, targets, batch.column("length").to_numpy(), kept))
        start += batch.num_rows
    return parts


def _matrix(path: str, batch: pa.RecordBatch, name: str, seq_len: int) -> np.ndarray:
    """A fixed-size list column as a view [rows, seq_len]."""
    column = batch.column(name)
    kind = column.type
    numbers = (pa.uint8(),) if name == "targets" else (pa.uint16(), pa.uint32())
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != seq_len or kind.value_type not in numbers:
        raise InputError(
            f"{path}: column {name!r} is {kind}, not fixed_size_list<{' or '.join(map(str, numbers))}>[{seq_len}]; "
            "pack anew"
        )
    return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, seq_len)
