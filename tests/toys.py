"""Small ops for tests of the store: numbers as rows. In a module of its own, so that spawned workers find them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl

from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, above, first_reason, keep, ledger, op
from gristmill.dataops.store import Corpus, Task


def _plan(inputs, building, workers, *, rows, parts_context):
    cuts = [rows * i // parts_context for i in range(parts_context + 1)]
    return [Task((a, b), b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


@op("toy.numbers", version=1, kind="source", plan=_plan)
def numbers(task, *, rows: int, parts_context: int = 1):
    """Rows 0 .. rows - 1; every seventh is dropped on reading."""
    frame = pl.DataFrame({"n": range(*task)}, schema={"n": pl.Int64})
    frame = frame.with_columns(id=pl.Series([row_id(str(n)) for n in frame["n"]], dtype=pl.Binary)).select("id", "n")
    seventh = (frame["n"] % 7) == 6
    yield Split(frame.filter(~seventh), ledger(frame.filter(seventh), reason="seventh"))


@op("toy.square", version=1)
def square(frame: pl.DataFrame, *, marks_context: str | None = None, wait_context: float = 0.0) -> pl.DataFrame:
    """Adds a column; leaves a mark per batch where told, so that a test can count what was computed."""
    if marks_context is not None:
        Path(marks_context, f"{frame['n'].min()}-{os.getpid()}-{time.time_ns()}").touch()
    time.sleep(wait_context)
    return frame.with_columns(square=pl.col("n") ** 2)


@op("toy.loses", version=1)
def loses(frame: pl.DataFrame) -> pl.DataFrame:
    """Breaks the law: a row goes without a word."""
    return frame.filter(pl.col("n") != 3)


@op("toy.doubles", version=1)
def doubles(frame: pl.DataFrame) -> pl.DataFrame:
    """Breaks the law: a row comes twice."""
    return pl.concat([frame, frame.head(1)])


@op("toy.dies", version=1)
def dies(frame: pl.DataFrame, *, at: int, only_once_context: str | None = None) -> pl.DataFrame:
    """Ends its process when it meets a row, as a crash in a C library would."""
    if at in frame["n"]:
        if only_once_context is None:
            os._exit(139)
        if not Path(only_once_context).exists():
            Path(only_once_context).touch()
            os._exit(139)
    return frame


@keep("toy.small", version=1)
def small(*, limit: float = 50):
    """Keeps what is not above the limit."""
    return first_reason(too_big=above(pl.col("n"), limit), far_too_big=above(pl.col("n"), limit * 100))


@op("toy.odd", version=1, kind="corpus")
def odd(corpus: Corpus) -> list[pl.DataFrame]:
    """Drops even numbers, as a corpus op does: a ledger frame per shard."""
    from gristmill.dataops.passes import positioned

    frames = [positioned(shard, ["id", "n"]) for shard in corpus.dataset.shards()]
    return [ledger(frame.filter(pl.col("n") % 2 == 0), reason="even", value=pl.col("n")) for frame in frames]
