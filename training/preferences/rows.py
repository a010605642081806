"""Encoded preferences, read: pairs (chosen and rejected replies) and thumbs (one reply, liked or not).

The laws: a row that a step does not train on is counted and told, never cut; what no model could learn from is refused,
naming the row; reference log-probabilities are joined by the row's id, and only where they are the model's own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.chat import Chat, check_data

PAIRS, THUMBS = ("chosen_ids", "rejected_ids"), ("completion_ids",)
OP = "logprobs"  # what a dataset of reference log-probabilities is made by


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset that fit the model, as one table with `length`, the tokens of the longest sequence in a
    row; `too_long` were left out."""

    dataset: Dataset
    table: pa.Table
    too_long: int

    @property
    def label(self) -> str:
        """Name and digest, short."""
        return f"{self.dataset.name}:{self.dataset.digest[:12]}"


def read_rows(dataset: Dataset, chat: Chat, config: Any, replies: Sequence[str], extra: Sequence[str] = ()) -> Rows:
    """The rows of a dataset with `replies` (PAIRS or THUMBS) and `extra` columns, for a model of this configuration.

    Raises InputError where the dataset holds other rows, was encoded for another tokenizer or template, has an empty
    prompt or reply, a pair of equal replies or a token beyond the vocabulary, or where nothing is left.
    """
    if dataset.base.kind != "rows":
        raise InputError(f"{dataset.name} at {dataset.path} is of kind {dataset.base.kind!r}, not encoded rows")
    check_data(chat, dataset)
    columns = ["id", "prompt_ids", *replies, *extra]
    missing = set(columns) - set(dataset.schema().names)
    if missing:
        raise InputError(
            f"{dataset.name} at {dataset.path} has no column {', '.join(sorted(missing))}: this step reads "
            + ("thumbs (prompt, completion, label)" if tuple(replies) == THUMBS else "pairs (prompt, chosen, rejected)")
        )
    dataset.base.check_files()
    table = pa.concat_tables([shard.read(columns) for shard in dataset.shards()])
    lengths = {name: pc.list_value_length(table[name]).to_numpy() for name in ("prompt_ids", *replies)}
    for name, values in lengths.items():
        if len(values) and values.min() < 1:
            raise InputError(f"{dataset.path}: row {_row(table, int(values.argmin()))} has no tokens in {name}")
        top = pc.max(pc.list_flatten(table[name])).as_py()
        if top is not None and top >= config.vocab_size:
            raise InputError(f"{dataset.path}: {name} has token {top}, the model knows {config.vocab_size}")
    if tuple(replies) == PAIRS:
        _check_differ(dataset, table, lengths)
    longest = lengths["prompt_ids"] + np.maximum.reduce([lengths[name] for name in replies])
    window = getattr(config, "max_position_embeddings", None)
    fits = np.ones(len(longest), dtype=bool) if window is None else longest <= window
    table = table.append_column("length", pa.array(longest.astype(np.int64))).filter(pa.array(fits))
    too_long = int((~fits).sum())
    if too_long:
        print(f"{dataset.name}: {too_long:,} rows are longer than {window:,} tokens and left out", file=sys.stderr)
    if not table.num_rows:
        raise InputError(f"{dataset.name} at {dataset.path} has no rows to use ({too_long:,} were too long)")
    return Rows(dataset, table, too_long)


def lists(column: pa.ChunkedArray) -> list[np.ndarray]:
    """A list column as one array per row, without a copy of the values."""
    out: list[np.ndarray] = []
    for chunk in column.chunks:
        offsets, values = chunk.offsets.to_numpy(), chunk.values.to_numpy()
        out += [values[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    return out


def in_pairs(needs: Mapping[str, Any]) -> dict[str, Any]:
    """What a step needs by post/dry.py, where each row is two sequences that are both trained on."""
    memory = needs["memory"] | {"activations": 2 * needs["memory"]["activations"]}
    memory["total"] = sum(size for name, size in memory.items() if name != "total")
    return {**needs, "most_tokens": 2 * needs["most_tokens"], "memory": memory}


def join_reference(rows: Rows, reference: Dataset, start: Dataset, chat: Chat) -> Rows:
    """The rows with `ref_chosen_logps` and `ref_rejected_logps` of the same ids.

    Raises InputError where `reference` holds no log-probabilities, those of another model, tokenizer or template, not
    those of every row, or of rows of other lengths.
    """
    made = [op["name"] for op in reference.base.manifest["ops"]]
    if made != [OP]:
        raise InputError(
            f"{reference.name} at {reference.path} holds no reference log-probabilities: make them with "
            "python -m gristmill.training.logprobs"
        )
    stats = reference.base.manifest["stats"]
    for what, theirs, ours in (
        ("model", stats["model"]["digest"], start.digest),
        ("tokenizer", stats["tokenizer"], chat.vocabulary),
        ("template", stats["template"], chat.template),
    ):
        if theirs != ours:
            raise InputError(
                f"{reference.name} at {reference.path} is of {what} {theirs[:12]}, this run starts from {ours[:12]}: "
                "make the log-probabilities anew"
            )
    names = ["ref_chosen_logps", "ref_rejected_logps"]
    known = pa.concat_tables([shard.read(["pair", "length", *names]) for shard in reference.shards()])
    at = pc.index_in(rows.table["id"], value_set=known["pair"])
    if at.null_count:
        row = _row(rows.table, pc.index(at.is_null(), pa.scalar(True)).as_py())
        raise InputError(
            f"{reference.name} at {reference.path} lacks {at.null_count:,} rows of {rows.dataset.name} "
            f"(the first: {row}): make the log-probabilities of this dataset"
        )
    found = known.take(at)
    other = pc.not_equal(found["length"], rows.table["length"])
    if pc.any(other).as_py():
        row = _row(rows.table, pc.index(other, pa.scalar(True)).as_py())
        raise InputError(f"{reference.name}: row {row} had another length: make the log-probabilities anew")
    table = rows.table
    for name in names:
        table = table.append_column(name, found[name])
    return Rows(rows.dataset, table, rows.too_long)


def _check_differ(dataset: Dataset, table: pa.Table, lengths: Mapping[str, np.ndarray]) -> None:
    chosen, rejected = (lists(table[name]) for name in PAIRS)
    for number in np.flatnonzero(lengths[PAIRS[0]] == lengths[PAIRS[1]]):
        if np.array_equal(chosen[number], rejected[number]):
            raise InputError(
                f"{dataset.path}: row {_row(table, int(number))} has the same reply as chosen and as rejected: it "
                "prefers nothing; leave it out"
            )


def _row(table: pa.Table, number: int) -> str:
    return str(table["id"][number].as_py().hex())
