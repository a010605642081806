"""The same conversation, or the same prompt, twice: within a set and across sets, at any size.

Going down the rows in their order, a row goes if an earlier one has the same `column` when case and runs of white space
do not count; rows of further inputs come before all others and stay. Near-duplicates are `dedup.small`'s to find, which
reads the same columns.

The law: each row that goes names the first one with its text, which stays. Not covered: empty texts, which stay.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_hashes
from gristmill.dataops.op import ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus


@op("sft.exact", version=1, kind="corpus")
def exact(corpus: Corpus, *, column: str = "text") -> list[pl.DataFrame]:
    """Drop rows whose `column` a row before them has: `duplicate` (the evidence is that row's id).

    Further inputs are sets that stay: earlier batches, other sources. Held are 40 bytes a row. Raises InputError for a
    dataset without such a text column.
    """
    earlier = [frame for dataset in corpus.others for frame in _hashed(dataset, column)]
    frames = _hashed(corpus.dataset, column)
    numbered = [frame.with_columns(shard=pl.lit(n, pl.Int32)) for n, frame in enumerate(frames, 0)]
    rows = pl.concat([*(frame.with_columns(shard=pl.lit(-1, pl.Int32)) for frame in earlier), *numbered, _nothing()])
    rows = rows.filter(pl.col("a").is_not_null())
    twin = rows.with_columns(first=pl.col("id").first().over("a", "b"), again=pl.int_range(pl.len()).over("a", "b") > 0)
    gone = twin.filter(pl.col("again"), pl.col("shard") >= 0)
    evidence = pl.col("first").bin.encode("hex")
    return [
        ledger(gone.filter(pl.col("shard") == n), reason="duplicate", evidence=evidence) for n in range(len(frames))
    ]


def _nothing() -> pl.DataFrame:
    kinds = {"row": pl.UInt32, "id": pl.Binary, "a": pl.UInt64, "b": pl.UInt64, "shard": pl.Int32}
    return pl.DataFrame(schema=kinds)


def _hashed(dataset: Dataset, column: str) -> list[pl.DataFrame]:
    """`row`, `id` and 128 bits of the text in `a` and `b`, null for an empty one; by shard."""
    have = dict(dataset.base.manifest["schema"])
    if have.get(column, "").removeprefix("large_") != "string":
        there = [name for name, kind in have.items() if kind.removeprefix("large_") == "string"]
        raise InputError(
            f"{dataset.name} has no text column {column!r}; it has: {', '.join(there) or 'none'} (sft.texts makes some)"
        )
    made = []
    for shard in dataset.shards():
        frame = positioned(shard, ["id", column])
        plain = frame[column].str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
        halves = row_hashes(pa.table({"text": plain.fill_null("").to_arrow()}))
        a, b = [pl.Series(np.ascontiguousarray(halves[:, i]), dtype=pl.UInt64) for i in (0, 1)]
        has_text = (plain != "").fill_null(False)
        hashed = frame.select("row", "id").with_columns(a=a, b=b)
        made.append(hashed.with_columns(pl.when(has_text).then(pl.col("a", "b"))))
    return made
