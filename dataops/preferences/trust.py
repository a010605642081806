"""Which judgements count: the last word of a rater on an item, raters who are right often enough, the word of an
adjudicator, and what most probably is true.

All are views: they drop judgements, and copy nothing. The laws: a correction supersedes and the earlier word stays in
the ledger with the id of the later one; a rater or a word is dropped by a number that is in the ledger, and never where
too few votes or raters say too little.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Op, ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.preferences.judgements import NUMBERS, check_columns, item_name
from gristmill.dataops.preferences.raters import Family, estimate, votes
from gristmill.dataops.store import Corpus

_FAMILIES: tuple[Family, ...] = ("choice", "thumbs", "rating")
_RATERS = 3  # fewer, and the model cannot tell who is right


def numbers(dataset: Dataset) -> pl.DataFrame:
    """The judgements of a dataset without their texts, as agreement and raters want them."""
    return _told(dataset)[0].select(NUMBERS)


def _told(dataset: Dataset, *more: str) -> tuple[pl.DataFrame, int]:
    """The numbers of all judgements with `shard` and `row`, `more` columns where there are such, and how many shards
    there are."""
    names = dataset.schema().names
    check_columns(names, dataset.name)
    columns = [*NUMBERS, *(name for name in more if name in names)]
    frames = [positioned(shard, columns) for shard in dataset.shards()]
    return pl.concat([frame.with_columns(shard=pl.lit(n, pl.UInt32)) for n, frame in enumerate(frames)]), len(frames)


@op("judgements.latest", version=2, kind="corpus")
def latest(corpus: Corpus) -> list[pl.DataFrame]:
    """Drop what the same rater said before of the same item and aspect: "duplicate" where it is the same word,
    "superseded" where it is another; the evidence is the id of the word that stands. The last is the one of the latest
    `at`, then the last in order; words without a time come before those with one. Unnamed raters' judgements stay. An
    edit is of a reply to a prompt: what the same rater made of it later is another item, and supersedes it too.

    Rows with a `gold` answer ask about the rater and not about the replies: "gold_check". Where rows say themselves
    that they are `superseded`, those go without a word on which stands."""
    told, shards = _told(corpus.dataset, "superseded", "gold")
    stale = pl.col("superseded").fill_null(False) if "superseded" in told.columns else pl.lit(False)
    check = pl.col("gold").is_not_null() if "gold" in told.columns else pl.lit(False)
    told = _subjects(corpus.dataset, told).with_row_index("at_row").with_columns(stale=stale, check=check)
    said = told.filter(pl.col("value").is_not_null()).select("at_row", "replies", "value").explode("replies", "value")
    word = (
        said.sort("at_row", "replies").group_by("at_row", maintain_order=True).agg(word=pl.struct("replies", "value"))
    )
    told = told.join(word, on="at_row", how="left", maintain_order="left")
    who = ["subject", "rater", "kind", "aspect"]
    counts = pl.col("rater").is_not_null() & ~pl.col("stale") & ~pl.col("check")
    ordered = told.filter(counts).sort("at", nulls_last=False, maintain_order=True)
    last = ordered.unique(who, keep="last", maintain_order=True)
    last = last.select(*who, last="id", last_word="word", last_row="at_row")
    gone = ordered.join(last, on=who, how="left", nulls_equal=True).filter(pl.col("at_row") != pl.col("last_row"))
    gone = pl.concat([gone, told.filter(pl.col("stale") | pl.col("check"))], how="diagonal")
    same = pl.col("word").eq_missing(pl.col("last_word")) & pl.col("last").is_not_null()
    reason = (
        pl.when(pl.col("check")).then(pl.lit("gold_check"))
        .when(same).then(pl.lit("duplicate"))
        .otherwise(pl.lit("superseded"))
    )  # fmt: skip
    return _ledgers(gone, shards, reason=reason, evidence=pl.col("last").bin.encode("hex"))


def _subjects(dataset: Dataset, told: pl.DataFrame) -> pl.DataFrame:
    """With `subject`: the item, and of an edit the prompt and the reply that was edited."""
    told = told.with_columns(subject=pl.col("item"))
    edits = told.filter(pl.col("kind") == "edit").select("shard", "row", first=pl.col("replies").list.first())
    if not edits.height or "prompt" not in dataset.schema().names:
        return told
    found = []
    for number, part in ((int(part["shard"][0]), part) for part in edits.partition_by("shard")):
        prompts = positioned(dataset.shards()[number], ["prompt"])
        of = part.join(prompts, on="row", how="left")
        names = zip(of["prompt"].to_list(), of["first"].to_list(), strict=True)
        edited = [item_name(prompt, [reply]) for prompt, reply in names]
        found.append(of.select("shard", "row", edited=pl.Series(edited, dtype=pl.Binary)))
    told = told.join(pl.concat(found), on=["shard", "row"], how="left", maintain_order="left")
    return told.with_columns(subject=pl.coalesce("edited", "subject")).drop("edited")


def trusted(*, min_accuracy: float, min_votes: int = 20, adjudicators: Sequence[str] = ()) -> Op:
    """`judgements.trusted`. Raises InputError for an accuracy that is none."""
    if not 0 < min_accuracy <= 1 or min_votes < 1:
        raise InputError(
            f"min_accuracy is above 0 and at most 1, min_votes at least 1; not {min_accuracy} and {min_votes}"
        )
    return judgements_trusted(
        min_accuracy=float(min_accuracy), min_votes=min_votes, adjudicators=sorted(set(adjudicators))
    )


@op("judgements.trusted", version=2, kind="corpus")
def judgements_trusted(
    corpus: Corpus, *, min_accuracy: float, min_votes: int, adjudicators: Sequence[str]
) -> list[pl.DataFrame]:
    """Drop the judgements of raters whose estimated accuracy (see raters) is below `min_accuracy`: "untrusted_rater".

    Choices, thumbs and ratings are each estimated by themselves, from raters with `min_votes` of them or more dropped;
    with fewer than three raters nobody is, and `adjudicators` never are.
    """
    told, shards = _told(corpus.dataset)
    gone = [told.clear().with_columns(accuracy=pl.lit(None, pl.Float64))]
    corpus.stats |= {"raters": told["rater"].drop_nulls().n_unique()}
    for family in _FAMILIES:
        cast = votes(told, family)
        if cast["rater"].drop_nulls().n_unique() < _RATERS:
            continue
        raters = estimate(cast).raters
        poor = raters.filter((pl.col("accuracy") < min_accuracy) & (pl.col("votes") >= min_votes))
        poor = poor.filter(~pl.col("rater").is_in(list(adjudicators)))
        of = told.filter(_family() == family)
        gone.append(of.join(poor.select("rater", "accuracy"), on="rater", how="inner"))
        corpus.stats |= {f"untrusted_{family}": poor.height}
    return _ledgers(
        pl.concat(gone), shards, reason=pl.lit("untrusted_rater"), value=pl.col("accuracy"),
        threshold=pl.lit(min_accuracy), evidence=pl.col("rater"),
    )  # fmt: skip


def settled(*, adjudicators: Sequence[str]) -> Op:
    """`judgements.settled`. Raises InputError without an adjudicator."""
    if not adjudicators or isinstance(adjudicators, str):
        raise InputError(f"adjudicators is a list of raters' names, not {adjudicators!r}")
    return judgements_settled(adjudicators=sorted(adjudicators))


@op("judgements.settled", version=1, kind="corpus")
def judgements_settled(corpus: Corpus, *, adjudicators: Sequence[str]) -> list[pl.DataFrame]:
    """Of an item that an adjudicator judged, drop what the others said in the same way: "adjudicated". An adjudicator
    who could not judge settles nothing."""
    told, shards = _told(corpus.dataset)
    way = ["item", "kind", "aspect"]
    theirs = pl.col("rater").is_in(list(adjudicators)).fill_null(False)
    final = told.filter(theirs & pl.col("value").is_not_null()).unique(way, keep="last", maintain_order=True)
    corpus.stats |= {"settled": final.height}
    gone = told.filter(~theirs).join(final.select(*way, final="id"), on=way, how="inner", nulls_equal=True)
    return _ledgers(gone, shards, reason=pl.lit("adjudicated"), evidence=pl.col("final").bin.encode("hex"))


def agreed(*, min_probability: float = 0.9, adjudicators: Sequence[str] = ()) -> Op:
    """`judgements.agreed`. Raises InputError for a probability that is none."""
    if not 0.5 <= min_probability < 1:
        raise InputError(f"min_probability is from 0.5 to below 1, not {min_probability}")
    return judgements_agreed(min_probability=float(min_probability), adjudicators=sorted(set(adjudicators)))


@op("judgements.agreed", version=2, kind="corpus")
def judgements_agreed(corpus: Corpus, *, min_probability: float, adjudicators: Sequence[str]) -> list[pl.DataFrame]:
    """Of pairs and thumbs, keep what is most probably true (see raters): drop judgements of items of whose label
    the model is less sure ("unsure"), and those that say otherwise ("overruled"); `value` is the label's probability.

    Rankings, ratings, edits, nulls, unnamed raters' judgements and those of `adjudicators` stay, and all do with fewer
    than three raters.
    """
    told, shards = _told(corpus.dataset)
    single = told.filter(pl.col("kind") != "ranking")
    gone = [told.clear().with_columns(probability=pl.lit(None, pl.Float64), reason=pl.lit(None, pl.String))]
    for family in ("choice", "thumbs"):
        cast = votes(single, "choice" if family == "choice" else "thumbs")
        if cast["rater"].drop_nulls().n_unique() < _RATERS:
            continue
        units = estimate(cast).units.select("unit", "probability", true="label")
        held = cast.filter(pl.col("rater").is_not_null()).join(units, on="unit")
        reason = (
            pl.when(pl.col("probability") < min_probability)
            .then(pl.lit("unsure"))
            .when(pl.col("label") != pl.col("true"))
            .then(pl.lit("overruled"))
        )
        open_to_doubt = pl.col("reason").is_not_null() & ~pl.col("rater").is_in(list(adjudicators))
        poor = held.with_columns(reason=reason).filter(open_to_doubt)
        gone.append(told.join(poor.select("id", "probability", "reason"), on="id", how="inner"))
    return _ledgers(
        pl.concat(gone), shards, reason=pl.col("reason"), value=pl.col("probability"), threshold=pl.lit(min_probability)
    )


def _family() -> pl.Expr:
    choice = pl.col("kind").is_in(["pairwise", "ranking"])
    return pl.when(choice).then(pl.lit("choice")).otherwise(pl.col("kind"))


def _ledgers(gone: pl.DataFrame, shards: int, **columns: pl.Expr) -> list[pl.DataFrame]:
    """One ledger per shard."""
    made = []
    for number in range(shards):
        part = gone.filter(pl.col("shard") == number).sort("row")
        made.append(ledger(part, **{"value": None, **columns}))
    return made
