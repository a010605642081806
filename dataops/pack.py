"""Documents into rows of one length: best-fit packing with segments and positions.

Documents longer than a row are cut into row-sized pieces; the rest is placed best-fit decreasing (Ding et al. 2024,
arXiv 2404.10830): longest first, each into the fullest row that still takes it. No token is dropped; what is lost is
padding, and it is counted. Windows of a fixed number of tokens bound the memory; they are cut by the order of the
documents alone, so neither shards nor workers show in the result.

A row's `segments` say which token is of which document: the link back to a page.

Documents with `targets`, chats above all, keep them: which tokens the loss counts. They are never cut, since a piece
without what came before teaches to answer nothing: those longer than a row go to the ledger as "too_long".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Task

SEGMENT = pa.struct([("id", pa.binary(16)), ("start", pa.uint32()), ("length", pa.uint32())])


_AT_ONCE = 1 << 16  # pieces that are laid out in one call


def check_seq_len(seq_len: int) -> None:
    """Raises InputError for a row length that cannot be packed: a token needs another one to predict."""
    if not 2 <= seq_len <= 1 << 24:
        raise InputError(f"seq_len {seq_len} is outside 2 to 16,777,216")


def _plan(
    inputs: Sequence[Dataset],
    _: Path,
    __: int,
    *,
    seq_len: int,
    eod: int,
    vocab_size: int,
    tokenizer: str,
    template: str | None,
    window_tokens: int,
) -> list[Task]:
    """Windows as runs of rows in shards."""
    check_seq_len(seq_len)
    shards = inputs[0].shards()
    with_targets = bool(shards) and "targets" in inputs[0].schema().names
    tasks: list[Task] = []
    runs: list[tuple[Shard, int, int]] = []
    rows = tokens = 0
    for shard in shards:
        lengths = shard.read(["n_tokens"])["n_tokens"].to_numpy().astype(np.int64)
        start = 0
        while start < len(lengths):
            room = window_tokens - tokens
            stop = start + max(int(np.searchsorted(np.cumsum(lengths[start:]), room, side="right")), not runs)
            if stop > start:
                runs.append((shard, start, stop))
                rows += stop - start
                tokens += int(lengths[start:stop].sum())
            if stop < len(lengths):
                tasks.append(Task((runs, with_targets), rows))
                runs, rows, tokens = [], 0, 0
            start = stop
    return [*tasks, Task((runs, with_targets), rows)] if runs or not tasks else tasks


@op("pack.best_fit", version=3, kind="source", plan=_plan, makes="tokens")
def best_fit(
    task: tuple[Sequence[tuple[Shard, int, int]], bool],
    *,
    seq_len: int,
    eod: int,
    vocab_size: int,
    tokenizer: str,
    template: str | None = None,
    window_tokens: int = 1 << 24,
) -> Iterator[Split]:
    """Rows of `seq_len` tokens: `tokens`, `positions` (0 begins a segment, and the padding), `segments`, `length`; and
    `targets` (1 where the loss counts a token, never a document's first) where the documents have them.

    `length` counts the tokens of documents in a row; what follows is padding, filled with `eod`. `vocab_size`,
    `tokenizer` (its digest) and `template` (the SHA-256 of the chat template) are handed on to training. Documents
    carry their closing `eod` already.
    """
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    runs, with_targets = task
    if not runs:
        none, counted = np.zeros(0, dtype), np.zeros(0, np.uint8) if with_targets else None
        yield Split(_rows([], none, counted, _Pieces.none(), seq_len, eod), ledger(), 0, _stats(0, 0, 0, 0))
        return
    names = ["id", "tokens", *(["targets"] if with_targets else [])]
    tables = [shard.read(names).slice(start, stop - start) for shard, start, stop in runs]
    table = pa.concat_tables(tables).combine_chunks()
    drops = ledger()
    if with_targets:
        table, drops = _whole(table, seq_len)
    tokens, lengths = _flat(table, "tokens")
    targets = _flat(table, "targets")[0] if with_targets else None
    pieces = _Pieces.cut(lengths, seq_len)
    ids = table["id"].to_pylist()
    packed = _rows(ids, tokens.astype(dtype, copy=False), targets, pieces, seq_len, eod)
    stats = _stats(len(ids), len(pieces.length), int((lengths > seq_len).sum()), len(tokens))
    stats["rows"] = packed.num_rows
    stats["padding"] = packed.num_rows * seq_len - len(tokens)
    if targets is not None:
        stats["targets"] = int(targets.sum())
    begun = int((pieces.start == 0).sum()) + drops.height  # each document begins in exactly one segment
    yield Split(packed, drops, begun, stats)


def _flat(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A list column as one run of values, and the length of each list, int64[n]."""
    lists = table[name].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    return values.to_numpy(zero_copy_only=False), np.diff(offsets)


def _whole(table: pa.Table, seq_len: int) -> tuple[pa.Table, pl.DataFrame]:
    """The documents that fit into a row, the first token of each no target; and the ledger of the others."""
    _, lengths = _flat(table, "tokens")
    fits = lengths <= seq_len
    gone = pl.DataFrame(table.select(["id"]).filter(pa.array(~fits))).with_columns(n_tokens=lengths[~fits])
    drops = ledger(gone, reason="too_long", value=pl.col("n_tokens"), threshold=seq_len)
    table = table.filter(pa.array(fits)).combine_chunks()
    targets, lengths = _flat(table, "targets")
    targets = targets.astype(np.uint8)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    targets[ends[:-1][lengths > 0]] = 0
    lists = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(targets))
    return table.set_column(table.schema.get_field_index("targets"), "targets", lists), drops


def _stats(documents: int, segments: int, split_documents: int, tokens: int) -> dict[str, int]:
    return {
        "documents": documents,
        "segments": segments,
        "split_documents": split_documents,
        "tokens": tokens,
        "rows": 0,
        "padding": 0,
    }


class _Pieces:
    """Documents cut to at most `seq_len` tokens: document, start in it, place in the token stream, length."""

    def __init__(self, document: np.ndarray, start: np.ndarray, source: np.ndarray, length: np.ndarray) -> None:
        self.document, self.start, self.source, self.length = document, start, source, length

    @staticmethod
    def none() -> _Pieces:
        return _Pieces(*(np.zeros(0, np.int64) for _ in range(4)))

    @staticmethod
    def cut(lengths: np.ndarray, seq_len: int) -> _Pieces:
        parts = -(-lengths // seq_len)
        document = np.repeat(np.arange(len(lengths)), parts)
        first = np.cumsum(parts) - parts
        start = (np.arange(len(document)) - first[document]) * seq_len
        source = (np.cumsum(lengths) - lengths)[document] + start
        return _Pieces(document, start, source, np.minimum(lengths[document] - start, seq_len))


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each piece, int64[n]: longest first, each into the fullest bin that takes it; ties by order.

    Bins with the same room are alike, so there is a stack of them per amount of room and a bit set of the amounts
    that occur: finding the best one is a shift and a mask.
    """
    order = np.argsort(-lengths, kind="stable")
    bins = np.empty(len(lengths), dtype=np.int64)
    stacks: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set where a bin with room r stands open
    count = 0
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            stack = stacks[room]
            chosen = stack.pop()
            if not stack:
                rooms ^= 1 << room
        else:
            room, chosen = capacity, count
            count += 1
        bins[piece] = chosen
        if room > length:
            left = room - length
            stacks[left].append(chosen)
            rooms |= 1 << left
    return bins


def _rows(
    ids: list[bytes], tokens: np.ndarray, targets: np.ndarray | None, pieces: _Pieces, seq_len: int, eod: int
) -> pa.Table:
    """Lay the pieces out: rows in the order of their first document, pieces in the order of the corpus."""
    bins = best_fit_decreasing(pieces.length, seq_len)
    count = int(bins.max()) + 1 if len(bins) else 0
    first = np.full(count, len(pieces.length), dtype=np.int64)
    np.minimum.at(first, bins, np.arange(len(bins)))
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(count)
    row = rank[bins]
    order = np.lexsort((np.arange(len(row)), row))
    row, length, source = row[order], pieces.length[order], pieces.source[order]
    per_row = np.bincount(row, minlength=count)
    row_starts = (np.cumsum(per_row) - per_row).astype(np.int64)
    filled = np.bincount(row, weights=length, minlength=count).astype(np.int64)
    gaps = np.zeros(len(row), dtype=np.int64)  # of padding behind each piece: behind a row's last one
    gaps[row_starts + per_row - 1] = seq_len - filled
    cells = count * seq_len
    laid = _strung(tokens, source, length, gaps, np.full(seq_len, eod, dtype=tokens.dtype), cells)
    steps = np.arange(seq_len, dtype=np.uint16 if seq_len <= 1 << 16 else np.uint32)
    positions = _strung(steps, np.zeros_like(source), length, gaps, steps, cells)
    document = pieces.document[order]
    segments = pa.StructArray.from_arrays(
        [
            pa.array([ids[i] for i in document.tolist()], pa.binary(16)),
            pa.array(pieces.start[order], pa.uint32()),
            pa.array(length, pa.uint32()),
        ],
        fields=list(SEGMENT),
    )
    bounds = np.concatenate([row_starts, [len(row)]]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(bounds), segments)
    starts = pieces.start[order].tolist()
    names = [
        row_id(
            "pack.best_fit",
            *(ids[document[k]] + starts[k].to_bytes(8, "little") for k in range(bounds[r], bounds[r + 1])),
        )
        for r in range(count)
    ]
    columns = {
        "id": pa.array(names, pa.binary(16)),
        "tokens": pa.FixedSizeListArray.from_arrays(pa.array(laid), seq_len),
        "positions": pa.FixedSizeListArray.from_arrays(pa.array(positions), seq_len),
        "segments": lists,
        "length": pa.array(filled, pa.uint32()),
    }
    if targets is not None:
        blank = np.zeros(seq_len, dtype=np.uint8)
        counted = _strung(targets.astype(np.uint8), source, length, gaps, blank, cells)
        columns["targets"] = pa.FixedSizeListArray.from_arrays(pa.array(counted), seq_len)
    return pa.table(columns)


def _strung(
    values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, gaps: np.ndarray, blank: np.ndarray, size: int
) -> np.ndarray:
    """Slices of `values`, each followed by so much of `blank`, as one run of `size`, in the type of `blank`. By slices:
    an index for each token would take longer than the tokens, and more memory."""
    run, at = np.empty(size, dtype=blank.dtype), 0
    for begin in range(0, len(starts), _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        places = zip(starts[some].tolist(), (starts[some] + lengths[some]).tolist(), gaps[some].tolist(), strict=True)
        parts = [part for start, stop, gap in places for part in (values[start:stop], blank[:gap])]
        until = at + int(lengths[some].sum() + gaps[some].sum())
        np.concatenate(parts, out=run[at:until])
        at = until
    return run
