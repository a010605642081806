"""Hand-over to managed fine-tuning: a dataset as the JSON lines that a hosted service takes, within its stated limits.

The laws: every row is written or is in the ledger with a reason; what is written keeps every limit of its form
(hosted_forms.py, each with its source); order is kept; shards and batches do not show in a byte; the folder appears
whole or not at all. It holds

    00000.jsonl, 00001.jsonl, ...   a new file where the next line would pass a limit on the bytes or examples of one
    ledger.ndjson                   a line for each refused row: its place, id, reason, value and limit
    gristmill.json                  dataset, key, digest, form, limits, counts, reasons, files with their SHA-256

A row that is written although its tokens could not be counted is in the ledger, too, with the unit "tokens" and an
amount that is null. Not covered: uploading, and what a service finds only in a job (costs, content policies).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.export.folder import Progress, whole
from gristmill.dataops.export.hosted_check import Count, check, tokens
from gristmill.dataops.export.hosted_forms import FORMS, Form
from gristmill.dataops.export.hosted_rows import COLUMNS, Refused, read
from gristmill.dataops.export.hosted_shapes import line
from gristmill.dataops.export.rows import even_batches
from gristmill.dataops.fileio import file_sha256

LEDGER = "ledger.ndjson"
BOM = b"\xef\xbb\xbf"
BATCH = 256  # rows as Python objects at a time

#: What an rft row's grader is given where nothing else is asked for: the columns of these names that there are.
GRADER_COLUMNS = ("gold", "tests", "verifier", "reference_answer", "ground_truth", "answer", "solution")


def export_hosted(
    dataset: Dataset,
    to: str | Path,
    form: str,
    columns: Sequence[str] | None = None,
    tokenizer: str | Path | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Write `dataset` into the folder `to` in a form of FORMS; returns the note, with "already" where it was there.

    `columns` are the fields for the grader of an rft form (default: those of GRADER_COLUMNS that there are);
    `tokenizer` is a tokenizer.json to count tokens with. Raises InputError for a form that is not there, columns that
    are missing, a folder that holds something else, and fewer rows left than the service takes.
    """
    target = Path(to)
    if form not in FORMS:
        raise InputError(f"no form {form!r}; there are: {', '.join(FORMS)}")
    chosen = FORMS[form]
    fields = _fields(dataset, chosen, columns)
    count, digest = _counter(tokenizer)
    head = {
        "gristmill": 1, "dataset": dataset.name, "key": dataset.key, "digest": dataset.digest, "format": form,
        "columns": fields, "tokenizer": digest,
    }  # fmt: skip

    def fill(scratch: Path) -> dict[str, Any]:
        numbers = write(_rows(dataset, fields, progress), scratch, chosen, fields, count)
        return {"limits": json.loads(json.dumps(asdict(chosen))), **numbers}

    return whole(target, head, fill)


def write(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    folder: Path,
    form: Form,
    fields: Sequence[str] = (),
    count: Count | None = None,
) -> dict[str, Any]:
    """Write rows, as (id, columns), into a folder; returns numbers for the note. Raises InputError if too few stay."""
    files = _Files(folder, form)
    reasons: Counter[str] = Counter()
    total = unjudged = 0
    with (folder / LEDGER).open("w", encoding="utf-8") as ledger:
        for number, (id, row) in enumerate(rows):
            total = number + 1
            entry = {"row": number, "id": id, "op": f"export.{form.name}"}
            try:
                text, size = render(row, form, fields, count)
            except Refused as refused:
                reasons[refused.reason] += 1
                entry |= {"reason": refused.reason, "value": refused.value, "threshold": refused.threshold}
                ledger.write(json.dumps({**entry, "evidence": refused.evidence, "lost": 1, "unit": "row"}) + "\n")
                continue
            if size is not None:
                unjudged += 1
                entry |= {"reason": "tokens_not_counted", "value": size, "threshold": form.max_tokens}
                ledger.write(json.dumps({**entry, "evidence": "bytes", "lost": None, "unit": "tokens"}) + "\n")
            files.add(text, number)
    refused_rows = sum(reasons.values())
    if total - refused_rows < form.min_examples:
        raise InputError(
            f"{form.name} takes at least {form.min_examples} examples and {total - refused_rows} of {total} rows are "
            f"left: {', '.join(f'{reason} {n}' for reason, n in reasons.most_common(5)) or 'no other was there'}"
        )
    entries = files.close()
    ledger_file = folder / LEDGER
    entries.append({"file": LEDGER, "bytes": ledger_file.stat().st_size, "sha256": file_sha256(ledger_file)})
    return {
        "rows": total - refused_rows,
        "read": total,
        "refused": refused_rows,
        "reasons": dict(sorted(reasons.items())),
        "tokens_not_counted": unjudged,
        "files": entries,
    }


def render(
    row: Mapping[str, Any], form: Form, fields: Sequence[str] = (), count: Count | None = None
) -> tuple[bytes, int | None]:
    """A row as its line, and its bytes of text where its tokens could not be judged. Raises Refused."""
    example = read(row, form.stage, fields)
    check(example, form)
    text = line(example, form)
    size = len(text) + len(BOM) * form.bom
    if form.max_bytes is not None and size > form.max_bytes:
        raise Refused("too_many_bytes", "the line alone", size, form.max_bytes)
    return text, tokens(example, form, count)


def _fields(dataset: Dataset, form: Form, columns: Sequence[str] | None) -> list[str]:
    """The grader's columns. Raises InputError where columns are missing."""
    there = dataset.schema().names
    needed = {"sft": ("messages", "prompt"), "dpo": ("chosen",), "rft": ("messages", "prompt")}[form.stage]
    if not set(needed) & set(there):
        raise InputError(
            f"{dataset.name} has no column {' or '.join(needed)}, which {form.name} is made of; it has: "
            f"{', '.join(there)}"
        )
    if form.stage != "rft":
        if columns is not None:
            raise InputError(f"{form.name} has no room for columns of its own: leave them out")
        return []
    room = [name for name in there if name not in ("id", *COLUMNS)]
    missing = [name for name in columns or () if name not in room]
    if missing:
        raise InputError(
            f"{dataset.name} has no column {', '.join(missing)} for a grader; those it could have: {', '.join(room)}"
        )
    fields = list(columns) if columns is not None else [name for name in GRADER_COLUMNS if name in there]
    if not fields:
        raise InputError(
            f"{form.name} needs columns for the grader: name them, out of {', '.join(room) or 'none there'}"
        )
    return fields


def _counter(tokenizer: str | Path | None) -> tuple[Count | None, str | None]:
    """What counts the tokens of a text, and the SHA-256 of the tokenizer."""
    if tokenizer is None:
        return None, None
    from tokenizers import Tokenizer

    try:
        content = Path(tokenizer).read_bytes()
        made = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"{tokenizer} is not a tokenizer.json: {error}") from None
    return lambda text: len(made.encode(text, add_special_tokens=False).ids), hashlib.sha256(content).hexdigest()


def _rows(dataset: Dataset, fields: Sequence[str], progress: Progress) -> Iterator[tuple[str, dict[str, Any]]]:
    there = dataset.schema().names
    columns = [name for name in dict.fromkeys(["id", *COLUMNS, *fields]) if name in there]
    done = 0
    for batch in even_batches(dataset, columns, BATCH):
        for row in batch.to_pylist():
            id = row.pop("id", b"")
            yield (id.hex() if isinstance(id, bytes) else str(id)), row
        done += batch.num_rows
        progress("export", done, dataset.rows, done)


class _Files:
    """The numbered files of an export. The last lines of each are kept, so that the last file need not be too short."""

    def __init__(self, folder: Path, form: Form) -> None:
        self._folder, self._form = folder, form
        self._entries: list[dict[str, Any]] = []
        self._tails: list[deque[tuple[int, bytes]]] = []
        self._file: Any = None

    def add(self, text: bytes, row: int) -> None:
        """Append a line, in a new file where it does not fit."""
        form, entry = self._form, self._entries[-1] if self._entries else None
        if (
            entry is None
            or (form.max_examples is not None and entry["examples"] >= form.max_examples)
            or (form.max_bytes is not None and entry["bytes"] + len(text) > form.max_bytes)
        ):
            entry = self._open(row)
        self._file.write(text)
        entry["bytes"] += len(text)
        entry["examples"] += 1
        entry["last_row"] = row
        self._tails[-1].append((row, text))

    def _open(self, row: int) -> dict[str, Any]:
        if self._file is not None:
            self._file.close()
        entry = {"file": f"{len(self._entries):05d}.jsonl", "bytes": 0, "examples": 0, "first_row": row}
        self._file = (self._folder / entry["file"]).open("wb")  # type: ignore[operator]
        if self._form.bom:
            entry["bytes"] = self._file.write(BOM)
        self._entries.append(entry)
        self._tails = [*self._tails[-1:], deque(maxlen=self._form.min_examples)]
        return entry

    def close(self) -> list[dict[str, Any]]:
        """The files with their SHA-256. Raises InputError where the last one cannot be filled from the one before."""
        self._file.close()
        if len(self._entries) > 1 and self._entries[-1]["examples"] < self._form.min_examples:
            self._fill()
        for entry in self._entries:
            entry["sha256"] = file_sha256(self._folder / entry["file"])
        return self._entries

    def _fill(self) -> None:
        form, (before, last) = self._form, self._entries[-2:]
        missing = form.min_examples - last["examples"]
        moved = list(self._tails[0])[-missing:]
        size = sum(len(text) for _, text in moved)
        if before["examples"] - missing < form.min_examples or (
            form.max_bytes is not None and last["bytes"] + size > form.max_bytes
        ):
            raise InputError(
                f"{form.name}: {last['examples']} examples are left for the last file, which takes at least "
                f"{form.min_examples}: leave some rows out"
            )
        lines = [*moved, *self._tails[1]]
        kept = before["bytes"] - size
        os.truncate(self._folder / before["file"], kept)
        (self._folder / last["file"]).write_bytes(BOM * form.bom + b"".join(text for _, text in lines))
        left = before["examples"] - missing
        tail = list(self._tails[0])[:-missing]
        before |= {"bytes": kept, "examples": left, "last_row": tail[-1][0]}
        last |= {"bytes": last["bytes"] + size, "examples": form.min_examples, "first_row": lines[0][0]}
