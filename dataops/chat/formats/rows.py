"""Rows of a file as objects, whatever packs them: JSON lines, a JSON array, Parquet, Arrow as `datasets` writes it.

The law: each row of a file is yielded with its number, or a fault in its place; damage is a fault, and no end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.dataops.chat.formats.arrays import elements
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.dataset import InputError
from gristmill.dataops.readers.lines import Torn, decompressed, lines
from gristmill.dataops.readers.page import SourceFile
from gristmill.dataops.readers.streams import open_file, open_raw

Found = tuple[int, int, "dict[str, Any] | Fault"]
BOM = b"\xef\xbb\xbf"
_BATCH = 4096  # rows
_LONGEST = 64 << 20  # bytes of a line, characters of an array's element


def rows(file: SourceFile) -> Iterator[Found]:
    """(line or row from 1, byte of the line or row from 0, row or why it is none). Raises InputError for a file that
    cannot be opened as what it is."""
    if file.bytes == 0:
        return iter(())
    kind = file.format.partition(".")[0]
    return {"parquet": _parquet, "arrow": _arrow, "json": _array}.get(kind, _lines)(file)


def _lines(file: SourceFile) -> Iterator[Found]:
    number = 0
    with open_raw(file.url) as raw:
        try:
            for offset, line, length in lines(decompressed(raw, file.format, 0), 0, _LONGEST, blanks=True):
                number += 1
                if line is None:
                    yield number, offset, Fault("too_large", f"{length} bytes; the most is {_LONGEST}")
                elif text := (line if offset else line.removeprefix(BOM)).strip():
                    yield number, offset, _parsed(text)
        except Torn as torn:
            yield number + 1, torn.offset, Fault("corrupt_member", str(torn))


def _parsed(line: bytes) -> dict[str, Any] | Fault:
    try:
        text = line.decode()
        row = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
    except (ValueError, RecursionError) as error:
        return Fault("bad_json", f"{type(error).__name__}: {error}")
    return _object(row)


def _object(row: Any) -> dict[str, Any] | Fault:
    return row if isinstance(row, dict) else Fault("wrong_type", f"a JSON {type(row).__name__}, not an object")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _array(file: SourceFile) -> Iterator[Found]:
    for number, offset, value in elements(file, _LONGEST):
        yield number, offset, value if isinstance(value, Fault) else _object(value)


def _parquet(file: SourceFile) -> Iterator[Found]:
    with open_file(file.url) as opened:
        try:
            table = pq.ParquetFile(opened)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file.url} cannot be read as Parquet: {error}") from None
        number = 0
        for group in range(table.num_row_groups):
            end = number + table.metadata.row_group(group).num_rows
            try:
                for batch in table.iter_batches(batch_size=_BATCH, row_groups=[group], use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, number - 1, row
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                for lost in range(number + 1, end + 1):
                    yield lost, lost - 1, Fault("corrupt_row_group", f"group {group}: {error}")
                number = end


def _arrow(file: SourceFile) -> Iterator[Found]:
    """Arrow's stream, which `datasets` writes, or its file format. Damage ends it: how many rows follow is unknown."""
    with open_file(file.url) as opened:
        try:
            if opened.read(6) == b"ARROW1":
                whole = pa.ipc.open_file(opened)
                batches = (whole.get_batch(at) for at in range(whole.num_record_batches))
            else:
                opened.seek(0)
                batches = iter(pa.ipc.open_stream(opened))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file.url} cannot be read as Arrow: {error}") from None
        number = 0
        try:
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH):
                    for row in batch.slice(start, _BATCH).to_pylist():
                        number += 1
                        yield number, number - 1, row
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield number + 1, number, Fault("corrupt_member", f"the rest cannot be read: {error}")
