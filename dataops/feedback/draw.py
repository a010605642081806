"""Which prompts the next round asks: a part of them, another one each round.

Prompts are put in the order of a hash of their ids, and round n takes the n-th run of `count` of them, from the start
again after the last. The laws: no prompt comes twice before all have come once; which come follows from the prompts
and the round alone, not from shards or order. Not covered: prompts that were added between two rounds move the runs.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import InputError
from gristmill.dataops.identity import row_hashes
from gristmill.dataops.op import Op, ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus


def draw(*, count: int, part: int) -> Op:
    """`feedback.draw`: the `part`-th run, from 0, of `count` rows. Raises InputError for numbers that are none."""
    if count < 1 or part < 0:
        raise InputError(f"count is 1 or more and part 0 or more, not {count} and {part}")
    return feedback_draw(count=count, part=part)


@op("feedback.draw", version=1, kind="corpus")
def feedback_draw(corpus: Corpus, *, count: int, part: int) -> list[pl.DataFrame]:
    """Drop what is not in the run ("not_drawn"); all rows stay where there are `count` or fewer."""
    shards = [positioned(shard, ["id"]) for shard in corpus.dataset.shards()]
    ids = pl.concat([frame["id"].bin.encode("hex") for frame in shards])
    place = np.empty(len(ids), dtype=np.int64)
    place[np.lexsort(row_hashes(pa.table({"id": ids.to_arrow()})).T)] = np.arange(len(ids))
    kept = (place - part * count) % max(1, len(ids)) < count
    made, start = [], 0
    for frame in shards:
        gone = ~kept[start : start + frame.height]
        start += frame.height
        made.append(ledger(frame.filter(pl.Series(gone, dtype=pl.Boolean)).select("id", "row"), reason="not_drawn"))
    return made
