"""Which format the conversations of a file are in: said by its first rows' columns, or given.

Each of the first rows votes for the format whose columns it has; the file is of the format with most votes, and the
reason is kept, to be shown. The law: no row is read by another format than its file's. One that has the columns of
another is dropped as "other_format", and which one is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gristmill.dataops.chat.formats import instructions, trees, turns
from gristmill.dataops.chat.formats.canonical import Made
from gristmill.dataops.chat.formats.rows import rows
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import Row
from gristmill.dataops.dataset import InputError
from gristmill.dataops.readers.page import SourceFile

_FIRST = 100  # rows that vote


@dataclass(frozen=True)
class Format:
    """`make` is a row's conversations; `mark` says by which columns a row is of this format, None if it is not."""

    make: Callable[[Row], Made]
    mark: Callable[[Row], str | None]


@dataclass(frozen=True)
class Detected:
    """The format of a file, by name, and why."""

    file: str
    format: str
    why: str


def _columns(*names: str) -> Callable[[Row], str | None]:
    """A mark: a value in each of these columns."""
    return lambda row: f"columns {' and '.join(names)}" if all(row.get(name) is not None for name in names) else None


def _listed(kind: type, *names: str) -> Callable[[Row], str | None]:
    """A mark: one of these columns is a list that begins with this type. Rows of pairs are none."""
    called = "texts" if kind is str else "turns"

    def mark(row: Row) -> str | None:
        if row.get("chosen") is not None:
            return None
        for name in names:
            found = row.get(name)
            if isinstance(found, list) and found and isinstance(found[0], kind):
                return f"column {name}, a list of {called}"
        return None

    return mark


def _transcript(row: Row) -> str | None:
    for name in ("text", "transcript", "chosen"):
        if isinstance(row.get(name), str) and row[name].lstrip().startswith("Human:"):
            return f"column {name}, which begins with Human:" + (" (the chosen side)" if name == "chosen" else "")
    return None


def _tree(row: Row) -> str | None:
    if trees.flat(row):
        return "columns message_id and message_tree_id, a message a row"
    prompt = row.get("prompt")
    return "column prompt with replies" if isinstance(prompt, dict) and "replies" in prompt else None


def _pretokenized(row: Row) -> str | None:
    return _columns("inputs_pretokenized", "targets_pretokenized")(row) or _columns("inputs", "targets")(row)


def _benchmark(row: Row) -> str | None:
    return _columns("question_id", "turns")(row) or _columns("question_id", "choices")(row)


#: By name, the formats with the most telling columns first.
FORMATS = {
    "chatgpt": Format(trees.chatgpt, _columns("mapping", "current_node")),
    "oasst": Format(trees.oasst, _tree),
    "oasst-all": Format(trees.oasst_all, lambda row: None),  # the same columns: it has to be asked for
    "messages": Format(turns.messages, lambda row: "column messages" if "messages" in row else None),
    "lima": Format(turns.lima, _listed(str, "conversations", "data")),
    "sharegpt": Format(turns.sharegpt, _listed(dict, "conversations", "conversation")),
    "self-instruct": Format(instructions.self_instruct, _columns("instruction", "instances")),
    "mt-bench": Format(turns.mt_bench, _benchmark),
    "dolly": Format(instructions.dolly, _columns("instruction", "response")),
    "alpaca": Format(instructions.alpaca, _columns("instruction", "output")),
    "flan": Format(instructions.flan, _pretokenized),
    "completion": Format(instructions.completion, _columns("prompt", "completion")),
    "hh": Format(turns.hh, _transcript),
}


def of_row(row: Row) -> tuple[str, str] | None:
    """(the format whose columns a row has, why); None where it has those of none."""
    return next(((name, why) for name, known in FORMATS.items() if (why := known.mark(row)) is not None), None)


def detect(files: Sequence[SourceFile], given: str | None = None) -> list[Detected]:
    """The format of each file. Raises InputError for a format that there is not, and for a file that has the columns of
    none. A file without a readable row is taken as messages: what is wrong with its rows, reading says."""
    if given is not None and given not in FORMATS:
        raise InputError(f"no format {given!r}; there are: {', '.join(FORMATS)}")
    return [Detected(file.name, given, "given") if given is not None else _detected(file) for file in files]


def _detected(file: SourceFile) -> Detected:
    first = [row for _, _, row in islice(rows(file), _FIRST) if isinstance(row, dict)]
    if not first:
        return Detected(file.name, "messages", "no row can be read")
    found = [kind for row in first if (kind := of_row(row)) is not None]
    if not found:
        names = list(dict.fromkeys(str(name) for row in first for name in row))
        hint = "; pairs are read by --kind pairs" if "chosen" in names else ""
        raise InputError(
            f"{file.url} has the columns {', '.join(names[:20]) or 'of no row'}, which are those of no known format"
            f"{hint}: name one (--format), or rename the columns to messages, or to instruction and output; there are: "
            f"{', '.join(FORMATS)}"
        )
    votes = Counter(name for name, _ in found)
    name, most = votes.most_common(1)[0]
    why = next(why for kind, why in found if kind == name)
    whole = "" if most == len(first) else f" in {most} of the first {len(first)} rows"
    return Detected(file.name, name, why + whole)


def lines(file: SourceFile, format: str | None) -> Iterator[tuple[int, int, dict[str, Any] | Fault, int]]:
    """(line or row from 1, its byte, row or why it is none, how many rows of the file it is) of a file in a format."""
    if format in ("oasst", "oasst-all"):
        return trees.gathered(rows(file))
    return ((*found, 1) for found in rows(file))


def read_row(row: Row, format: str) -> Made:
    """What a format makes of a row. Raises Fault; "other_format" where the row has another one's columns."""
    try:
        return FORMATS[format].make(row)
    except Fault as fault:
        other = of_row(row) if fault.reason in ("missing_column", "wrong_type") else None
        if other is None or other[0] == format.removesuffix("-all"):
            raise
        raise Fault("other_format", f"{other[1]}: it is {other[0]}, and the file {format}") from None
