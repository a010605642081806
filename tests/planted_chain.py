"""A chain of toy datasets whose every number follows from a formula: pages, two views, tokens and sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import REGISTRY, Rule, Split, above, below, first_reason, keep, ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus, Store, Task

PAGES = 400
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)><a href="https://evil.example/">x</a>'
OVERRIDE = "\u202e"  # turns the text after it around
PAGE = {
    "id": pl.Binary(),
    "uri": pl.String(),
    "warc": pl.String(),
    "offset": pl.Int64(),
    "date": pl.Datetime("ms"),
    "text": pl.String(),
    "title": pl.String(),
    "published": pl.Date(),
    "language": pl.String(),
    "n_words": pl.UInt32(),
    "n_hashes": pl.UInt32(),
    "robots_meta": pl.String(),
    "tdm_reservation": pl.String(),
    "content_usage": pl.String(),
}


def page(i: int, size: int = 0, hosts: int = 7) -> dict[str, Any]:
    """Page i has i words; what else is in it follows from i. `size` makes it hostile, and that many times as long."""
    return {
        "id": row_id("planted", str(i)),
        "uri": f"https://host{i % hosts}.example/{i}" + ("?" + EVIL * size if size else ""),
        "warc": "planted.warc.gz",
        "offset": i,
        "date": datetime(2024, 1 + i % 3, 5),
        "text": f"Page {i}. " + "é" * (i % 400) + (EVIL + OVERRIDE) * size,
        "title": f"Title {i}" + (EVIL + OVERRIDE) * size,
        "published": date(2020 + i % 4, 1, 1) if i % 2 else None,
        "language": ("en", "en", "de", None)[i % 4],
        "n_words": i,
        "n_hashes": i // 2 if i % 7 == 0 else 0,
        "robots_meta": "noindex, nofollow" if i % 50 == 1 else "max-image-preview:none",
        "tdm_reservation": "1" if i % 50 == 2 else None,
        "content_usage": "train-ai=n" if i % 50 in (2, 3) else "train-ai=y",
    }


def _parts(_: Any, __: Any, ___: Any, *, rows: int, parts_context: int, **____: Any) -> list[Task]:
    cuts = [rows * i // parts_context for i in range(parts_context + 1)]
    return [Task(cut, cut[1] - cut[0]) for cut in zip(cuts[:-1], cuts[1:], strict=True)]


@op("toy.planted_pages", version=1, kind="source", plan=_parts)
def read_planted(
    task: tuple[int, int], *, rows: int, size: int = 0, hosts: int = 7, bad: int = 10, parts_context: int = 4
) -> Iterator[Split]:
    """Pages as `page` makes them; every `bad`-th record is no page."""
    frame = pl.DataFrame([page(i, size, hosts) for i in range(*task)], schema=PAGE)
    gone = pl.col("offset") % bad == bad - 1
    yield Split(frame.filter(~gone), ledger(frame.filter(gone), reason="http_status", value=404.0))


@keep("toy.words", version=2)
def words_of_another_version(*, min_words: int, max_words: int, max_hashes: float) -> dict[str, Rule]:
    """The same name, another version."""
    return first_reason(too_short=below(pl.col("n_words"), min_words + max_words + max_hashes))


@keep("toy.words", version=1)
def words(*, min_words: int = 50, max_words: int = 380, max_hashes: float = 0.1) -> dict[str, Rule]:
    """Three reasons, of which two measure one number."""
    return first_reason(
        too_short=below(pl.col("n_words"), min_words),
        too_long=above(pl.col("n_words"), max_words),
        too_many_hashes=above(pl.col("n_hashes"), max_hashes, per=pl.col("n_words")),
    )


assert REGISTRY["toy.words"] is words


@op("toy.twins", version=1, kind="corpus")
def twins(corpus: Corpus, *, twins_from: int) -> list[pl.DataFrame]:
    """Pages after page 51 whose number is a multiple of 51 are near-duplicates of it, from `twins_from` on."""
    kept, number = row_id("planted", "51").hex(), pl.col("offset")
    drops = []
    for shard in corpus.dataset.shards():
        rows = positioned(shard, ["id", "offset"]).filter((number % 51 == 0) & (number > 51) & (number >= twins_from))
        drops.append(ledger(rows, reason="near_duplicate", value=0.75, threshold=0.7, evidence=kept))
    return drops


@op("toy.encode", version=1)
def encode(frame: pl.DataFrame) -> Split:
    """One token per word; rows of more than 300 lose one."""
    size = pl.col("n_words") - (pl.col("n_words") > 300).cast(pl.UInt32)
    kept = frame.select("id", tokens=pl.int_ranges(0, size).cast(pl.List(pl.UInt16)), n_tokens=size)
    return Split(kept, ledger(frame.filter(pl.col("n_words") > 300), reason="too_many_words", unit="tokens", lost=1))


def _one(inputs: Sequence[Dataset], _: Any, __: Any, **___: Any) -> list[Task]:
    return [Task(inputs[0].rows)]


@op("toy.pack", version=1, kind="source", plan=_one, makes="tokens")
def pack(task: int, *, seq_len: int, vocab_size: int) -> Iterator[Split]:
    """Two sequences, the second half full; the first document goes on in it. None where there are no documents."""
    ids = [row_id("document", str(i)) for i in range(2)]
    first = [{"id": ids[0], "start": 0, "length": seq_len}]
    second = [{"id": ids[0], "start": seq_len, "length": 2}, {"id": ids[1], "start": 0, "length": seq_len // 2 - 2}]
    kind = pa.list_(pa.struct([("id", pa.binary(16)), ("start", pa.uint32()), ("length", pa.uint32())]))
    tokens = pa.array(np.arange(2 * seq_len, dtype=np.uint16) % 5)
    table = pa.table(
        {
            "id": pa.array([row_id("row", "0"), row_id("row", "1")], pa.binary(16)),
            "tokens": pa.FixedSizeListArray.from_arrays(tokens, seq_len),
            "segments": pa.array([first, second], kind),
            "length": pa.array([seq_len, seq_len // 2], pa.uint32()),
        }
    )
    yield Split(table if task else table.slice(0, 0), ledger(), task)


def chain(
    root: Path, *, rows: int = PAGES, twins_from: int = 0, limits: dict[str, Any] | None = None, **read: Any
) -> Dataset:
    """pages -> clean -> unique -> encoded -> packed; the last of them."""
    store = Store(root)
    pages = store.build("pages", read_planted(rows=rows, **read), [])
    clean = store.build("clean", words(**(limits or {})), [pages])
    unique = store.build("unique", twins(twins_from=twins_from), [clean])
    encoded = store.build("encoded", encode(), [unique])
    return store.build("packed", pack(seq_len=64, vocab_size=10), [encoded])
