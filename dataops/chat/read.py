"""Chat data out of files into rows of one shape: JSON lines and arrays (plain, or in gzip, zstd or LZ4), Parquet, and
the Arrow files that `datasets` saves. Conversations come in any of the formats of `detect`.

The law: each row of a file becomes a row or one ledger row that names its file and line, "bad_json", "wrong_type",
"missing_column", "weighted" (a message with a weight, see `shapes`), "too_large", "corrupt_member" or
"corrupt_row_group" (the rest of a damaged file), and of conversations in formats of elsewhere "other_format",
"bad_roles", "empty", "no_targets" or "no_prompt". Where a row is several conversations, what of it is in none is in the
ledger too. A row's id is of its file's name and content and its number there, so that it stays when the folder moves.
Made rows say `source_file` and `source_line` (from 1; but in JSON lines the row's number).

    chats = read_files(store, "sft-messages", ["chats.jsonl"], "messages")         # any format, detected
    encoded = store.build("sft-encoded", encode_chats(chat, max_tokens=4096), [chats])
    packed = store.build("sft", best_fit(seq_len=4096, ...), [encoded])            # see `recipe`

Not covered: rows inside one JSON object, CSV.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from gristmill.dataops.chat.detect import detect, lines, read_row
from gristmill.dataops.chat.formats.canonical import Lost
from gristmill.dataops.chat.formats.find import find
from gristmill.dataops.chat.formats.rows import rows
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import SHAPES, joint, kind_of
from gristmill.dataops.crawl import hash_files
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_id, sha256_json
from gristmill.dataops.op import LEDGER, Split, ledger, op
from gristmill.dataops.readers.page import EVIDENCE, SourceFile
from gristmill.dataops.store import Store, Task

Name = Literal["messages", "pairs", "thumbs", "tasks"]
_ROWS = 4096  # of a batch
_OWN: dict[str, pl.DataType] = {"id": pl.Binary(), "source_file": pl.String(), "source_line": pl.UInt32()}
_GIVEN = "given_id"


def read_files(store: Store, name: str, paths: Sequence[str], shape: Name, *, format: str | None = None) -> Dataset:
    """Files, globs, folders, list files or URLs as a dataset of one of the `shapes`. `format` is what conversations are
    in, one of `detect.FORMATS`; None detects it file by file. How many rows were in which is in the dataset's stats.

    Raises InputError for a shape, a file or a format that there is not.
    """
    if shape not in SHAPES:
        raise InputError(f"no shape {shape!r}; there are: {', '.join(SHAPES)}")
    if format is not None and shape != "messages":
        raise InputError(f"a format is of messages: leave {format} out for {shape}")
    files = find(list(paths))
    formats = (
        {file.url: kind.format for file, kind in zip(files, detect(files, format), strict=True)}
        if (shape == "messages")
        else {}
    )
    digests = hash_files(store, files)
    content = sha256_json([[file.name, file.format, digests[file.url], formats.get(file.url)] for file in files])
    reading = read_rows(shape=shape, files_context=files, digests_context=digests, formats_context=formats)
    return store.build(name, reading, [], external=[content])


def _plan(
    _: Any,
    __: Any,
    ___: int,
    *,
    shape: str,
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
    formats_context: Mapping[str, str],
) -> list[Task]:
    """A task is a file. Where a shape keeps all columns, the files are read once before, for their names and types."""
    columns = _others(files_context) if SHAPES[shape].open else {}
    return [Task((file, digests_context[file.url], formats_context.get(file.url), columns)) for file in files_context]


def _others(files: Sequence[SourceFile]) -> dict[str, tuple[pl.DataType, bool]]:
    """(type, whether it is JSON text) of each column beside the prompt."""
    kinds: dict[str, set[pl.DataType | None]] = {}
    for file in files:
        for _, _, row in rows(file):
            if isinstance(row, dict):
                for name, value in row.items():
                    if value is not None and name != "prompt":
                        kinds.setdefault(_GIVEN if name == "id" else name, set()).add(kind_of(value))
    taken = sorted(({*_OWN} - {"id"}) & {*kinds})
    if taken:
        raise InputError(f"the files have a column {taken[0]}, a name that is kept for where a row is from: rename it")
    return {name: joint(found) for name, found in sorted(kinds.items())}


@op("chat.read", version=4, kind="source", plan=_plan)
def read_rows(
    task: tuple[SourceFile, str, str | None, Mapping[str, tuple[pl.DataType, bool]]],
    *,
    shape: str,
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
    formats_context: Mapping[str, str],
) -> Iterator[Split]:
    """Rows of `SHAPES[shape]`; those that are none go to the ledger."""
    file, digest, format, others = task
    schema = {**_OWN, **SHAPES[shape].columns, **{name: kind for name, (kind, _) in others.items()}}
    kept: list[dict[str, Any]] = []
    drops: list[tuple[Any, ...]] = []
    read = 0
    yield Split(pl.DataFrame(schema=schema), ledger())  # so that a file without a single row has its columns
    for number, offset, row, size in lines(file, format):
        read += size
        id = row_id("chat.read", file.name, digest, str(number))
        made, lost = _made(row, shape, format, others)
        for at, item in enumerate(made):
            own = row_id("chat.read", file.name, digest, str(number), str(at)) if at else id
            if format is not None and item["source"] is None:
                item["source"] = file.name
            kept.append({"id": own, "source_file": file.name, "source_line": number, **item})
        for loss in lost:
            evidence = f"line {number}: {loss.evidence}"[:EVIDENCE]
            drops.append((id, loss.reason, evidence, loss.lost, loss.unit, file.name, offset))
        if len(kept) + len(drops) >= _ROWS:
            yield _split(kept, drops, schema, read, format)
            kept, drops, read = [], [], 0
    yield _split(kept, drops, schema, read, format)


def _made(
    row: dict[str, Any] | Fault, shape: str, format: str | None, others: Mapping[str, tuple[pl.DataType, bool]]
) -> tuple[list[dict[str, Any]], list[Lost]]:
    """The rows that a row of a file becomes, and what of it is in none: where there are no rows, the one reason."""
    try:
        if isinstance(row, Fault):
            raise row
        if format is None:
            return [SHAPES[shape].make(row) | _kept(row, others)], []
        items = read_row(row, format)
    except Fault as fault:
        items = [fault]
    made = [item for item in items if isinstance(item, dict)]
    unit = "conversation" if made else "row"
    lost = [
        Lost(item.reason, str(item), 1, unit) if isinstance(item, Fault) else item
        for item in items
        if not isinstance(item, dict)
    ]
    return made, lost if made else lost[:1]


def _kept(row: Mapping[str, Any], others: Mapping[str, tuple[pl.DataType, bool]]) -> dict[str, Any]:
    """The other columns of a row of an open shape."""
    found = {}
    for name, (_, as_json) in others.items():
        value = row.get("id" if name == _GIVEN else name)
        found[name] = json.dumps(value, ensure_ascii=False, default=str) if as_json and value is not None else value
    return found


def _split(
    kept: list[dict[str, Any]],
    drops: list[tuple[Any, ...]],
    schema: Mapping[str, pl.DataType],
    read: int,
    format: str | None,
) -> Split:
    columns = {name: [row[name] for row in kept] for name in schema}
    frame = pl.DataFrame({name: _column(values, schema[name]) for name, values in columns.items()})
    stats = {f"rows_{format}": read} if format is not None and read else {}
    if not drops:
        return Split(frame, ledger(), read, stats)
    names = ("id", "reason", "evidence", "lost", "unit", "warc", "offset")
    gone = ledger(pl.DataFrame(drops, schema={name: LEDGER[name] for name in names}, orient="row"))
    return Split(frame, gone, read, stats)


def _column(values: list[Any], kind: pl.DataType) -> pl.Series:
    """A column; nested ones by Arrow, since polars would make them row by row."""
    if not kind.is_nested():
        return pl.Series(values, dtype=kind)
    return pl.Series(pl.from_arrow(pa.array(values, type=pl.Series(dtype=kind).to_arrow().type))).cast(kind)
