"""Duplicates: the same URL or text, and near-duplicates by MinHash with every removal verified.

One removal rule for both. Rows are ranked by a stated rule on their content; going down the ranks, a row is removed if
and only if a row that stayed is a duplicate of it. So nothing is removed through a chain of likenesses, and neither
the order of the input nor shards nor workers change the result. Each removed row names the row it is most like among
those that stay: it is really there, though it may be ranked after the one that cost the row its place.

Each op returns a ledger frame per shard; no text is copied. Band keys (112 bytes a row at 14 bands) and the shingles
of candidates are held in memory.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Shard
from gristmill.dataops.identity import row_hashes
from gristmill.dataops.op import ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus
from gristmill.dataops.text.minhash import NO_KEY, band_keys, jaccard_pairs, resolve, signatures
from gristmill.dataops.text.shingles import Shingles, join, shingle

Keep = Literal["earliest", "longest"]


@op("dedup.exact", version=1, kind="corpus")
def exact(corpus: Corpus, *, keep: Keep = "earliest") -> list[pl.DataFrame]:
    """Drop pages whose URL or whose whole text a better-ranked page has: `same_page` (both), `same_text`, `same_url`.

    `keep`: "earliest" crawl date (then longest text, then lowest id) or "longest" text (then earliest, then lowest id).
    """
    tables = corpus.map(_exact_keys, corpus.dataset.shards())
    rows = pl.concat([table.with_columns(shard=pl.lit(i, pl.UInt32)) for i, table in enumerate(tables)])
    hashes = rows.select("uri_a", "uri_b", "text_a", "text_b").to_numpy()
    has_uri = rows["has_uri"].to_numpy()
    keys = np.where(np.stack([has_uri, np.ones_like(has_uri)], axis=1), hashes[:, (0, 2)], NO_KEY)

    def same(pairs: np.ndarray) -> np.ndarray:
        left, right = hashes[pairs[:, 0]] == hashes[pairs[:, 1]], has_uri[pairs].all(axis=1)
        return ((left[:, :2].all(axis=1) & right) | left[:, 2:].all(axis=1)).astype(np.float64)

    found = resolve(keys, _rank(rows, keep), same, 1.0)
    twin = hashes[found["row"].to_numpy()] == hashes[found["kept"].to_numpy()]
    by_text = twin[:, 2:].all(axis=1)
    by_url = twin[:, :2].all(axis=1) & has_uri[found["row"].to_numpy()]
    reasons = np.where(by_text & by_url, "same_page", np.where(by_text, "same_text", "same_url"))
    return _ledgers(rows, found.with_columns(reason=pl.Series(reasons, dtype=pl.String)), None, len(tables))


@op("dedup.minhash", version=1, kind="corpus")
def minhash(
    corpus: Corpus,
    *,
    ngram: int = 5,
    bands: int = 14,
    rows: int = 8,
    verify_at: float = 0.7,
    seed: int = 1,
    keep: Keep = "earliest",
) -> list[pl.DataFrame]:
    """Drop near-duplicates: pages that share a band with a better-ranked page that stays and whose word-`ngram`
    shingles have a true Jaccard similarity of at least `verify_at` with it (`value` in the ledger).

    The chance that a pair is compared is 1 - (1 - s**rows)**bands (Leskovec et al., Mining of Massive Datasets, 3.4):
    0.57 at s = 0.7, 0.92 at 0.8, 0.99 at 0.85 for FineWeb's 14 bands of 8. `keep` as for `exact`.
    """
    shards = corpus.dataset.shards()
    tables = corpus.map(_minhash_keys, [(shard, ngram, bands, rows, seed) for shard in shards])
    frame = pl.concat([table.with_columns(shard=pl.lit(i, pl.UInt32)) for i, (table, _) in enumerate(tables)])
    keys = np.concatenate([keys for _, keys in tables])
    candidate = np.zeros(len(keys), dtype=bool)
    for band in range(bands):
        column = np.ascontiguousarray(keys[:, band])
        candidate |= pl.Series(column).is_duplicated().to_numpy() & (column != NO_KEY)
    where = frame.with_row_index("at").filter(pl.Series(candidate))
    tasks = [
        (shard, where.filter(pl.col("shard") == i)["row"].to_numpy(), ngram)
        for i, shard in enumerate(shards)
        if (where["shard"] == i).any()
    ]
    shingles = join(corpus.map(_shingles_of, tasks))
    place = np.full(len(keys), -1, dtype=np.int64)
    place[where["at"].to_numpy()] = np.arange(where.height)
    found = resolve(keys, _rank(frame, keep), lambda pairs: jaccard_pairs(shingles, place[pairs]), verify_at)
    corpus.stats["candidates"] = where.height
    found = found.with_columns(reason=pl.lit("near_duplicate"), value=pl.col("jaccard"))
    return _ledgers(frame, found, verify_at, len(shards))


def _rank(rows: pl.DataFrame, keep: Keep) -> np.ndarray:
    """Position in the order of preference, int64[n]. Copies of one record differ in nothing: then the first stays."""
    if keep not in ("earliest", "longest"):
        raise ValueError(f"keep is 'earliest' or 'longest', not {keep!r}")
    date, size = ("date", False), ("chars", True)
    order = [*((date, size) if keep == "earliest" else (size, date)), ("id", False)]
    names, descending = [name for name, _ in order], [down for _, down in order]
    ranked = rows.with_row_index("at").sort(names, descending=descending, nulls_last=True, maintain_order=True)["at"]
    rank = np.empty(rows.height, dtype=np.int64)
    rank[ranked.to_numpy()] = np.arange(rows.height)
    return rank


def _ledgers(rows: pl.DataFrame, found: pl.DataFrame, threshold: float | None, shards: int) -> list[pl.DataFrame]:
    """`found` (row, kept, reason, value) as one ledger frame per shard, naming the row that stays."""
    ids = rows["id"]
    gone = rows[found["row"].to_numpy()].select("id", "row", "shard")
    twins = ids[found["kept"].to_numpy()].bin.encode("hex")
    value = found["value"] if "value" in found.columns else pl.Series([None] * found.height, dtype=pl.Float64)
    drops = gone.with_columns(
        reason=found["reason"], value=value, evidence=twins, threshold=pl.lit(threshold, pl.Float64)
    )
    return [ledger(drops.filter(pl.col("shard") == i).sort("row")) for i in range(shards)]


def _keyed(shard: Shard) -> pl.DataFrame:
    columns = ["id", "uri", "date", "text"]
    return positioned(shard, columns).with_columns(chars=pl.col("text").str.len_chars())


def _exact_keys(shard: Shard) -> pl.DataFrame:
    """Per row: position, id, what the rank needs, and 128-bit hashes of URL and text."""
    frame = _keyed(shard)
    columns: dict[str, np.ndarray] = {}
    for name in ("uri", "text"):
        hashes = row_hashes(pa.table({"v": frame[name].to_arrow()}))
        columns |= {f"{name}_a": hashes[:, 0], f"{name}_b": hashes[:, 1]}
    hashed = frame.select("row", "id", "date", "chars", has_uri=pl.col("uri").is_not_null())
    return hashed.with_columns(**{name: pl.Series(value, dtype=pl.UInt64) for name, value in columns.items()})


def _minhash_keys(task: tuple[Shard, int, int, int, int]) -> tuple[pl.DataFrame, np.ndarray]:
    """Per row: position, id, what the rank needs; and its band keys, uint64[n, bands]."""
    shard, ngram, bands, rows, seed = task
    frame = _keyed(shard)
    keys = band_keys(signatures(shingle(frame["text"], ngram), bands, rows, seed), bands, rows)
    return frame.select("row", "id", "date", "chars"), keys


def _shingles_of(task: tuple[Shard, np.ndarray, int]) -> Shingles:
    """The shingles of some rows of a shard, by position."""
    shard, rows, ngram = task
    frame = positioned(shard, ["text"]).filter(pl.col("row").is_in(pl.Series(rows, dtype=pl.UInt32).implode()))
    return shingle(frame["text"], ngram)
