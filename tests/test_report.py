"""The report says what was planted, adds up, is bounded, and shows hostile pages as text and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import REGISTRY, Rule, Split, above, below, first_reason, keep, ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.report import bins
from gristmill.dataops.report.charts import funnel_svg, human
from gristmill.dataops.report.measure import measure
from gristmill.dataops.report.page import render, write_report
from gristmill.dataops.report.samples import plain
from gristmill.dataops.store import Corpus, Store, Task

PAGES = 400
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)><a href="https://evil.example/">x</a>\u202e'


@op(
    "report_test.read",
    version=1,
    kind="source",
    plan=lambda _, __, ___, *, rows, size, hosts: [Task((i, 4), None) for i in range(4)],
)
def read_planted(task: tuple[int, int], *, rows: int, size: int, hosts: int) -> Iterator[Split]:
    """Pages with known numbers: page i has i words. Every tenth record is no page."""
    part, of = task
    frame = pl.DataFrame([_page(i, size, hosts) for i in range(part, rows, of)], schema=PAGE)
    gone = frame.filter(pl.col("offset") % 10 == 0)
    drops = ledger(gone, reason="http_status", value=404.0)
    yield Split(frame.filter(pl.col("offset") % 10 != 0), drops)


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


def _page(i: int, size: int, hosts: int) -> dict[str, Any]:
    from datetime import date, datetime

    return {
        "id": row_id("planted", str(i)),
        "uri": f"https://host{i % hosts}.example/{i}?{'q' * size}",
        "warc": "planted.warc.gz",
        "offset": i,
        "date": datetime(2024, 1 + i % 3, 5),
        "text": f"Page {i}. " + "é" * i + (EVIL * size if size else ""),
        "title": EVIL * max(1, size),
        "published": date(2020 + i % 4, 1, 1) if i % 2 else None,
        "language": ("en", "en", "de", None)[i % 4],
        "n_words": i,
        "n_hashes": i // 2 if i % 7 == 0 else 0,
        "robots_meta": "noindex, nofollow" if i % 50 == 1 else "index",
        "tdm_reservation": "1" if i % 50 == 2 else None,
        "content_usage": "train-ai=n" if i % 50 in (2, 3) else "train-ai=y",
    }


@keep("report_test.words", version=1)
def words(*, min_words: int = 50, max_words: int = 380, max_hashes: float = 0.1) -> dict[str, Rule]:
    """Three reasons, of which two measure one number."""
    return first_reason(
        too_short=below(pl.col("n_words"), min_words),
        too_long=above(pl.col("n_words"), max_words),
        too_many_hashes=above(pl.col("n_hashes"), max_hashes, per=pl.col("n_words")),
    )


@op("report_test.twins", version=1, kind="corpus")
def twins(corpus: Corpus, *, every: int) -> list[pl.DataFrame]:
    """Pages whose number is a multiple of `every` are near-duplicates of page 51."""
    kept = row_id("planted", "51").hex()
    drops = []
    for shard in corpus.dataset.shards():
        rows = positioned(shard, ["id", "offset"]).filter((pl.col("offset") % every == 0) & (pl.col("offset") != 51))
        drops.append(ledger(rows, reason="near_duplicate", value=0.75, threshold=0.7, evidence=kept))
    return drops


@op("report_test.encode", version=1)
def encode(frame: pl.DataFrame, *, vocab_size: int) -> pl.DataFrame:
    """One token per word."""
    lists = pl.int_ranges(0, pl.col("n_words")).cast(pl.List(pl.UInt16))
    return frame.select("id", tokens=lists, n_tokens=pl.col("n_words"))


@op(
    "report_test.pack",
    version=1,
    kind="source",
    plan=lambda inputs, _, __, **___: [Task(inputs[0].rows)],
    makes="tokens",
)
def pack(task: int, *, seq_len: int, vocab_size: int) -> Iterator[Split]:
    """Two sequences, one of them half full; the first document goes on in the second."""
    ids = [row_id("document", str(i)) for i in range(3)]
    segments = [
        [{"id": ids[0], "start": 0, "length": seq_len}],
        [{"id": ids[0], "start": seq_len, "length": 2}, {"id": ids[1], "start": 0, "length": seq_len // 2 - 2}],
    ]
    kind = pa.list_(pa.struct([("id", pa.binary(16)), ("start", pa.uint32()), ("length", pa.uint32())]))
    table = pa.table(
        {
            "id": pa.array([row_id("row", "0"), row_id("row", "1")], pa.binary(16)),
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * seq_len, dtype=np.uint16) % 5), seq_len),
            "segments": pa.array(segments, kind),
            "length": pa.array([seq_len, seq_len // 2], pa.uint32()),
        }
    )
    yield Split(table, ledger(), task)


OPS = {name: REGISTRY.pop(name) for name in list(REGISTRY) if name.startswith("report_test.")}


@pytest.fixture(autouse=True)
def _ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ops of this file are known while its tests run, and to no other test."""
    for name, factory in OPS.items():
        monkeypatch.setitem(REGISTRY, name, factory)


def pages(root: Path, rows: int = PAGES, size: int = 0, hosts: int = 7) -> Dataset:
    return Store(root).build("pages", read_planted(rows=rows, size=size, hosts=hosts), [])


def chain(root: Path, *, every: int = 51, size: int = 0, hosts: int = 7, **limits: Any) -> Dataset:
    store = Store(root)
    clean = store.build("clean", words(**limits), [pages(root, size=size, hosts=hosts)])
    unique = store.build("unique", twins(every=every), [clean])
    encoded = store.build("encoded", encode(vocab_size=1000), [unique])
    return store.build("packed", pack(seq_len=64, vocab_size=10), [encoded])


def write_pages(folder: Path) -> None:
    """For a look by eye."""
    write_report(chain(folder / "root"), folder)
