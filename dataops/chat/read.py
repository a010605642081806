"""Chat data out of files into rows of one shape: JSON lines and arrays (plain, or in gzip, zstd or LZ4), Parquet, and
the Arrow files that `datasets` saves. Conversations come in any of the formats of `detect`.

The law: each row of a file becomes a row or one ledger row that names its file and line, "bad_json", "wrong_type",
"missing_column", "weighted" (a message with a weight, see `shapes`), "too_large", "corrupt_member" or
"corrupt_row_group" (the rest of a damaged file), and of conversations in formats of elsewhere "other_format",
"bad_roles", "empty", "no_targets" or "no_prompt". Where a row is several conversations, what of it is in none is in the
ledger too. A row's id is of its file's name and content and its number there, so that it stays when the folder moves.
Made rows say `source_file` and `source_line` (from 1; but in JSON lines the row's number).

Conversations may come in several sets of files (`read_sets`), each with its own format and with what its rows are said
to be where they do not say it themselves: `source`, `licence`. Numbers and vectors beside a conversation, scores and
embeddings, are kept by name: a value that is none makes its row "wrong_type", a missing one is null.

    chats = read_files(store, "sft-messages", ["chats.jsonl"], "messages")         # any format, detected
    encoded = store.build("sft-encoded", encode_chats(chat, max_tokens=4096), [chats])
    packed = store.build("sft", best_fit(seq_len=4096, ...), [encoded])            # see `recipe`

Not covered: rows inside one JSON object, CSV.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
#: What may be kept beside a conversation.
BESIDE: dict[str, pl.DataType] = {"number": pl.Float64(), "vector": pl.List(pl.Float32())}


@dataclass(frozen=True)
class ChatSet:
    """Files of conversations that belong together. `format` is theirs (None: detected file by file); `source` and
    `licence` are those of rows that name none; `weight` is for mixing."""

    name: str
    files: tuple[str, ...]
    weight: float | None = None
    format: str | None = None
    source: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class _Said:
    """What is said of a file's conversations beforehand."""

    format: str
    source: str
    licence: str | None


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
    if shape == "messages":
        said = {
            file.url: _Said(kind.format, file.name, None)
            for file, kind in zip(files, detect(files, format), strict=True)
        }
    else:
        said = {}
    return _built(store, name, shape, files, said, {})


def read_sets(
    store: Store, name: str, sets: Sequence[ChatSet], beside: Mapping[str, Literal["number", "vector"]] | None = None
) -> Dataset:
    """Conversations of several sets of files as one dataset, set by set. Where there are several, `source_file` begins
    with the set's name and a slash, and rows that name no source get the set's name. `beside` are columns of the files
    to keep, a number or a list of numbers each.

    Raises InputError as `read_files` does, for two sets of one name, for a file that is in two, and for a column that
    conversations have already.
    """
    columns = dict(beside or {})
    taken = next((column for column in columns if column in _OWN or column in SHAPES["messages"].columns), None)
    if taken is not None:
        raise InputError(f"conversations have a column {taken!r} of their own: it cannot be kept beside them")
    files: list[SourceFile] = []
    said: dict[str, _Said] = {}
    for number, one in enumerate(sets):
        if one.name in {other.name for other in sets[:number]}:
            raise InputError(f"two sets of files are called {one.name!r}: give each its own name")
        found = find(list(one.files))
        for file, kind in zip(found, detect(found, one.format), strict=True):
            if file.url in said:
                raise InputError(f"{file.url} is in {one.name} and in another set: name each file once")
            alone = len(sets) == 1
            said[file.url] = _Said(kind.format, one.source or (file.name if alone else one.name), one.licence)
            files.append(file if alone else dataclasses.replace(file, name=f"{one.name}/{file.name}"))
    return _built(store, name, "messages", files, said, columns)


def _built(
    store: Store,
    name: str,
    shape: Name,
    files: Sequence[SourceFile],
    said: Mapping[str, _Said],
    beside: Mapping[str, str],
) -> Dataset:
    digests = hash_files(store, files)
    told = [
        dataclasses.astuple(known) if (known := said.get(file.url)) is not None else (None, None, None)
        for file in files
    ]
    content = sha256_json(
        [[file.name, file.format, digests[file.url], *more] for file, more in zip(files, told, strict=True)]
    )
    reading = read_rows(
        shape=shape, beside=dict(beside), files_context=files, digests_context=digests, said_context=said
    )
    return store.build(name, reading, [], external=[content])


def _plan(
    _: Any,
    __: Any,
    ___: int,
    *,
    shape: str,
    beside: Mapping[str, str],
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
    said_context: Mapping[str, _Said],
) -> list[Task]:
    """A task is a file. Where a shape keeps all columns, the files are read once before, for their names and types."""
    columns = _others(files_context) if SHAPES[shape].open else {}
    return [Task((file, digests_context[file.url], said_context.get(file.url), columns)) for file in files_context]


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


@op("chat.read", version=5, kind="source", plan=_plan)
def read_rows(
    task: tuple[SourceFile, str, _Said | None, Mapping[str, tuple[pl.DataType, bool]]],
    *,
    shape: str,
    beside: Mapping[str, str],
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
    said_context: Mapping[str, _Said],
) -> Iterator[Split]:
    """Rows of `SHAPES[shape]`, with the columns `beside` ("number" or "vector" by name); those that are none go to the
    ledger."""
    file, digest, said, others = task
    format = None if said is None else said.format
    schema = {**_OWN, **SHAPES[shape].columns, **{name: kind for name, (kind, _) in others.items()}}
    schema |= {name: BESIDE[kind] for name, kind in beside.items()}
    kept: list[dict[str, Any]] = []
    drops: list[tuple[Any, ...]] = []
    read = 0
    yield Split(pl.DataFrame(schema=schema), ledger())  # so that a file without a single row has its columns
    for number, offset, row, size in lines(file, format):
        read += size
        id = row_id("chat.read", file.name, digest, str(number))
        made, lost = _made(row, shape, format, others, beside)
        for at, item in enumerate(made):
            own = row_id("chat.read", file.name, digest, str(number), str(at)) if at else id
            if said is not None:
                item |= {name: getattr(said, name) for name in ("source", "licence") if item[name] is None}
            kept.append({"id": own, "source_file": file.name, "source_line": number, **item})
        for loss in lost:
            evidence = f"line {number}: {loss.evidence}"[:EVIDENCE]
            drops.append((id, loss.reason, evidence, loss.lost, loss.unit, file.name, offset))
        if len(kept) + len(drops) >= _ROWS:
            yield _split(kept, drops, schema, read, format)
            kept, drops, read = [], [], 0
    yield _split(kept, drops, schema, read, format)


def _made(
    row: dict[str, Any] | Fault,
    shape: str,
    format: str | None,
    others: Mapping[str, tuple[pl.DataType, bool]],
    beside: Mapping[str, str],
) -> tuple[list[dict[str, Any]], list[Lost]]:
    """The rows that a row of a file becomes, and what of it is in none: where there are no rows, the one reason."""
    try:
        if isinstance(row, Fault):
            raise row
        if format is None:
            return [SHAPES[shape].make(row) | _kept(row, others)], []
        kept = {name: _beside(row, name, kind) for name, kind in beside.items()}
        items = [item | kept if isinstance(item, dict) else item for item in read_row(row, format)]
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


def _beside(row: Mapping[str, Any], name: str, kind: str) -> float | list[float] | None:
    """A number, or a list of numbers, that stands beside a conversation; None where there is none. Raises Fault."""
    value = row.get(name)
    if value is None:
        return None
    values = value if kind == "vector" else [value]
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise Fault("wrong_type", f"{name} is {json.dumps(value, default=str)[:80]}, not a {kind}")
    try:
        numbers = [float(v) for v in values]
    except OverflowError:
        raise Fault("wrong_type", f"{name} holds a number beyond all floats") from None
    return numbers if kind == "vector" else numbers[0]


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
