"""The judgements that pairs were made from: what each rater says of each pair, and whether the place of a reply counts.

Pairs name their judgements as `sources`; the dataset of these stands among the inputs. A judgement speaks of a pair
where both its replies are among those that were judged; it prefers one, or ties. The law: what was not judged counts
nowhere.

Not covered: the order in which replies were shown where a source sorted them before it was exported.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.noise.pairs import SIDES, keyed

_NEEDED = {"id", "responses", "rater", "kind", "value"}


def judged(dataset: Dataset) -> pl.DataFrame | None:
    """Per pair and rater: `id` of the pair, `rater`, `says` (1 for the chosen reply, 0 for a tie, -1 for the other) and
    `first` (whether the chosen reply was shown before the other). None where no judgements are found.

    What a rater says of several aspects is taken together; a judgement without a rater is a rater of its own."""
    found = _judgements(dataset)
    schema = dataset.schema()
    if found is None or "sources" not in schema.names:
        return None
    # Of one message each, as judged replies are.
    sides = [pl.col(side).list.eval(keyed(schema, side)).list.join("").alias(side) for side in SIDES[1:]]
    pairs = dataset.scan().select("id", "sources", *sides).explode("sources").rename({"sources": "judgement"})
    rows = found.scan().select(
        pl.col("id").alias("judgement"), "rater", "kind", "value",
        pl.col("responses").list.eval(keyed(found.schema(), "responses")).alias("shown"),
    )  # fmt: skip
    both = pairs.join(rows, on="judgement", how="inner").drop_nulls("value").collect()
    place = [_place(both["shown"], both[side]) for side in SIDES[1:]]
    both = both.with_columns(c=place[0], r=place[1]).drop_nulls(["c", "r"])
    if not both.height:
        return None
    value = [pl.col("value").list.get(pl.col(side), null_on_oob=True) for side in "cr"]
    better = (value[0] - value[1]) * pl.when(pl.col("kind") == "ranking").then(-1).otherwise(1)
    named = pl.coalesce("rater", pl.col("judgement").bin.encode("hex"))
    told = both.select("id", rater=named, better=better, first=pl.col("c") < pl.col("r")).drop_nulls("better")
    return (
        told.group_by("id", "rater")
        .agg(says=pl.col("better").mean().round(9).sign().cast(pl.Int8), first=pl.col("first").first())
        .sort("id", "rater")
    )


def _place(shown: pl.Series, side: pl.Series) -> pl.Series:
    """Where a text stands in its list first; null where it does not."""
    frame = pl.DataFrame({"shown": shown, "side": side}).with_row_index("n")
    hit = frame.explode("shown", empty_as_null=True).with_columns(at=pl.int_range(pl.len()).over("n"))
    first = hit.filter(pl.col("shown") == pl.col("side")).group_by("n").agg(pl.col("at").min())
    return frame.join(first, on="n", how="left", maintain_order="left")["at"]


def _judgements(dataset: Dataset) -> Dataset | None:
    """The nearest dataset of judgements among all that this one was made from."""
    waiting = [dataset]
    while waiting:
        item = waiting.pop(0)
        holds_rows = item is not dataset and item.kind in ("rows", "view") and item.rows
        if holds_rows and set(item.schema().names) >= _NEEDED:
            return item
        for number in range(len(item.manifest.get("inputs") or [])):
            try:
                waiting.append(item.input(number))
            except InputError:
                continue  # removed since: its rows cannot be asked
    return None
