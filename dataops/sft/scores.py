"""Choosing rows by what something says of them: a verifier, a judge, a reward model, perplexities. By columns alone.

Whoever scores adds a column ("verify" a verdict, a reward model or a language model a number), and these ops choose:
by a threshold (`within`), by a verdict with its reason (`judged`), or the N best (`top`). A field of a struct is named
with a point: "verdict.score".

The law: a row that was not judged (null, NaN) passes every threshold, and is never among the best: `top` drops it as
`unjudged`, for a null is no low score.

Instruction-following difficulty (Li et al. 2024, "From Quantity to Quality"; as a ratio of perplexities in their
"Superfiltering") says how much the instruction helps to guess the answer. Both perplexities come from one model, as
columns: the n-gram model of `learned.perplexity` sees a few words back and not the instruction, so it cannot serve.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Rule, Split, above, below, first_reason, keep, ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus

_SHOWN = 400  # characters of a verdict's evidence


@op("sft.ifd", version=1)
def ifd(
    frame: pl.DataFrame, *, given: str = "perplexity_given_prompt", alone: str = "perplexity", column: str = "ifd"
) -> pl.DataFrame:
    """Add `column` (Float64): the answer's perplexity after its instruction, `given`, over that without, `alone`.

    From 1 on the instruction is of no help: the two do not belong together (drop by `within(column="ifd",
    max_score=1.0)`); of the rest the highest have most to teach. Null where one is missing, not finite or not positive.
    Raises InputError for columns that are missing, and where `column` is there already.
    """
    for name in (given, alone):
        if name not in frame.columns or not frame.schema[name].is_numeric():
            raise InputError(f"sft.ifd: no numeric column {name!r}: have a language model score the answers first")
    if column in frame.columns:
        raise InputError(f"sft.ifd: there is a column {column!r} already: give the ratio another name")
    usable = pl.all_horizontal(pl.col(name).is_finite() & (pl.col(name) > 0) for name in (given, alone))
    ratio = pl.col(given).cast(pl.Float64) / pl.col(alone).cast(pl.Float64)
    return frame.with_columns(pl.when(usable).then(ratio).alias(column))


@keep("sft.within", version=1)
def within(*, column: str, min_score: float | None = None, max_score: float | None = None) -> dict[str, Rule]:
    """Keep rows whose `column` is neither below the one limit (`score_too_low`) nor above the other (`score_too_high`);
    None sets none."""
    rules = {
        "score_too_low": None if min_score is None else below(number(column), min_score),
        "score_too_high": None if max_score is None else above(number(column), max_score),
    }
    return first_reason(**{name: rule for name, rule in rules.items() if rule is not None})


@op("sft.judged", version=1)
def judged(
    frame: pl.DataFrame, *, column: str = "verdict", min_score: float | None = None, max_score: float | None = None
) -> Split:
    """Drop rows by the verdicts that "verify" made; their own reasons and evidence go to the ledger.

    "safety.refusal" scores 1 what refuses: `judged(max_score=0.5)` drops it as `refused`. "safety.toxicity" scores 0
    what is toxic: `judged(column="toxicity", min_score=0.5)`. Raises InputError for a column that holds no verdicts.
    """
    kind = frame.schema.get(column)
    if not isinstance(kind, pl.Struct) or not {"score", "reason", "evidence"} <= {field.name for field in kind.fields}:
        raise InputError(f"sft.judged: no column {column!r} of verdicts; there are: {', '.join(frame.columns)}")
    if min_score is None and max_score is None:
        raise InputError("sft.judged: without min_score or max_score nothing is chosen")
    score = number(f"{column}.score")
    low = pl.lit(False) if min_score is None else score < min_score
    high = pl.lit(False) if max_score is None else score > max_score
    fails = (low | high).fill_null(False)
    gone = frame.select(
        "id",
        reason=pl.col(column).struct.field("reason").fill_null("judged"),
        value=score,
        threshold=pl.when(low).then(pl.lit(min_score, pl.Float64)).otherwise(pl.lit(max_score, pl.Float64)),
        evidence=pl.col(column).struct.field("evidence").str.head(_SHOWN),
        fails=fails,
    ).filter("fails")
    return Split(frame.filter(~fails), ledger(gone))


@op("sft.top", version=1, kind="corpus")
def top(corpus: Corpus, *, rows: int, column: str, highest: bool = True) -> list[pl.DataFrame]:
    """Keep the `rows` rows with the highest (or lowest) `column`, of equal ones those with the lower ids.

    Ledger: `not_among_the_best` with the row's score and the worst that stays, `unjudged` without. Raises InputError
    for a column that is missing or no number.
    """
    frames = scored(corpus.dataset, column)
    if rows < 1:
        raise InputError(f"sft.top keeps at least 1 row, not {rows}")
    every = pl.concat(
        [frame.with_columns(shard=pl.lit(n, pl.UInt32)) for n, frame in enumerate(frames)] or [_nothing()]
    )
    fit = every.drop_nulls("score").sort(["score", "id"], descending=[highest, False])
    stay = fit.head(rows)
    limit = stay["score"][-1] if stay.height else None
    corpus.stats |= {"kept": stay.height, "limit": limit, "unjudged": every.height - fit.height}
    lost = pl.concat([fit.slice(rows), every.filter(pl.col("score").is_null())]).sort("shard", "row")
    reason = pl.when(pl.col("score").is_null()).then(pl.lit("unjudged")).otherwise(pl.lit("not_among_the_best"))
    threshold = pl.when(pl.col("score").is_not_null()).then(pl.lit(limit, pl.Float64))
    return [
        ledger(lost.filter(pl.col("shard") == n), reason=reason, value=pl.col("score"), threshold=threshold)
        for n in range(len(frames))
    ]


def number(column: str) -> pl.Expr:
    """The numbers of a column, or of a struct's field ("verdict.score"), NaN as null; Float64."""
    base, _, field = column.partition(".")
    found = pl.col(base).struct.field(field) if field else pl.col(base)
    return found.cast(pl.Float64).fill_nan(None)


def scored(dataset: Dataset, column: str) -> list[pl.DataFrame]:
    """`row`, `id` and the numbers of a column as `score`, by shard. Raises InputError where they are none."""
    base = column.partition(".")[0]
    have = dict(dataset.base.manifest["schema"])
    if base not in have:
        raise InputError(f"{dataset.name} has no column {base!r} to choose by; it has: {', '.join(have)}")
    try:
        return [positioned(shard, ["id", base]).select("row", "id", score=number(column)) for shard in dataset.shards()]
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{column!r} of {dataset.name} is no number, but {have[base]}: {error}") from None


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(schema={"row": pl.UInt32, "id": pl.Binary, "score": pl.Float64, "shard": pl.UInt32})
