"""Pairs that say the same twice, or the opposite: duplicates, swapped sides, replies that stand under many prompts.

The law: a pair is compared with every other one, by keys of all that its messages say; what is counted here is exact,
so two spellings of one reply are two replies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

SHOWN = 6  # groups of conflicting pairs whose texts are fetched


def repeated(frame: pl.DataFrame) -> dict[str, Any]:
    """Counts over the keys `p`, `c` and `r` of `pairs.measured`, and the ids of some conflicting pairs.

    `copies` are pairs beyond the first of the same prompt, chosen and rejected reply; `conflicts` are sets of pairs
    with one prompt and the same two replies, not always the same one chosen, and `in_conflict` the pairs in them.
    """
    low, high = pl.min_horizontal("c", "r"), pl.max_horizontal("c", "r")
    sets = (
        frame.filter(pl.col("c") != pl.col("r"))
        .with_columns(low=low, high=high, way=pl.col("c") < pl.col("r"))
        .group_by("p", "low", "high")
        .agg(
            n=pl.len(),
            one=pl.col("way").sum(),
            first=pl.col("id").min(),
            a=pl.col("id").filter(pl.col("way")).min(),
            b=pl.col("id").filter(~pl.col("way")).min(),
        )  # fmt: skip
        .filter((pl.col("one") > 0) & (pl.col("one") < pl.col("n")))
        .sort(["n", "first"], descending=[True, False])
    )
    prompts = frame.group_by("p").len()
    replies = pl.concat([frame.select("p", key=side) for side in ("c", "r")])
    wide = replies.group_by("key").agg(prompts=pl.col("p").n_unique()).filter(pl.col("prompts") > 1)
    return {
        "prompts": prompts.height,
        "most_of_one_prompt": int(prompts["len"].to_numpy().max(initial=0)),
        "equal_sides": frame.filter(pl.col("c") == pl.col("r")).height,
        "copies": frame.height - frame.select("p", "c", "r").unique().height,
        "conflicts": sets.height,
        "in_conflict": int(sets["n"].sum()),
        "outvoted": int(np.minimum(sets["one"].to_numpy(), (sets["n"] - sets["one"]).to_numpy()).sum()),
        "wide_replies": wide.height,
        "widest_reply": int(wide["prompts"].to_numpy().max(initial=0)),
        "shown": [
            {"pairs": row["n"], "ids": [row["a"].hex(), row["b"].hex()], "votes": [row["one"], row["n"] - row["one"]]}
            for row in sets.head(SHOWN).to_dicts()
        ],
    }
