"""Judgements into preference pairs: who is preferred to whom, by how much, and by which judgements.

Of each item the differences between two replies are averaged over all raters who judged both, each with one voice:
strengths, ranks and scores alike, each kind of judgement by itself. A pair is made where the mean is above zero and
more prefer one than call it a tie, by one of three policies:

    best_worst    the two furthest apart of those that somebody compared
    best_random   the best against one drawn from those that it beats (Tunstall et al. 2023, Zephyr, 3)
    all           every two

The laws: chosen and rejected differ in their content; a tie is no preference; what nobody judged makes no pair; each
judgement is a source of a pair or in the ledger with a reason. `margin` is the mean difference: in strengths, ranks or
points. The order in which replies were shown, and rows come, moves nothing but the order of the pairs.

Reasons: "unjudged", "other_kind" (a thumb), "other_aspect", "one_reply" (fewer than two were judged), "equal" (all have
the same content), "tie", "below_margin". Not covered: pairs across items of one prompt, as of a liked and a disliked
reply, which two people may have judged for different reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from gristmill.dataops.chat.messages import MESSAGES
from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.identity import mix64, row_id
from gristmill.dataops.op import Op, Split, ledger, op
from gristmill.dataops.preferences.judgements import check_columns
from gristmill.dataops.store import Task

Policy = Literal["best_worst", "best_random", "all"]
_ROWS = 1 << 16  # judgements of a task, about: what is in memory at once
_PLACES = 9  # decimals of a margin: a mean of strengths that cancel is a tie
_TEXTS = ("id", "item", "prompt", "responses", "tools", "replies")
#: A pair as chat/shapes.py has it, with where it comes from: `votes` of raters, `agree` the share that prefers so.
PAIR: dict[str, pl.DataType] = {
    "id": pl.Binary(),
    "sources": pl.List(pl.Binary()),
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "margin": pl.Float64(),
    "tools": pl.String(),
    "item": pl.Binary(),
    "kind": pl.String(),
    "votes": pl.UInt32(),
    "agree": pl.Float64(),
}


def make_pairs(
    *, policy: Policy = "best_worst", min_margin: float = 0.0, aspects: Sequence[str] = (), seed: int = 0
) -> Op:
    """`pairs.make`. Pairs below `min_margin` are left out; of ratings those of the whole count, or of the named
    `aspects` their mean; `seed` is best_random's. Raises InputError for what cannot be."""
    if policy not in get_args(Policy):
        raise InputError(f"no policy {policy!r}; there are: {', '.join(get_args(Policy))}")
    if not 0 <= min_margin < float("inf"):
        raise InputError(f"min_margin is {min_margin}; give 0 or more")
    if isinstance(aspects, str):
        raise InputError(f"aspects is a list of names, not the text {aspects!r}")
    if seed and policy != "best_random":
        raise InputError(f"seed is of best_random: leave it out for {policy}")
    return pairs_make(policy=policy, min_margin=float(min_margin), aspects=sorted(set(aspects)), seed=seed)


def plan(inputs: Sequence[Dataset], _: Path, __: int, **___: Any) -> list[Task]:
    """Tasks of whole items, cut by their names and the number of rows alone."""
    shards = inputs[0].shards()
    if shards:
        check_columns(inputs[0].schema().names, inputs[0].name)
    items = [shard.read(["item"])["item"].to_pylist() for shard in shards]
    parts = max(-(-sum(map(len, items)) // _ROWS), 1)
    counts = np.zeros(parts, np.int64)
    for found in items:
        counts += np.bincount(_part(found, parts), minlength=parts)
    return [Task((shards, part, parts), int(count)) for part, count in enumerate(counts)]


def rows_of(task: tuple[Sequence[Shard], int, int]) -> pl.DataFrame:
    """The judgements of a task, in the order of the dataset."""
    shards, part, parts = task
    found = []
    for shard in shards:
        table = shard.read()
        found.append(pl.DataFrame(table).filter(pl.Series(_part(table["item"].to_pylist(), parts) == part)))
    return pl.concat(found)


def _part(items: Sequence[bytes], parts: int) -> np.ndarray:
    return np.array([int.from_bytes(item[:8], "little") % parts for item in items], dtype=np.int64)


@op("pairs.make", version=1, kind="source", plan=plan)
def pairs_make(
    task: tuple[Sequence[Shard], int, int], *, policy: str, min_margin: float, aspects: Sequence[str], seed: int
) -> Iterator[Split]:
    """Rows of `PAIR` out of judgements."""
    if not task[0]:
        yield Split(pl.DataFrame(schema=PAIR), ledger(), 0)
        return
    yield paired(rows_of(task), policy=policy, min_margin=min_margin, aspects=aspects, seed=seed)


def paired(judged: pl.DataFrame, *, policy: str, min_margin: float, aspects: Sequence[str], seed: int) -> Split:
    """The pairs of judgements in memory (see `make_pairs`), and the ledger of those that make none."""
    used, drops = _used(judged, aspects)
    margins = _margins(used)
    chosen = _chosen(margins, policy, min_margin, seed)
    found = used.join(chosen.select("item", "kind").unique(), on=["item", "kind"], how="semi")
    missed = used.join(found.select("id"), on="id", how="anti")
    drops.append(_missed(missed, margins, min_margin))
    sources = found.group_by("item", "kind", maintain_order=True).agg(sources=pl.col("id"))
    made = sources.join(chosen, on=["item", "kind"], how="inner", maintain_order="left_right")
    return Split(_with_texts(made, judged), pl.concat(drops), judged.height, {"pairs": made.height})


def _used(judged: pl.DataFrame, aspects: Sequence[str]) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """The judgements that count, and the ledger of the others."""
    aspect = pl.col("aspect").is_in(list(aspects)) if aspects else pl.col("aspect").is_null()
    reason = (
        pl.when(pl.col("kind") == "thumbs").then(pl.lit("other_kind"))
        .when((pl.col("kind") == "rating") & ~aspect.fill_null(False)).then(pl.lit("other_aspect"))
        .when(pl.col("value").is_null()).then(pl.lit("unjudged"))
    )  # fmt: skip
    told = judged.select("id", "item", "kind", "aspect", "rater", "replies", "value").with_columns(reason=reason)
    gone = told.filter(pl.col("reason").is_not_null())
    evidence = pl.when(pl.col("reason") == "other_aspect").then(pl.col("aspect"))
    return told.filter(pl.col("reason").is_null()), [
        ledger(gone, reason=pl.col("reason"), value=None, evidence=evidence)
    ]


def _margins(used: pl.DataFrame) -> pl.DataFrame:
    """item, kind, better, worse, margin (above or at 0), votes, agree: of every two replies that somebody judged."""
    score = pl.when(pl.col("kind") == "ranking").then(-pl.col("value")).otherwise(pl.col("value"))
    # who is not named speaks in each judgement as somebody else, but for the aspects of one rating
    alone = pl.when(pl.col("aspect").is_null()).then(pl.col("id").bin.encode("hex")).otherwise(pl.lit(""))
    long = (
        used.select("id", "item", "kind", "replies", "value", voter=pl.coalesce("rater", alone))
        .explode("replies", "value")
        .drop_nulls("value")
        .group_by("id", "item", "kind", "voter", "replies")
        .agg(score=score.mean())
    )
    both = long.join(long.select("id", "replies", "score"), on="id", suffix="_two").filter(
        pl.col("replies") < pl.col("replies_two")
    )
    two = ["item", "kind", "replies", "replies_two"]
    gap = pl.col("gap").mean().round(_PLACES)
    told = (
        both.with_columns(gap=pl.col("score") - pl.col("score_two"))
        .sort("id")  # sums of floats in one order
        .group_by(*two, "voter", maintain_order=True)
        .agg(gap)
        .group_by(two)
        .agg(gap, votes=pl.len(), over=(pl.col("gap") > 0).mean(), under=(pl.col("gap") < 0).mean())
    )
    tied = 1 - pl.col("over") - pl.col("under")
    told = told.with_columns(
        gap=pl.when(tied < pl.max_horizontal("over", "under") - 1e-9).then(pl.col("gap")).otherwise(0.0)
    )
    first = pl.col("gap") >= 0
    return told.select(
        "item",
        "kind",
        pl.when(first).then(pl.col("replies")).otherwise(pl.col("replies_two")).alias("better"),
        pl.when(first).then(pl.col("replies_two")).otherwise(pl.col("replies")).alias("worse"),
        pl.col("gap").abs().alias("margin"),
        "votes",
        pl.when(first).then(pl.col("over")).otherwise(pl.col("under")).alias("agree"),
    )


def _chosen(margins: pl.DataFrame, policy: str, min_margin: float, seed: int) -> pl.DataFrame:
    """The rows of `margins` that become pairs."""
    by = ["item", "kind"]
    sure = margins.filter((pl.col("margin") > 0) & (pl.col("margin") >= min_margin))
    if policy == "all":
        return sure.sort(*by, "margin", "better", "worse", descending=[False, False, True, False, False])
    halves = [
        margins.select(*by, reply=pl.col(side), score=sign * pl.col("margin"))
        for side, sign in (("better", 1.0), ("worse", -1.0))
    ]
    scores = pl.concat(halves).sort(*by, "reply", "score").group_by(*by, "reply").agg(pl.col("score").mean())
    for side in ("better", "worse"):
        renamed = scores.rename({"reply": side, "score": f"{side}_score"})
        sure = sure.join(renamed, on=[*by, side], how="left")
    apart = (pl.col("better_score") - pl.col("worse_score")).round(_PLACES).alias("apart")
    sure = sure.with_columns(apart).filter(pl.col("apart") > 0)
    if policy == "best_worst":
        order, falling = ["apart", "margin", "better", "worse"], [True, True, False, False]
    else:
        sure = sure.with_columns(drawn=_draws(sure, seed))
        order, falling = ["better_score", "better", "drawn", "worse"], [True, False, False, False]
    ranked = sure.sort(*by, *order, descending=[False, False, *falling])
    return ranked.unique(by, keep="first", maintain_order=True).select(margins.columns)


def _draws(sure: pl.DataFrame, seed: int) -> pl.Series:
    """A number per row that follows from the item, the worse reply and the seed alone."""
    words = [
        np.array([int.from_bytes(name[:8], "little") for name in sure[column].to_list()], dtype=np.uint64)
        for column in ("item", "worse")
    ]
    start = mix64(np.array([seed & ((1 << 64) - 1)], dtype=np.uint64))
    return pl.Series(mix64(mix64(words[0] ^ start) ^ words[1]), dtype=pl.UInt64)


def _missed(missed: pl.DataFrame, margins: pl.DataFrame, min_margin: float) -> pl.DataFrame:
    """The ledger of judgements whose item made no pair."""
    most = margins.group_by("item", "kind").agg(most=pl.col("margin").max())
    told = missed.join(most, on=["item", "kind"], how="left")
    alike = pl.col("replies").list.n_unique() < 2
    below = (pl.col("most") > 0) & (pl.col("most") < min_margin)
    reason = (
        pl.when(alike).then(pl.lit("equal"))
        .when(pl.col("most").is_null()).then(pl.lit("one_reply"))
        .when(below).then(pl.lit("below_margin"))
        .otherwise(pl.lit("tie"))
    )  # fmt: skip
    return ledger(told, reason=reason, value=pl.col("most"), threshold=pl.when(below).then(pl.lit(min_margin)))


def _with_texts(made: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """Rows of `PAIR`: the texts are those of the item's first judgement."""
    first = judged.select(_TEXTS).unique("item", keep="first", maintain_order=True)
    said = first.select("item", "replies", "responses").explode("replies", "responses")
    said = said.unique(["item", "replies"], keep="first", maintain_order=True)
    rows = made.join(first.select("item", "prompt", "tools"), on="item", how="left", maintain_order="left")
    for side, name in (("better", "chosen"), ("worse", "rejected")):
        renamed = said.select("item", pl.col("replies").alias(side), pl.concat_list("responses").alias(name))
        rows = rows.join(renamed, on=["item", side], how="left", maintain_order="left")
    names = zip(*(rows[name].to_list() for name in ("item", "kind", "better", "worse", "sources")), strict=True)
    ids = [row_id("pairs.make", item, kind, one, two, *sources) for item, kind, one, two, sources in names]
    return rows.with_columns(pl.Series("id", ids, dtype=pl.Binary)).select(
        pl.col(name).cast(kind) for name, kind in PAIR.items()
    )
