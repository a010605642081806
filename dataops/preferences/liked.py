"""Thumbs into rows for training without pairs (KTO): a reply, and whether people liked it.

The thumbs that one reply got are one row, with what most of them say. The laws: as many up as down is no label; each
judgement is a source of a row or in the ledger: "unjudged", "other_kind" (no thumb), "tie".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from gristmill.dataops.chat.messages import MESSAGES
from gristmill.dataops.dataset import Shard
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.preferences.pairs import plan, rows_of

#: Thumbs as chat/shapes.py has them, with where they come from: `votes` thumbs, `agree` the share that says so.
THUMB: dict[str, pl.DataType] = {
    "id": pl.Binary(),
    "sources": pl.List(pl.Binary()),
    "prompt": MESSAGES,
    "response": MESSAGES,
    "label": pl.Boolean(),
    "tools": pl.String(),
    "item": pl.Binary(),
    "votes": pl.UInt32(),
    "agree": pl.Float64(),
}


@op("thumbs.make", version=1, kind="source", plan=plan)
def make_thumbs(task: tuple[Sequence[Shard], int, int]) -> Iterator[Split]:
    """Rows of `THUMB` out of judgements."""
    if not task[0]:
        yield Split(pl.DataFrame(schema=THUMB), ledger(), 0)
        return
    judged = rows_of(task)
    reason = (
        pl.when(pl.col("kind") != "thumbs").then(pl.lit("other_kind"))
        .when(pl.col("value").is_null()).then(pl.lit("unjudged"))
    )  # fmt: skip
    told = judged.with_columns(reason=reason, up=pl.col("value").list.first())
    gone = told.filter(pl.col("reason").is_not_null())
    made = (
        told.filter(pl.col("reason").is_null())
        .group_by("item", maintain_order=True)
        .agg(
            pl.col("id").alias("sources"),
            pl.col("prompt", "tools").first(),
            pl.col("responses").first().alias("response"),
            pl.len().alias("votes"),
            pl.col("up").mean(),
        )
    )
    tied = made.filter(pl.col("up") == 0.5).select(pl.col("sources").alias("id"), pl.col("up").alias("value"))
    drops = [
        ledger(gone, reason=pl.col("reason"), value=None),
        ledger(tied.explode("id"), reason="tie"),
    ]
    made = made.filter(pl.col("up") != 0.5).with_columns(
        label=pl.col("up") > 0.5, agree=pl.max_horizontal("up", 1 - pl.col("up"))
    )
    named = zip(made["item"].to_list(), made["sources"].to_list(), strict=True)
    ids = [row_id("thumbs.make", item, *sources) for item, sources in named]
    rows = made.with_columns(pl.Series("id", ids, dtype=pl.Binary))
    kept = rows.select(pl.col(name).cast(kind) for name, kind in THUMB.items())
    yield Split(kept, pl.concat(drops), judged.height, {"thumbs": kept.height})
