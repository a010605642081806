"""Judgements of several datasets as one: batches of several queues, what judges said, files read in several formats.

The laws: every judgement of an input is a row or in the ledger; one that stands in several inputs is one row, that of
the first ("duplicate"). Ids stay as they are, so that a pair names the judgement that somebody gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.preferences.judgements import JUDGEMENT, check_columns
from gristmill.dataops.store import Store, Task

#: Of what some inputs know beside a judgement, what decides whether it counts (`latest`) and where it comes from.
GATHERED: dict[str, Any] = JUDGEMENT | {
    "gold": pl.String(),
    "superseded": pl.Boolean(),
    "sources": pl.List(pl.Binary()),
}


def gather(store: Store, name: str, judged: Sequence[Dataset]) -> Dataset:
    """The judgements of all these datasets; of one alone, itself. Raises InputError for rows that are none."""
    inputs = list({item.digest: item for item in judged}.values())
    if not inputs:
        raise InputError("no judgements are given: name files or datasets of them")
    for item in inputs:
        if item.kind not in ("rows", "view"):
            raise InputError(f"{item.name} is of kind {item.kind} and holds no judgements")
        if item.rows:
            check_columns(item.schema().names, item.name)
    told = ", ".join(item.name for item in inputs)
    inputs = [item for item in inputs if item.rows]
    if not inputs:
        raise InputError(f"{told}: there is no judgement in it")
    return inputs[0] if len(inputs) == 1 else store.build(name, judgements_gather(), inputs)


def examples(judged: Sequence[Dataset]) -> list[dict[str, str]]:
    """Of each reason for which records of files make no judgement the first one: its reason, its file and what was
    seen, from "record 7: " on; the commonest first."""
    found = [item.ledger().filter(pl.col("warc").is_not_null()) for item in judged if not item.inputs]
    if not found:
        return []
    gone = pl.concat([one.select("reason", "warc", "evidence") for one in found])
    first = gone.group_by("reason", maintain_order=True).agg(pl.len(), pl.all().first())
    told = first.sort("len", descending=True, maintain_order=True).drop("len").rename({"warc": "file"}).collect()
    return told.rename({"evidence": "why"}).to_dicts()


def _plan(inputs: Sequence[Dataset], _: Path, __: int) -> list[Task]:
    """A task per shard, with the places of the judgements that stood in an input before."""
    shards = [(number, shard) for number, item in enumerate(inputs) for shard in item.shards()]
    ids = pl.concat(
        [
            pl.DataFrame(shard.read(["id"])).select("id", input=pl.lit(number), shard=pl.lit(place))
            for place, (number, shard) in enumerate(shards)
        ]
    )
    again = ids.select("shard", again=(pl.col("input") != pl.col("input").first().over("id")))
    marks = [part["again"].to_numpy() for part in again.partition_by("shard", maintain_order=True)]
    places = [place for place, (_, shard) in enumerate(shards) if shard.kept]
    known = dict(zip(places, marks, strict=True))
    return [Task((shard, known.get(place)), shard.kept) for place, (_, shard) in enumerate(shards)]


@op("judgements.gather", version=1, kind="source", plan=_plan)
def judgements_gather(task: tuple[Shard, np.ndarray | None]) -> Iterator[Split]:
    """Rows of `GATHERED`."""
    shard, again = task
    rows = pl.DataFrame(shard.read())
    told = rows.select(
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in GATHERED.items()
    )
    known = pl.Series(np.zeros(rows.height, bool) if again is None else again, dtype=pl.Boolean)
    yield Split(told.filter(~known), ledger(told.filter(known).select("id"), reason="duplicate"), rows.height)
