"""Pages of tables: JSON lines (plain or compressed), CSV and Parquet.

A row's text is its column `text`, else `content`, else `raw_content`; without these `html` is its payload. Of the other
columns only `id`, `url`/`uri`/`source_url` and `date`/`timestamp` are read. The law: each row of a file becomes a kept
row or one ledger row, wherever the file is cut; a bad row costs itself alone.

`offset` is the byte at which the line starts (after decompression), or for CSV and Parquet the row's number from 0, and
`length` that of the line, or 0. Ledger reasons: "bad_json", "bad_row" (CSV rows of another width), "no_text",
"payload_too_large", "corrupt_member" (the end of a damaged compressed file), "corrupt_row_group", "unreadable_file"
(Parquet without its footer). A table without a text column is a mistake of whoever named it: InputError.

Places to start from are lines of plain JSON lines and row groups of Parquet; the others are read as one. CSV bytes that
are not UTF-8 are read as Windows-1252, line by line. Not covered: JSON over several lines, nested text columns.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.dataops.dataset import InputError
from gristmill.dataops.op import Split
from gristmill.dataops.readers.headers import epoch, parse_date
from gristmill.dataops.readers.lines import Torn, decompressed, lines
from gristmill.dataops.readers.page import SEEK_BYTES, Batch, Drop, FileIndex, Limits, Page, SourceFile
from gristmill.dataops.readers.payload import HTML, PLAIN, without_surrogates
from gristmill.dataops.readers.streams import Raw, open_file, open_raw

TEXT, URI, DATE = ("text", "content", "raw_content"), ("url", "uri", "source_url"), ("date", "timestamp")
_MAX_LINE = 256 << 20  # bytes of a CSV line or field; longer ones are bad rows
_BOM = b"\xef\xbb\xbf"


def index_jsonl(source: SourceFile, seek_bytes: int = SEEK_BYTES) -> FileIndex:
    """Count the lines that are not blank; start places in plain files only."""
    count, seeks, problems = 0, [(0, 0)], []
    with open_raw(source.url) as raw:
        try:
            for offset, _, _ in lines(decompressed(raw, source.format, 0), 0, 0):
                if "." not in source.format and count and offset - seeks[-1][0] >= seek_bytes:
                    seeks.append((offset, count))
                count += 1
        except Torn as torn:
            problems.append((torn.offset, "corrupt_member"))
            count += 1
    return FileIndex(count, seeks, problems=problems)


def read_jsonl(source: SourceFile, start: int, stop: int | None, limits: Limits) -> Iterator[Split]:
    """The lines that start in [start, stop)."""
    batch = Batch(source, limits)
    with open_raw(source.url) as raw:
        try:
            for offset, line, length in lines(decompressed(raw, source.format, start), start, limits.max_payload_bytes):
                if stop is not None and offset >= stop:
                    break
                if line is None:
                    batch.drop(Drop("payload_too_large", length, limits.max_payload_bytes), offset)
                else:
                    _add(batch, _parse(line if offset else line.removeprefix(_BOM)), offset, length, limits)
                yield from batch.splits()
        except Torn as torn:
            batch.drop(Drop("corrupt_member", evidence=str(torn)), torn.offset)
    yield from batch.splits(last=True)


def index_csv(source: SourceFile) -> FileIndex:
    """Count the rows; a CSV file is read as one."""
    count, problems = 0, []
    with open_raw(source.url) as raw:
        for number, row in _csv_rows(raw, source):
            count += 1
            if isinstance(row, Drop) and row.reason == "corrupt_member":
                problems.append((number, row.reason))
    return FileIndex(count, [(0, 0)], problems=problems)


def read_csv(source: SourceFile, start: int, stop: int | None, limits: Limits) -> Iterator[Split]:
    """All rows, where `start` is 0."""
    batch = Batch(source, limits)
    with open_raw(source.url) as raw:
        for number, row in _csv_rows(raw, source) if start == 0 else ():
            _add(batch, row, number, 0, limits)
            yield from batch.splits()
    yield from batch.splits(last=True)


def index_parquet(source: SourceFile) -> FileIndex:
    """Count the rows from the footer; each row group is a place to start from, by its number."""
    with open_file(source.url) as file:
        table = _parquet(file)
        if isinstance(table, Drop):
            return FileIndex(1, [(0, 0)], problems=[(0, table.reason)])
        _check_columns(source, table.schema_arrow.names)
        seeks, rows = [(0, 0)], 0
        for group in range(table.num_row_groups):
            if rows > seeks[-1][1]:
                seeks.append((group, rows))
            rows += table.metadata.row_group(group).num_rows
    return FileIndex(rows, seeks)


def read_parquet(source: SourceFile, start: int, stop: int | None, limits: Limits) -> Iterator[Split]:
    """The rows of the row groups in [start, stop)."""
    batch = Batch(source, limits)
    with open_file(source.url) as file:
        table = _parquet(file)
        if isinstance(table, Drop):
            if start == 0:
                batch.drop(table, 0)
            yield from batch.splits(last=True)
            return
        names = _check_columns(source, table.schema_arrow.names)
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        for group in range(start, len(sizes) if stop is None else min(stop, len(sizes))):
            number, end = sum(sizes[:group]), sum(sizes[: group + 1])
            try:
                for rows in table.iter_batches(batch_size=256, row_groups=[group], columns=names, use_threads=False):
                    columns = {name: _values(name, rows.column(name)) for name in rows.schema.names}
                    for values in zip(*columns.values(), strict=True):
                        _add(batch, dict(zip(columns, values, strict=True)), number, 0, limits)
                        number += 1
                        yield from batch.splits()
            except (pa.ArrowException, OSError) as error:
                for lost in range(number, end):
                    batch.drop(Drop("corrupt_row_group", group, evidence=str(error)), lost)
                    yield from batch.splits()
    yield from batch.splits(last=True)


def _parse(line: bytes) -> dict[str, Any] | Drop:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # of no JSON, of no UTF-8, of endless digits or brackets
        return Drop("bad_json", evidence=f"{type(error).__name__}: {error}")
    return row if isinstance(row, dict) else Drop("no_text", evidence=f"a JSON {type(row).__name__}, no object")


def _add(batch: Batch, row: Mapping[str, Any] | Drop, offset: int, length: int, limits: Limits) -> None:
    """One row into the batch, kept or dropped."""
    if isinstance(row, Drop):
        batch.drop(row, offset)
        return
    uri = next((value for name in URI if isinstance(value := row.get(name), str)), None)
    key = row.get("id")
    name = str(key) if isinstance(key, (str, int)) else None
    text = next((value for column in TEXT if isinstance(value := row.get(column), (str, bytes))), None)
    mime = PLAIN
    if text is None:
        text, mime = row.get("html"), HTML
    uri, name = (without_surrogates(value).decode() if value is not None else None for value in (uri, name))
    if not isinstance(text, (str, bytes)):
        columns = ", ".join(str(column) for column, value in row.items() if value is not None)
        batch.drop(Drop("no_text", evidence=f"columns with a value: {columns or 'none'}"), offset, uri, key=name)
        return
    payload = without_surrogates(text) if isinstance(text, str) else text
    if len(payload) > limits.max_payload_bytes:
        batch.drop(Drop("payload_too_large", len(payload), limits.max_payload_bytes), offset, uri, key=name)
        return
    when = next((found for column in DATE if (found := _date(row.get(column))) is not None), None)
    batch.keep(Page(payload, None, mime, "utf-8"), uri, offset, length, None, when, name)


def _date(value: Any) -> datetime | None:
    """A date column's value in UTC: ISO 8601 text, digits, seconds or milliseconds since 1970, or a date."""
    if isinstance(value, str):
        return parse_date(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return epoch(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _csv_rows(raw: Raw, source: SourceFile) -> Iterator[tuple[int, Mapping[str, str] | Drop]]:
    """(row number from 0, row), with a last Drop where a compressed file is torn."""
    before = csv.field_size_limit(_MAX_LINE)
    reader = csv.reader(map(_csv_line, lines(decompressed(raw, source.format, 0), 0, _MAX_LINE, blanks=True)))
    names, number = None, 0
    try:
        while True:
            row: list[str] | Drop
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row = Drop("bad_row", evidence=f"line {reader.line_num}: {error}")
            except Torn as torn:
                yield number, Drop("corrupt_member", evidence=f"after line {reader.line_num}: {torn}")
                return
            if not row:
                continue
            if isinstance(row, Drop):
                yield number, row
            elif names is None:
                names = row
                _check_columns(source, names)
                continue
            elif len(row) == len(names):
                yield number, dict(zip(names, row, strict=True))
            else:
                evidence = f"line {reader.line_num}: {len(row)} fields under {len(names)} names"
                yield number, Drop("bad_row", len(row), len(names), evidence)
            number += 1
    finally:
        csv.field_size_limit(before)


def _csv_line(item: tuple[int, bytes | None, int]) -> str:
    offset, line, length = item
    if line is None:
        raise csv.Error(f"a line of {length} bytes")
    data = line if offset else line.removeprefix(_BOM)
    try:
        return data.decode() + "\n"
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace") + "\n"


def _check_columns(source: SourceFile, names: list[str]) -> list[str]:
    """The columns to read; raises InputError where none of them is a text."""
    if not {*TEXT, "html"}.intersection(names):
        wanted = ", ".join((*TEXT, "html"))
        raise InputError(
            f"{source.url} has no column with text: it has {', '.join(names)}; rename the one that holds the text "
            f"to one of {wanted}"
        )
    return [name for name in names if name in {*TEXT, "html", *URI, *DATE, "id"}]


def _parquet(file: BinaryIO) -> pq.ParquetFile | Drop:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        return Drop("unreadable_file", evidence=str(error))


def _values(name: str, column: pa.Array) -> list[Any]:
    """Python values of a column: bytes of texts (Parquet does not promise valid UTF-8), strings, numbers or dates."""
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False).to_pylist()
    if not any(test(kind) for test in _TEXT_TYPES):
        return column.to_pylist()
    values = column.cast(pa.large_binary()).to_pylist()
    if name in TEXT or name == "html":
        return values
    return [value.decode("utf-8", "replace") if value is not None else None for value in values]


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
