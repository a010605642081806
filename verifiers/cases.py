"""A file of cases in, a file of verdicts out: one line per line, in order.

A case is a JSON object with `prompt`, `response` and what its verifier needs, and an `id` where it has one (else, and
for a NaN in the id, its number from 1 among the lines that are not blank). The law: every line that is not blank gets
one verdict. A line that is no such object is a verdict without a score ("unreadable_row"); a file that ends in damage
has one more, which says so. Tasks are probed before they are used (probes.py). Lines may be compressed (gzip, zstd,
LZ4); memory is bounded by `WINDOW` chunks of `CHUNK` lines.

The verdicts appear by one rename, when all of them are there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.dataops.dataset import InputError
from gristmill.dataops.executor import Executor, InProcess
from gristmill.dataops.readers.lines import Torn, decompressed, lines
from gristmill.dataops.readers.members import sniff_compression
from gristmill.dataops.readers.streams import open_raw
from gristmill.verifiers.probes import probed
from gristmill.verifiers.verdict import Summary, Verdict, summarise
from gristmill.verifiers.verifier import Verifier

CHUNK = 512  # lines that one worker judges at a time
WINDOW = 4  # chunks per worker that are held at once
MAX_LINE = 64 << 20  # bytes; a longer line is an unreadable row
MAX_DEPTH = 200  # brackets in each other in a line; Python's own readers and writers stop near 1,000

Line = tuple[int, bytes | None, str]  # its number from 1, its bytes, why it cannot be read


@dataclass(frozen=True)
class Judged:
    """What came of a file: the verdicts added up, and the wall seconds it took."""

    summary: Summary
    seconds: float


def verify_file(
    cases: str | Path,
    out: str | Path,
    verifier: Verifier,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Judged:
    """Judge every line of `cases` and write `{id, score, reason, evidence}` lines to `out`.

    `executor` spreads verifiers that judge row by row over processes; those that judge many at once bring their own
    parallelism. `progress` is told (percent done, 100, rows done). Raises InputError where there is no such file.
    """
    started = time.perf_counter()
    source, target = Path(cases), Path(out)
    if not source.is_file():
        raise InputError(f"no file of cases at {source}")
    if target.exists() and source.samefile(target):
        raise InputError(f"{target} holds the cases: write the verdicts to another file")
    if target.is_dir():
        raise InputError(f"{target} is a folder: name a file for the verdicts")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent} for the verdicts: make it first")
    runs = InProcess() if verifier.many or executor is None else executor
    summaries = []
    scratch = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w") as file:
            for window, at, size in _windows(source, runs.workers * WINDOW * CHUNK):
                chunks = [_Chunk(verifier, window[i : i + CHUNK]) for i in range(0, len(window), CHUNK)]
                for text, summary in runs.run(_judge, chunks) if len(chunks) > 1 else map(_judge, chunks):
                    file.write(text)
                    summaries.append(summary)
                if progress is not None:
                    progress(100 * at // size if size else 100, 100, sum(item.rows for item in summaries))
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return Judged(added(summaries), time.perf_counter() - started)


def added(summaries: Sequence[Summary]) -> Summary:
    """Summaries of parts as that of the whole."""
    rows, unjudged = sum(item.rows for item in summaries), sum(item.unjudged for item in summaries)
    total = sum(item.mean * (item.rows - item.unjudged) for item in summaries if item.rows > item.unjudged)
    reasons: dict[str, int] = {}
    for item in summaries:
        for reason, count in item.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return Summary(rows, unjudged, total / (rows - unjudged) if rows > unjudged else float("nan"), reasons)


def _windows(source: Path, size: int) -> Iterator[tuple[list[Line], int, int]]:
    held: list[Line] = []
    with open_raw(str(source)) as raw:
        compression = sniff_compression(raw.read(0, 16))
        number = 0
        at = 0
        try:
            for number, (offset, line, length) in enumerate(
                lines(decompressed(raw, f"jsonl.{compression}" if compression else "jsonl", 0), 0, MAX_LINE), 1
            ):
                held.append((number, line, f"the line has {length:,} bytes; {MAX_LINE:,} are read"))
                at = offset + length
                if len(held) == size:
                    yield held, min(at, raw.size), raw.size
                    held = []
        except Torn as torn:
            held.append((number + 1, None, f"the file is damaged from here on: {torn}"))
        yield held, raw.size, raw.size


class _Chunk(NamedTuple):
    """What one worker judges at a time; as a text, for the message about a worker that died, where it stands."""

    verifier: Verifier
    lines: list[Line]

    def __str__(self) -> str:
        return f"lines {self.lines[0][0]} to {self.lines[-1][0]}"


def _judge(chunk: _Chunk) -> tuple[str, Summary]:
    """Lines in, lines of verdicts out, with their summary."""
    verifier, told = chunk
    ids: list[Any] = []
    rows: list[dict[str, Any]] = []
    verdicts: list[Verdict | None] = []
    for number, line, why in told:
        row, trouble = _row(line, why)
        ids.append(number if row is None or row.get("id") is None or not _is_json(row["id"]) else row["id"])
        verdicts.append(None if row is not None else Verdict(None, "unreadable_row", {"line": number, "why": trouble}))
        if row is not None:
            rows.append(row)
    judged = iter(probed(verifier, rows))
    whole = [next(judged) if verdict is None else verdict for verdict in verdicts]
    text = "".join(
        json.dumps({"id": id, "score": said.score, "reason": said.reason, "evidence": said.evidence}) + "\n"
        for id, said in zip(ids, whole, strict=True)
    )
    return text, summarise(whole)


def _row(line: bytes | None, why: str) -> tuple[dict[str, Any] | None, str]:
    if line is None:
        return None, why
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"[:200]
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _deep(row):
        return None, f"more than {MAX_DEPTH} brackets stand in each other"
    if not isinstance(row, dict):
        return None, f"a JSON object is expected, not {type(row).__name__}"
    return row, ""


def _deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        boxes = [item for item in level if isinstance(item, dict | list)]
        level = [item for box in boxes for item in (box.values() if isinstance(box, dict) else box)]
    return bool(level)


def _is_json(value: Any) -> bool:
    """Whether a value that was read can be written as JSON: no NaN in it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
