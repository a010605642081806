"""Rows as Parquet, and as JSON lines in the shape that datatrove and dolma read: text, id, and the rest as metadata.

Ids are 32 hex digits, times ISO 8601 in JSON, bytes base64 in JSON, but hex in lists, which are ids of sources. A file
ends after a fixed number of rows, so the files do not depend on the shards.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.export.rows import BATCH, even_batches, plain, plain_schema

FILE_BATCHES = 64  # batches, of BATCH rows, to a file


def write_parquet(dataset: Dataset, folder: Path, columns: Sequence[str], progress: Any) -> dict[str, Any]:
    """NNNNN.parquet, zstd, a row group for every 4,096 rows."""
    schema = plain_schema(dataset, columns)
    # Columns in which every value is another one gain nothing from a dictionary, which costs twice their writing.
    repeated = [name for name in schema.names if name not in ("id", "text")]
    rows = 0
    writer: pq.ParquetWriter | None = None
    for number, batch in enumerate(_or_empty(dataset, columns)):
        if number % FILE_BATCHES == 0:
            if writer is not None:
                writer.close()
            path = folder / f"{number // FILE_BATCHES:05d}.parquet"
            writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)
        assert writer is not None
        writer.write_table(plain(batch).cast(schema))
        rows += batch.num_rows
        progress("export", rows, dataset.rows, rows)
    if writer is not None:
        writer.close()
    return {"rows": rows}


def write_jsonl(dataset: Dataset, folder: Path, columns: Sequence[str], progress: Any) -> dict[str, Any]:
    """NNNNN.jsonl.gz, a line per row; nothing is cut or rounded."""
    rows = 0
    file: Any = None
    for number, batch in enumerate(_or_empty(dataset, columns)):
        if number % FILE_BATCHES == 0:
            if file is not None:
                file.close()
            # Without a name and a time in the gzip header, so that the same rows give the same bytes.
            raw = (folder / f"{number // FILE_BATCHES:05d}.jsonl.gz").open("wb")
            file = _Gzip(raw)
        lines = io.BytesIO()
        _shaped(pl.DataFrame(plain(batch))).write_ndjson(lines)
        file.write(lines.getvalue())
        rows += batch.num_rows
        progress("export", rows, dataset.rows, rows)
    if file is not None:
        file.close()
    return {"rows": rows}


class _Gzip:
    """A gzip file over an open one, which it closes with itself."""

    def __init__(self, raw: io.BufferedWriter) -> None:
        self._raw = raw
        self._gzip: gzip.GzipFile = igzip.IGzipFile(filename="", mode="wb", fileobj=raw, compresslevel=2, mtime=0)

    def write(self, data: bytes) -> None:
        self._gzip.write(data)

    def close(self) -> None:
        self._gzip.close()
        self._raw.close()


def _or_empty(dataset: Dataset, columns: Sequence[str]) -> Any:
    """Batches; of a dataset without rows one without rows, so that there is a file to read."""
    if not dataset.rows:
        schema = dataset.schema()
        yield pa.schema([schema.field(name) for name in columns]).empty_table()
        return
    yield from even_batches(dataset, columns, BATCH)


def _shaped(frame: pl.DataFrame) -> pl.DataFrame:
    """What JSON can say of every value; rows with a text as text, id, metadata."""
    lists = [name for name, kind in frame.schema.items() if kind == pl.List(pl.Binary)]
    frame = frame.with_columns(
        cs.temporal().dt.to_string("iso:strict"),
        cs.binary().bin.encode("base64"),
        pl.col(lists).list.eval(pl.element().bin.encode("hex")),
    )
    rest = [name for name in frame.columns if name not in ("text", "id")]
    if "text" not in frame.columns:
        return frame
    return frame.select("text", "id", *([pl.struct(rest).alias("metadata")] if rest else []))
