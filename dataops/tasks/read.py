"""Tasks out of files: what a model is asked, and the columns that its answers are held against.

The form of a row is told by its columns, or said with `columns` ({"prompt": "question", "gold": "answer"}):

    gsm8k      question, answer with "####"     the answer is the `gold`
    math       problem, answer or solution      the answer is the `gold`, else the solution with its box
    humaneval  prompt, test, entry_point        the test is `tests`, its canonical_solution what must pass
    mbpp       text or prompt, test_list        the list is `tests`, its code what must pass
    tasks      prompt                           as it is

All other columns stay: numbers, texts, truth values and lists of texts as such, all else as JSON text, and what is of
several kinds as text. A row's `id` becomes `given_id`, its `source` is the file's name where it says none. The law:
each row of a file becomes a task or one ledger row with its file and line: "bad_json", "wrong_type", "missing_column",
"empty_prompt", "too_large", "corrupt_member" or "corrupt_row_group".

Not covered: prompts with tools or images, and several columns that make one prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from gristmill.dataops.chat.formats.find import find
from gristmill.dataops.chat.formats.rows import rows
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import PROMPT, SHAPES, joint, kind_of
from gristmill.dataops.crawl import hash_files
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_id, sha256_json
from gristmill.dataops.op import LEDGER, Split, ledger, op
from gristmill.dataops.readers.page import EVIDENCE, SourceFile
from gristmill.dataops.store import Store, Task

Row = Mapping[str, Any]
_ROWS = 4096  # of a batch
_OWN: dict[str, pl.DataType] = {
    "id": pl.Binary(),
    "source_file": pl.String(),
    "source_line": pl.UInt32(),
    "prompt": PROMPT,
    "source": pl.String(),
}
#: Columns that a later step adds; those of a file are left out, since they speak of another making.
_MADE = {"verifier", "gold_passes", "pass_rate", "samples", "sources"}
_TEXTS = pl.List(pl.String())


def _gsm8k(row: Row) -> dict[str, Any]:
    return _renamed(row, {"prompt": "question", "gold": "answer"})


def _math(row: Row) -> dict[str, Any]:
    return _renamed(row, {"prompt": "problem", "gold": "answer" if row.get("answer") is not None else "solution"})


def _humaneval(row: Row) -> dict[str, Any]:
    rest = {name: value for name, value in row.items() if name not in ("test", "entry_point")}
    return {**rest, "tests": {"code": row["test"], "entry_point": row["entry_point"]}}


def _mbpp(row: Row) -> dict[str, Any]:
    rest = {name: value for name, value in row.items() if name not in ("text", "test_list", "test_setup_code")}
    tests = {"assertions": row["test_list"], "setup": row.get("test_setup_code") or ""}
    return {**rest, "prompt": row.get("prompt", row.get("text")), "tests": tests}


#: By name: whether a row is of the form, and the task that it is.
FORMS: dict[str, tuple[Callable[[Row], bool], Callable[[Row], dict[str, Any]]]] = {
    "gsm8k": (lambda row: "question" in row and "####" in str(row.get("answer")), _gsm8k),
    "math": (lambda row: "problem" in row and ("answer" in row or "solution" in row), _math),
    "humaneval": (lambda row: {"prompt", "test", "entry_point"} <= row.keys(), _humaneval),
    "mbpp": (lambda row: "test_list" in row and ("text" in row or "prompt" in row), _mbpp),
}


def read_tasks(store: Store, name: str, paths: Sequence[str], columns: Mapping[str, str] | None = None) -> Dataset:
    """Files, globs, folders or URLs as a dataset of tasks. Raises InputError for a file that there is not."""
    files = find(list(paths))
    digests = hash_files(store, files)
    content = sha256_json([[file.name, file.format, digests[file.url]] for file in files])
    reading = tasks_read(columns=dict(columns or {}), files_context=files, digests_context=digests)
    return store.build(name, reading, [], external=[content])


def task_of(row: Row, columns: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """(the name of the row's form, its columns as a task's). Raises Fault."""
    if columns:
        return "columns", _renamed(row, columns)
    for name, (fits, make) in FORMS.items():
        if fits(row):
            return name, make(row)
    return "tasks", dict(row)


def _renamed(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    missing = [old for old in columns.values() if row.get(old) is None]
    if missing:
        raise Fault("missing_column", f"no {missing[0]}; there is {', '.join(row) or 'nothing'}")
    rest = {name: value for name, value in row.items() if name not in columns and name not in columns.values()}
    return {**rest, **{new: row[old] for new, old in columns.items()}}


def _plan(
    _: Any,
    __: Any,
    ___: int,
    *,
    columns: Mapping[str, str],
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
) -> list[Task]:
    """A task is a file; all files are read once before, for the names and kinds of their columns."""
    kinds: dict[str, set[pl.DataType | None]] = {}
    for file in files_context:
        for _, _, row in rows(file):
            if isinstance(row, dict):
                try:
                    found = task_of(row, columns)[1]
                except Fault:
                    continue
                for name, value in _others(found).items():
                    if value is not None:
                        kinds.setdefault(name, set()).add(_kind(value))
    types = {name: _joint(found) for name, found in sorted(kinds.items())}
    return [Task((file, digests_context[file.url], types)) for file in files_context]


def _others(task: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a task that are as the file has them."""
    named = {"given_id" if name == "id" else name: value for name, value in task.items()}
    return {name: value for name, value in named.items() if name not in _OWN and name not in _MADE}


def _kind(value: Any) -> pl.DataType | None:
    texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return _TEXTS if texts else kind_of(value)


def _joint(kinds: set[pl.DataType | None]) -> pl.DataType:
    if kinds == {_TEXTS}:
        return _TEXTS
    kind, as_json = joint(kinds)
    return pl.String() if as_json else kind


@op("tasks.read", version=1, kind="source", plan=_plan)
def tasks_read(
    task: tuple[SourceFile, str, Mapping[str, pl.DataType]],
    *,
    columns: Mapping[str, str],
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
) -> Iterator[Split]:
    """Tasks; rows that are none go to the ledger."""
    file, digest, types = task
    schema = {**_OWN, **types}
    kept: list[dict[str, Any]] = []
    drops: list[tuple[Any, ...]] = []
    forms: dict[str, int] = {}
    yield Split(pl.DataFrame(schema=schema), ledger())
    for number, offset, row in rows(file):
        id = row_id("tasks.read", file.name, digest, str(number))
        try:
            if isinstance(row, Fault):
                raise row
            form, found = task_of(row, columns)
            made = _made(found, types, file.name)
            forms[f"rows_{form}"] = forms.get(f"rows_{form}", 0) + 1
            kept.append({"id": id, "source_file": file.name, "source_line": number, **made})
        except Fault as fault:
            drops.append((id, fault.reason, f"line {number}: {fault}"[:EVIDENCE], file.name, offset))
        if len(kept) + len(drops) >= _ROWS:
            yield _split(kept, drops, schema, forms)
            kept, drops, forms = [], [], {}
    yield _split(kept, drops, schema, forms)


def _made(found: Mapping[str, Any], types: Mapping[str, pl.DataType], file: str) -> dict[str, Any]:
    made = SHAPES["tasks"].make(found)
    if not any(message["content"].strip() for message in made["prompt"]):
        raise Fault("empty_prompt", "nothing is asked")
    source, others = found.get("source"), _others(found)
    made["source"] = source if isinstance(source, str) and source.strip() else file
    for name, kind in types.items():
        value = others.get(name)
        spelled = kind == pl.String() and value is not None and not isinstance(value, str)
        made[name] = json.dumps(value, ensure_ascii=False, default=str) if spelled else value
    return made


def _split(
    kept: list[dict[str, Any]], drops: list[tuple[Any, ...]], schema: Mapping[str, Any], forms: Mapping[str, int]
) -> Split:
    frame = pl.DataFrame({name: [row[name] for row in kept] for name in schema}, schema=schema)
    names = ("id", "reason", "evidence", "warc", "offset")
    gone = ledger(pl.DataFrame(drops, schema={name: LEDGER[name] for name in names}, orient="row"))
    return Split(frame, gone, len(kept) + len(drops), forms)


def check_columns(dataset: Dataset, wanted: Sequence[str], who: str) -> None:
    """Raises InputError, saying how to name them, where tasks lack columns that `who` needs."""
    names = dataset.schema().names
    missing = [name for name in wanted if name not in names]
    if missing:
        there = ", ".join(name for name in names if name not in ("id", "source_file", "source_line"))
        raise InputError(
            f"{who} needs the column {missing[0]}, and the tasks have {there}: say which it is, such as with "
            f"--column {missing[0]}=COLUMN"
        )
