"""Raters: how far they agree, how good each is, and which items somebody should look at again.

Judgements become votes: of two replies which one is better ("choice": of pairs and rankings), whether one is liked
("thumbs"), or a score ("rating"). Agreement counts votes; Dawid and Skene's model (1979: every unit has one true label,
every rater a confusion matrix) says without any gold label what the true ones probably are, and so how often each rater
is right.

The laws: a judgement that is null is no vote; a rater votes once on a unit, the last time; the same replies shown in
another order are the same unit; the names of raters move nothing; where chance leaves no room to disagree, or nobody
voted twice, a coefficient is None and never 1. Votes without a rater are left out, and counted. An edit is no vote:
nobody else judged what it made.

Sources: Fleiss 1971; Krippendorff 2011; Dawid and Skene 1979. Not covered: items of different difficulty, raters who
copy from each other, intervals (verifiers/agreement has them) and scales in which near is nearly right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from gristmill.dataops.dataset import InputError

Family = Literal["choice", "thumbs", "rating"]
_KINDS = {"choice": ("pairwise", "ranking"), "thumbs": ("thumbs",), "rating": ("rating",)}
_ONE_SIDED = 0.95  # of at least _FEW votes: no longer a judgement
_FEW = 20
_SMOOTHING = 0.01  # added to every count, so that one lucky rater is not certain
_TOLERANCE = 1e-8  # nats per vote
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Of `units` voted on, those with two votes or more are `paired`; `unnamed` votes had no rater and do not count.

    `percent` is the mean share of agreeing pairs of votes, the coefficients are nominal; None where undefined.
    """

    units: int
    paired: int
    raters: int
    votes: int
    unnamed: int
    percent: float | None
    fleiss_kappa: float | None
    krippendorff_alpha: float | None


@dataclass(frozen=True)
class Estimate:
    """What the model found. `raters`: rater, votes, accuracy, first_share (of choices between two that are no tie, how
    often the reply shown first won), top_share (of the label given most often), flags. `units`: unit, item, votes,
    label (the most probable, the first of equals), probability, entropy in bits. `objective` per step never falls.
    """

    raters: pl.DataFrame
    units: pl.DataFrame
    labels: tuple[float, ...]
    objective: tuple[float, ...]
    converged: bool
    caveats: tuple[str, ...]


def votes(judged: pl.DataFrame, family: Family) -> pl.DataFrame:
    """unit, item, id, rater, label, first: one row per rater and unit, in the order of the judgements with these ids.

    Labels of choices are 1 and -1 for the reply that the unit names first and second, 0 for a tie; of thumbs 1 and 0;
    of ratings the score. `first` says whether the reply that this rater was shown first won (null: a tie, or not a
    choice). Raises InputError for a family there is not.
    """
    if family not in _KINDS:
        raise InputError(f"no family {family!r}; there are: {', '.join(_KINDS)}")
    told = judged.select("id", "item", "kind", "aspect", "rater", "replies", "value").with_row_index("at")
    told = told.filter(pl.col("kind").is_in(_KINDS[family]) & pl.col("value").is_not_null())
    long = told.with_columns(place=pl.int_ranges(pl.col("replies").list.len())).explode("replies", "value", "place")
    if family == "choice":
        cast, keys = _choices(long), ["item", "kind", "one", "two"]
    else:
        cast = long.drop_nulls("value").rename({"value": "label"}).with_columns(first=pl.lit(None, pl.Boolean))
        keys = ["item", "aspect", "replies"]
    cast = cast.sort("at", maintain_order=True)
    units = cast.select(keys).unique(maintain_order=True).with_row_index("unit")
    cast = cast.join(units, on=keys, how="left", nulls_equal=True, maintain_order="left")
    named = cast.filter(pl.col("rater").is_not_null()).unique(["unit", "rater"], keep="last", maintain_order=True)
    return pl.concat([named, cast.filter(pl.col("rater").is_null())]).select(
        "unit", "item", "id", "rater", "label", "first"
    )


def _choices(long: pl.DataFrame) -> pl.DataFrame:
    """Votes on every two replies of a judgement, one and two as the item's first judgement showed them."""
    long = long.unique(["at", "replies"], keep="first", maintain_order=True)
    home = long.unique(["item", "replies"], keep="first", maintain_order=True).select("item", "replies", home="place")
    score = pl.when(pl.col("kind") == "ranking").then(-pl.col("value")).otherwise(pl.col("value"))
    long = long.with_columns(score=score).drop_nulls("score").join(home, on=["item", "replies"])
    sides = long.select(
        "at", "id", "item", "kind", "rater", one="replies", one_home="home", one_place="place", s="score"
    )
    other = long.select("at", two="replies", two_home="home", two_place="place", t="score")
    both = sides.join(other, on="at").filter(pl.col("one_home") < pl.col("two_home"))
    label = (pl.col("s") - pl.col("t")).round(9).sign()
    shown = pl.when(pl.col("one_place") < pl.col("two_place")).then(1.0).otherwise(-1.0)
    made = both.with_columns(label=label, shown=shown).sort("at", "one_home", "two_home")
    return made.with_columns(first=pl.when(pl.col("label") != 0).then(pl.col("label") == pl.col("shown")))


def agreement(cast: pl.DataFrame) -> Agreement:
    """Percent, Fleiss' kappa (with missing votes as Gwet 2014) and Krippendorff's alpha of votes."""
    named = cast.filter(pl.col("rater").is_not_null())
    shared = agreeing(named)
    counts = named.join(shared.select("unit"), on="unit", how="semi").group_by("unit", "label").len("n")
    counts = counts.with_columns(pl.col("n").cast(pl.Float64)).sort("unit", "label")
    counts = counts.with_columns(total=pl.col("n").sum().over("unit"))
    paired = shared.height
    percent = kappa = alpha = None
    if paired:
        percent = float(shared["agree"].sum()) / paired
        shares = counts.group_by("label").agg(
            (pl.col("n") / pl.col("total")).sum() / paired, pl.col("n").sum().alias("N")
        )
        kappa = _over_chance(1 - percent, 1 - float((shares["n"] ** 2).sum()))
        total = float(shares["N"].sum())
        within = (pl.col("n") * (pl.col("total") - pl.col("n")) / (pl.col("total") - 1)).sum()
        observed = float(counts.select(within).item()) / total
        alpha = _over_chance(observed, 1 - float((shares["N"] * (shares["N"] - 1)).sum()) / (total * (total - 1)))
    return Agreement(
        units=named["unit"].n_unique(),
        paired=paired,
        raters=named["rater"].n_unique(),
        votes=named.height,
        unnamed=cast.height - named.height,
        percent=percent,
        fleiss_kappa=kappa,
        krippendorff_alpha=alpha,
    )


def agreeing(cast: pl.DataFrame) -> pl.DataFrame:
    """`unit` and `agree`, from 0 to 1, by unit: the share of pairs of its votes that say the same (Fleiss 1971, before
    chance is taken off); of units with two votes or more."""
    counts = cast.group_by("unit", "label").len("n").with_columns(pl.col("n").cast(pl.Float64))
    same, total = (pl.col("n") * (pl.col("n") - 1)).sum(), pl.col("n").sum()
    told = counts.group_by("unit").agg(same=same, total=total).filter(pl.col("total") > 1).sort("unit")
    return told.select("unit", agree=pl.col("same") / (pl.col("total") * (pl.col("total") - 1)))


def _over_chance(observed: float, expected: float) -> float | None:
    return None if expected < 1e-12 else 1 - observed / expected


def estimate(cast: pl.DataFrame, *, max_steps: int = 1_000) -> Estimate:
    """Fit Dawid and Skene's model by expectation maximisation, from the shares of votes. Converged where a step gains
    less than 1e-8 nats per vote. Raises InputError without a vote that has a rater."""
    named = cast.filter(pl.col("rater").is_not_null())
    if not named.height:
        raise InputError("no judgement names its rater: say who judged as the files are read")
    unit, units = _codes(named["unit"])
    rater, raters = _codes(named["rater"])
    label, labels = _codes(named["label"])
    width = len(labels)
    given = np.bincount(unit * width + label, minlength=len(units) * width).reshape(-1, width).astype(np.float64)
    posterior = given / given.sum(axis=1, keepdims=True)
    objective: list[float] = []
    converged = False
    while not converged and len(objective) < max_steps:
        prior, confusion = _maximise(posterior, unit, rater, label, len(raters))
        posterior, likelihood = _expect(prior, confusion, unit, rater, label)
        objective.append(likelihood + _SMOOTHING * float(np.log(confusion).sum() + np.log(prior).sum()))
        converged = len(objective) > 1 and objective[-1] - objective[-2] < _TOLERANCE * named.height
    accuracy = np.einsum("k,rkk->r", prior, confusion)
    judged = _judged(named, raters, accuracy, float((prior**2).sum()), width)
    caveats = []
    if len(raters) < 3:
        caveats.append("fewer than three raters: many confusion matrices explain the votes equally well")
    if not converged:
        caveats.append(f"accuracies were still moving after {max_steps:,} steps: take them as rough")
    found = _units(named, units, posterior, labels)
    return Estimate(judged, found, tuple(labels), tuple(objective), converged, tuple(caveats))


def adjudicate(found: Estimate, *, most: int | None = None) -> pl.DataFrame:
    """The units to look at again, the most uncertain first: those of which the model is less than 99 % sure."""
    unsure = found.units.filter(pl.col("probability") < 0.99)
    ranked = unsure.sort(pl.col("entropy").round(9), "unit", descending=[True, False])
    return ranked if most is None else ranked.head(most)


def _codes(values: pl.Series) -> tuple[npt.NDArray[np.int64], list]:
    known = values.unique().sort()
    return values.replace_strict(
        known, pl.int_range(len(known), eager=True), return_dtype=pl.Int64
    ).to_numpy(), known.to_list()


def _maximise(
    posterior: Floats,
    unit: npt.NDArray[np.int64],
    rater: npt.NDArray[np.int64],
    label: npt.NDArray[np.int64],
    raters: int,
) -> tuple[Floats, Floats]:
    """Shares of labels, and confusion matrices (raters, true label, vote) whose rows add up to 1."""
    width = posterior.shape[1]
    cell = rater * width + label
    counts = np.stack(
        [np.bincount(cell, posterior[unit, k], raters * width).reshape(raters, width) for k in range(width)], axis=1
    ) + np.float64(_SMOOTHING)
    prior = posterior.sum(axis=0) + _SMOOTHING
    return prior / prior.sum(), counts / counts.sum(axis=2, keepdims=True)


def _expect(
    prior: Floats,
    confusion: Floats,
    unit: npt.NDArray[np.int64],
    rater: npt.NDArray[np.int64],
    label: npt.NDArray[np.int64],
) -> tuple[Floats, float]:
    """Each unit's posterior over labels, and the log-likelihood of all votes in nats."""
    logs = np.log(confusion)
    height = int(unit.max()) + 1
    joint = np.log(prior) + np.stack(
        [np.bincount(unit, logs[rater, k, label], height) for k in range(len(prior))], axis=1
    )
    top = joint.max(axis=1, keepdims=True)
    shares = np.exp(joint - top)
    totals = shares.sum(axis=1, keepdims=True)
    return shares / totals, float((top + np.log(totals)).sum())


def _judged(named: pl.DataFrame, raters: list, accuracy: Floats, chance: float, width: int) -> pl.DataFrame:
    """One row per rater, with what is odd about it."""
    top = named.group_by("rater", "label").len("n").group_by("rater").agg(pl.col("n").max().alias("top"))
    rows = named.group_by("rater").agg(
        pl.len().alias("votes"), pl.col("first").mean().alias("first_share"), pl.col("first").count().alias("decided")
    )
    rows = rows.join(top, on="rater").with_columns(top_share=pl.col("top") / pl.col("votes"))
    rows = rows.join(
        pl.DataFrame({"rater": raters, "accuracy": accuracy}, schema_overrides={"rater": pl.String}), on="rater"
    )
    enough, decided = pl.col("votes") >= _FEW, pl.col("decided") >= _FEW
    flags = {
        "few_votes": pl.col("votes") < _FEW,
        "always_first": decided & (pl.col("first_share") >= _ONE_SIDED),
        "always_second": decided & (pl.col("first_share") <= 1 - _ONE_SIDED),
        "one_label": enough & (pl.col("top_share") >= _ONE_SIDED),
        "worse_than_chance": enough & (pl.col("accuracy") < chance) & pl.lit(width > 1),
    }
    told = pl.concat_list(*(pl.when(when).then(pl.lit(name)) for name, when in flags.items())).list.drop_nulls()
    return (
        rows.with_columns(flags=told)
        .sort("rater")
        .select("rater", "votes", "accuracy", "first_share", "top_share", "flags")
    )


def _units(named: pl.DataFrame, units: list, posterior: Floats, labels: list) -> pl.DataFrame:
    safe = np.maximum(posterior, 1e-300)
    found = pl.DataFrame(
        {
            "unit": pl.Series(units, dtype=pl.UInt32),
            "label": pl.Series([labels[k] for k in posterior.argmax(axis=1)], dtype=pl.Float64),
            "probability": posterior.max(axis=1),
            "entropy": np.maximum(-(posterior * np.log2(safe)).sum(axis=1), 0.0),
        }
    )
    told = named.group_by("unit").agg(pl.col("item").first(), pl.len().alias("votes"))
    return found.join(told, on="unit").sort("unit").select("unit", "item", "votes", "label", "probability", "entropy")
