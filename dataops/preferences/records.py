"""Records of files that people export: JSON lines, one JSON array, or Parquet, each record with its number.

The law: every record of a file is one result, itself or the Fault that says why it is none; damage ends a file with one
Fault at its place. An array is read whole: exports of annotation tools are of that kind, and small.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.dataset import InputError
from gristmill.dataops.readers.files import SourceFile, find_files
from gristmill.dataops.readers.lines import Torn, decompressed, lines
from gristmill.dataops.readers.streams import open_file, open_raw

_LONGEST = 64 << 20  # bytes of a line
_BOM = b"\xef\xbb\xbf"
_ROWS = 1024  # of a Parquet batch


def find(paths: Sequence[str]) -> list[SourceFile]:
    """Files, globs, folders and URLs as source files; local arrays in *.json are of format "json". Raises InputError
    for what is missing or of another format."""
    arrays = [path for path in paths if path.lower().endswith(".json") and Path(path).is_file() and _is_array(path)]
    files = [SourceFile(Path(path).name, path, "json", Path(path).stat().st_size) for path in dict.fromkeys(arrays)]
    others = [path for path in paths if path not in arrays]
    files += find_files(others) if others or not arrays else []
    strange = next((file for file in files if file.format.partition(".")[0] not in ("json", "jsonl", "parquet")), None)
    if strange is not None:
        raise InputError(
            f"{strange.url} is {strange.format}: judgements are read from JSON lines, a JSON array (*.json) and Parquet"
        )
    return sorted(files, key=lambda file: file.name)


def records(file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """(number from 1: of the line, of the array or of the row; record or why it is none)."""
    if file.bytes == 0:
        return iter(())
    if file.format == "json":
        return _array(file)
    return _parquet(file) if file.format == "parquet" else _lines(file)


def _is_array(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(1 << 10).removeprefix(_BOM).lstrip().startswith(b"[")


def _array(file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    with open_file(file.url) as opened:
        data = opened.read().removeprefix(_BOM)
    try:
        rows = json.loads(data.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.url} begins as a JSON array and is none: {error}; write it again") from None
    for number, row in enumerate(rows, 1):
        yield number, _object(row)


def _lines(file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    number = 0
    with open_raw(file.url) as raw:
        try:
            for _, line, length in lines(decompressed(raw, file.format, 0), 0, _LONGEST, blanks=True):
                number += 1
                if line is None:
                    yield number, Fault("too_large", f"{length} bytes; the most is {_LONGEST}")
                elif text := (line.removeprefix(_BOM) if number == 1 else line).strip():
                    yield number, _parsed(text)
        except Torn as torn:
            yield number + 1, Fault("corrupt_member", str(torn))


def _parsed(line: bytes) -> dict[str, Any] | Fault:
    try:
        return _object(json.loads(line.decode(), parse_constant=_no_number))
    except (ValueError, RecursionError) as error:
        return Fault("bad_json", f"{type(error).__name__}: {error}")


def _object(row: Any) -> dict[str, Any] | Fault:
    if not isinstance(row, dict):
        return Fault("wrong_type", f"a JSON {type(row).__name__}, not an object")
    try:
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
    except ValueError as error:
        return Fault("bad_json", f"{type(error).__name__}: {error}")
    return row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _parquet(file: SourceFile) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    number = 0
    with open_file(file.url) as opened:
        try:
            table = pq.ParquetFile(opened)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file.url} cannot be read as Parquet: {error}") from None
        try:
            for batch in table.iter_batches(batch_size=_ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            lost = table.metadata.num_rows - number
            yield number + 1, Fault("corrupt_row_group", f"the {lost} rows from here on: {error}")
