"""Chat data out of files: JSON lines (plain, or in gzip, zstd or LZ4) and Parquet into rows of one shape.

The law: each row of a file becomes a row or one ledger row that names its file and line, "bad_json", "wrong_type",
"missing_column", "weighted" (a message with a weight, see `shapes`), "too_large", "corrupt_member" or
"corrupt_row_group" (the rest of a damaged file). A row's id is of its file's name and content and its number there, so
that it stays when the folder moves. Made rows say `source_file` and `source_line` (from 1; of Parquet its number).

    chats = read_files(store, "sft-messages", ["chats.jsonl"], "messages")
    encoded = store.build("sft-encoded", encode_chats(chat, max_tokens=4096), [chats])
    packed = store.build("sft", best_fit(seq_len=4096, ...), [encoded])            # see `recipe`

Not covered: JSON over several lines, CSV.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import SHAPES, joint, kind_of
from gristmill.dataops.crawl import hash_files
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_id, sha256_json
from gristmill.dataops.op import LEDGER, Split, ledger, op
from gristmill.dataops.readers.files import SourceFile, find_files
from gristmill.dataops.readers.lines import Torn, decompressed, lines
from gristmill.dataops.readers.page import EVIDENCE
from gristmill.dataops.readers.streams import open_file, open_raw
from gristmill.dataops.store import Store, Task

Name = Literal["messages", "pairs", "thumbs", "tasks"]
_ROWS = 4096  # of a batch
_LONGEST = 64 << 20  # bytes of a line
_BOM = b"\xef\xbb\xbf"
_OWN: dict[str, pl.DataType] = {"id": pl.Binary(), "source_file": pl.String(), "source_line": pl.UInt32()}
_GIVEN = "given_id"


def read_files(store: Store, name: str, paths: Sequence[str], shape: Name) -> Dataset:
    """Files, globs, folders, list files or URLs as a dataset of one of the `shapes`. Raises InputError for a shape, a
    file or a format that there is not."""
    if shape not in SHAPES:
        raise InputError(f"no shape {shape!r}; there are: {', '.join(SHAPES)}")
    for path in paths:
        if path.lower().endswith(".json") and Path(path).is_file() and _head(path).startswith(b"["):
            raise InputError(
                f"{path} is one JSON array, and chat data is read line by line: jq -c '.[]' {path} > chats.jsonl"
            )
    files = find_files(list(paths))
    other = next((file for file in files if file.format.partition(".")[0] not in ("jsonl", "parquet")), None)
    if other is not None:
        raise InputError(f"{other.url} is {other.format}: chat data is read from JSON lines and Parquet")
    digests = hash_files(store, files)
    content = sha256_json([[file.name, file.format, digests[file.url]] for file in files])
    reading = read_rows(shape=shape, files_context=files, digests_context=digests)
    return store.build(name, reading, [], external=[content])


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 10).removeprefix(_BOM).lstrip()


def _plan(
    _: Any, __: Any, ___: int, *, shape: str, files_context: Sequence[SourceFile], digests_context: Mapping[str, str]
) -> list[Task]:
    """A task is a file. Where a shape keeps all columns, the files are read once before, for their names and types."""
    columns = _others(files_context) if SHAPES[shape].open else {}
    return [Task((file, digests_context[file.url], columns)) for file in files_context]


def _others(files: Sequence[SourceFile]) -> dict[str, tuple[pl.DataType, bool]]:
    """(type, whether it is JSON text) of each column beside the prompt."""
    kinds: dict[str, set[pl.DataType | None]] = {}
    for file in files:
        for _, _, row in _rows(file):
            if isinstance(row, dict):
                for name, value in row.items():
                    if value is not None and name != "prompt":
                        kinds.setdefault(_GIVEN if name == "id" else name, set()).add(kind_of(value))
    taken = sorted(({*_OWN} - {"id"}) & {*kinds})
    if taken:
        raise InputError(f"the files have a column {taken[0]}, a name that is kept for where a row is from: rename it")
    return {name: joint(found) for name, found in sorted(kinds.items())}


@op("chat.read", version=3, kind="source", plan=_plan)
def read_rows(
    task: tuple[SourceFile, str, Mapping[str, tuple[pl.DataType, bool]]],
    *,
    shape: str,
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
) -> Iterator[Split]:
    """Rows of `SHAPES[shape]`; those that are none go to the ledger."""
    file, digest, others = task
    made = SHAPES[shape]
    schema = {**_OWN, **made.columns, **{name: kind for name, (kind, _) in others.items()}}
    kept: list[dict[str, Any]] = []
    drops: list[tuple[Any, ...]] = []
    yield Split(pl.DataFrame(schema=schema), ledger())  # so that a file without a single row has its columns
    for number, offset, row in _rows(file):
        id = row_id("chat.read", file.name, digest, str(number))
        try:
            if isinstance(row, Fault):
                raise row
            named = {"id": id, "source_file": file.name, "source_line": number}
            kept.append({**named, **made.make(row), **_kept(row, others)})
        except Fault as fault:
            evidence = f"line {number}: {fault}"[:EVIDENCE]
            drops.append((id, fault.reason, evidence, file.name, offset))
        if len(kept) + len(drops) >= _ROWS:
            yield _split(kept, drops, schema)
            kept, drops = [], []
    yield _split(kept, drops, schema)


def _kept(row: Mapping[str, Any], others: Mapping[str, tuple[pl.DataType, bool]]) -> dict[str, Any]:
    """The other columns of a row of an open shape."""
    found = {}
    for name, (_, as_json) in others.items():
        value = row.get("id" if name == _GIVEN else name)
        found[name] = json.dumps(value, ensure_ascii=False, default=str) if as_json and value is not None else value
    return found


def _split(kept: list[dict[str, Any]], drops: list[tuple[Any, ...]], schema: Mapping[str, pl.DataType]) -> Split:
    columns = {name: [row[name] for row in kept] for name in schema}
    frame = pl.DataFrame({name: pl.Series(values, dtype=schema[name]) for name, values in columns.items()})
    if not drops:
        return Split(frame, ledger())
    names = ("id", "reason", "evidence", "warc", "offset")
    return Split(frame, ledger(pl.DataFrame(drops, schema={name: LEDGER[name] for name in names}, orient="row")))


def _rows(file: SourceFile) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
    """(line or row from 1, byte of the line or row from 0, row or why it is none)."""
    if file.bytes == 0:
        return iter(())
    return _parquet(file) if file.format == "parquet" else _lines(file)


def _lines(file: SourceFile) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
    number = 0
    with open_raw(file.url) as raw:
        try:
            for offset, line, length in lines(decompressed(raw, file.format, 0), 0, _LONGEST, blanks=True):
                number += 1
                if line is None:
                    yield number, offset, Fault("too_large", f"{length} bytes; the most is {_LONGEST}")
                elif text := (line if offset else line.removeprefix(_BOM)).strip():
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
    return row if isinstance(row, dict) else Fault("wrong_type", f"a JSON {type(row).__name__}, not an object")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _parquet(file: SourceFile) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
    with open_file(file.url) as opened:
        try:
            table = pq.ParquetFile(opened)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file.url} cannot be read as Parquet: {error}") from None
        number = 0
        for group in range(table.num_row_groups):
            end = number + table.metadata.row_group(group).num_rows
            try:
                for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group], use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, number - 1, row
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                for lost in range(number + 1, end + 1):
                    yield lost, lost - 1, Fault("corrupt_row_group", f"group {group}: {error}")
                number = end
