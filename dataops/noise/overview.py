"""All numbers of the preference report, from one dataset of pairs.

The law: every number is of rows that stand in the dataset, or of datasets that it is linked with (the judgements it was
made from, log-probabilities of its pairs); what could not be computed is None, and the page says why. Texts are fetched
last, and only those that are shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.noise.biases import amounts_of, lengths, margins, share, slice_columns, slices, told
from gristmill.dataops.noise.confident import LEAST, MOST, Noise, find_noise
from gristmill.dataops.noise.judged import judged
from gristmill.dataops.noise.pairs import check_pairs, fetch, measured, texts
from gristmill.dataops.noise.policy import on_policy
from gristmill.dataops.noise.topics import topics
from gristmill.dataops.noise.twice import repeated
from gristmill.dataops.preferences.raters import agreeing
from gristmill.dataops.report.bins import histogram, tidy
from gristmill.dataops.report.samples import plain

LISTED = 200  # noisy pairs by id and chance
READ = 24  # of them with their texts
SHOWN = 900  # characters of a text
_CUTS = (0.1, 0.2, 0.3, 0.4, 0.5)
_TOPIC = "cluster"


def numbers_of(dataset: Dataset) -> dict[str, Any]:
    """What is on the page. Raises InputError for a dataset without pairs."""
    check_pairs(dataset)
    frame = measured(dataset)
    read = texts(dataset, MOST)
    groups = read["group"].to_numpy()
    noise = find_noise(read["id"].to_list(), groups, read["chosen"], read["rejected"])
    place, names = topics(read["asked"], groups)
    frame = frame.join(_of_pairs(read, noise, place), on="id", how="left", maintain_order="left")
    rows = judged(dataset)
    agree = pl.DataFrame(schema={"id": pl.Binary, "agree": pl.Float64}) if rows is None else _agreeing(rows)
    frame = frame.join(agree, on="id", how="left", maintain_order="left")
    del read
    twice = repeated(frame)
    return {
        "dataset": {"name": dataset.name, "key": dataset.key, "digest": dataset.digest},
        "at": dataset.manifest["made"].get("at"),
        "reproducible": dataset.manifest.get("reproducible", True),
        "pairs": frame.height,
        "amounts": amounts_of(frame),
        "lengths": lengths(frame),
        "margins": margins(frame),
        "position": None if rows is None else _position(rows, frame),
        "judgements": None if rows is None else _judgements(rows, frame),
        "noise": _noise(noise, frame),
        "noisy": [] if noise is None else _noisy(dataset, frame),
        "whole": told(frame),
        "slices": slices(frame, slice_columns(frame)),
        "topics": _topics(frame, names),
        "policy": on_policy(dataset, frame),
        "twice": {**twice, "shown": _conflicts(dataset, twice["shown"])},
    }


def _of_pairs(read: pl.DataFrame, noise: Noise | None, place: np.ndarray) -> pl.DataFrame:
    """`id`, `chance`, `place` (in the ranking), `suspect` and `cluster` of the pairs that were read."""
    empty = [None] * read.height
    return read.select("id").with_columns(
        chance=pl.Series(empty if noise is None else noise.chance, dtype=pl.Float64),
        place=pl.Series(empty if noise is None else np.argsort(noise.order), dtype=pl.Int64),
        suspect=pl.Series(empty if noise is None else noise.suspect, dtype=pl.Boolean),
        **{_TOPIC: pl.Series(place, dtype=pl.Int64)},
    )


def _agreeing(rows: pl.DataFrame) -> pl.DataFrame:
    """`id` and `agree` of the pairs that two raters or more spoke of."""
    return agreeing(rows.rename({"id": "unit", "says": "label"})).rename({"unit": "id"})


def _position(rows: pl.DataFrame, frame: pl.DataFrame) -> dict[str, Any] | None:
    """How often the reply that a rater preferred was the one shown first."""
    strict = rows.filter(pl.col("says") != 0).join(frame.select("id", "p"), on="id")
    first = (strict["says"] > 0) == strict["first"]
    return share(first.to_numpy(), strict["p"].to_numpy())


def _judgements(rows: pl.DataFrame, frame: pl.DataFrame) -> dict[str, Any]:
    rated = frame.drop_nulls("agree")
    return {
        "judgements": rows.height,  # what a rater says of several aspects of a pair is one
        "raters": rows["rater"].n_unique(),
        "pairs": rows["id"].n_unique(),
        "ties": rows.filter(pl.col("says") == 0).height,
        "against": rows.filter(pl.col("says") < 0).height,
        "agree": share(rated["agree"].to_numpy(), rated["p"].to_numpy()),
    }


def _noise(noise: Noise | None, frame: pl.DataFrame) -> dict[str, Any]:
    if noise is None:
        return {"why_not": f"{LEAST} pairs of {LEAST} different prompts are needed"}
    values = noise.chance
    return {
        "why_not": None,
        "fitted": len(values),
        "of": frame.height,
        "accuracy": {"value": tidy(noise.accuracy), "low": tidy(noise.low), "high": tidy(noise.high), "n": len(values)},
        "told": noise.low > 0.5,
        "threshold": tidy(noise.threshold),
        "share": None if noise.share is None else tidy(noise.share),
        "suspect": int(noise.suspect.sum()),
        "bins": histogram(values, ~noise.suspect),
        "below": [_below(values, cut) for cut in _CUTS],
    }


def _below(chance: np.ndarray, cut: float) -> dict[str, Any]:
    """How many pairs have a lower chance, and what share of them would be turned if they were judged again."""
    found = chance[chance < cut]
    return {"chance": cut, "pairs": len(found), "turned": tidy(float(1 - found.mean())) if len(found) else None}


def _noisy(dataset: Dataset, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The pairs that are the least likely to be right, the first of them with their texts."""
    ranked = frame.drop_nulls("chance").sort("place").head(LISTED)
    shown = fetch(dataset, ranked["id"].head(READ).to_list())
    out = []
    for row in ranked.select("id", "chance", "suspect", "agree").to_dicts():
        said = shown.get(row["id"])
        found = {"id": row["id"].hex(), "chance": tidy(row["chance"]), "suspect": row["suspect"], "agree": row["agree"]}
        out.append(found | ({} if said is None else _texts(said)))
    return out


def _conflicts(dataset: Dataset, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = fetch(dataset, [bytes.fromhex(item["ids"][0]) for item in found])
    return [{**item, **_texts(shown[bytes.fromhex(item["ids"][0])])} for item in found]


def _texts(said: Any) -> dict[str, Any]:
    # A prompt is read from its end: that is what the replies answer.
    prompt = said["prompt"] if len(said["prompt"]) <= SHOWN else "…" + said["prompt"][1 - SHOWN :]
    return {"prompt": plain(prompt, SHOWN)} | {side: plain(said[side], SHOWN) for side in ("chosen", "rejected")}


def _topics(frame: pl.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Pairs and what is said of them by cluster of prompts, the largest first; what has no words in common is last."""
    known = frame.drop_nulls(_TOPIC)
    parts = [(int(part[_TOPIC][0]), part) for part in known.partition_by(_TOPIC)] if names else []
    parts.sort(key=lambda item: (item[0] < 0, -item[1].height, item[0]))
    return [
        {"name": names[at] if at >= 0 else None, "prompts": part["p"].n_unique(), **told(part)} for at, part in parts
    ]
