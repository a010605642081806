"""Held-out slices, carved by content: two views of one dataset that share no row and leave none out.

A row is held out if the hash of its group, with a seed, falls into the first `fraction` of all hashes. The group is
the page, or its host: near-copies stand mostly on one host, and a site whose pages are on both sides leaks. Of pairs,
thumbs and tasks it is the prompt, by who says what in it: all its rows are on one side. Shards and order do not matter,
and a page or a prompt that is held out today is held out of the next version too. Carve after deduplication and before
anything is trained, a tokenizer included; `gristmill.dataops.mix.mixture` then refuses what was held out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.identity import mix64, row_hashes
from gristmill.dataops.op import ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus, Store

By = Literal["host", "page", "prompt"]
_TURN = ("role", "content")


def holdout(
    store: Store, dataset: Dataset, *, fraction: float = 0.01, by: By = "host", seed: int = 1,
    names: tuple[str, str] = ("train", "heldout"),
) -> tuple[Dataset, Dataset]:  # fmt: skip
    """(what is left for training, what is held out), as views. Raises InputError for a fraction outside 0 to 1."""
    if not 0 < fraction < 1:
        raise InputError(f"fraction {fraction} is outside 0 to 1")
    if by == "host" and "uri" not in dataset.schema().names:
        raise InputError(f"{dataset.name} has no uri to tell hosts by: hold out by page")
    if by == "prompt":
        _check_prompts(dataset)
    sides = [store.build(names[i], carve(side=i, fraction=fraction, by=by, seed=seed), [dataset]) for i in (0, 1)]
    return sides[0], sides[1]


def _check_prompts(dataset: Dataset) -> None:
    """Raises InputError for rows without a prompt of messages."""
    schema = dataset.schema()
    kind = schema.field("prompt").type if "prompt" in schema.names else None
    turn = kind.value_type if kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind)) else None
    if turn is None or not pa.types.is_struct(turn) or not all(turn.get_field_index(name) >= 0 for name in _TURN):
        raise InputError(f"{dataset.name} has no prompt of messages to tell its rows by: hold out by page")


@op("mix.holdout", version=1, kind="corpus")
def carve(corpus: Corpus, *, side: int, fraction: float, by: By = "host", seed: int = 1) -> list[pl.DataFrame]:
    """One side of the cut: 0 keeps what is not held out (others: `held_out`), 1 the rest (others: `not_held_out`)."""
    return corpus.map(_carved, [(shard, side, fraction, by, seed) for shard in corpus.dataset.shards()])


def _carved(task: tuple[Shard, int, float, By, int]) -> pl.DataFrame:
    shard, side, fraction, by, seed = task
    column = {"host": ["uri"], "prompt": ["prompt"], "page": []}[by]
    frame = positioned(shard, ["id", *column])
    group = pl.col("id").bin.encode("hex")
    if by == "host":
        # A row without a URL is a group of its own.
        host = pl.col("uri").str.extract(r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)").str.to_lowercase()
        group = pl.coalesce(host, group)
    elif by == "prompt":
        turn = [pl.element().struct.field(name).cast(pl.String).fill_null("").str.strip_chars() for name in _TURN]
        group = pl.col("prompt").list.eval(pl.concat_str(turn, separator="\x1f")).list.join("\x1e")
    keys = frame.select(g=group)["g"].cast(pl.String)
    hashes = mix64(row_hashes(pa.table({"group": keys.to_arrow()}))[:, 0] + np.uint64(seed))
    held = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53 < fraction
    gone = frame.filter(pl.Series(held if side == 0 else ~held, dtype=pl.Boolean))
    return ledger(gone.select("id", "row"), reason="held_out" if side == 0 else "not_held_out")
