"""What the chosen replies have more of than the rejected ones: length and formats, over all pairs and by slice.

A bias is a share: of the pairs in which the two replies differ in an amount, those in which the chosen one has more.
Without a bias it is one half. The law: every share stands with its 95 % interval and how many pairs it is of, and
pairs of one prompt do not count as independent ones (`pairs.wilson`). A share away from one half is no fault by itself:
longer answers can be better. It is what a model trained on the pairs can learn without reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.noise.features import DENSE
from gristmill.dataops.noise.pairs import wilson
from gristmill.dataops.report.bins import histogram, tidy
from gristmill.dataops.report.samples import plain

SLICES, VALUES = 4, 12  # columns shown, and values of each
_VALUE = 60  # characters of a value
_MANY = 40  # different values above which a column names rows, not slices
_RATIOS = (1.1, 1.25, 1.5, 2.0, 4.0)


def share(values: np.ndarray, groups: np.ndarray) -> dict[str, Any] | None:
    """A share with its interval and number, None for nothing."""
    if not len(values):
        return None
    mean, low, high = wilson(values.astype(np.float64), groups)
    return {"value": tidy(mean), "low": tidy(low), "high": tidy(high), "n": len(values)}


def amounts_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """By kind of amount: its means on both sides, and the share of pairs in which the chosen reply has more."""
    prompts, out = frame["p"].to_numpy(), []
    for name in DENSE:
        chosen, rejected = (frame[f"{side}_{name}"].to_numpy().astype(np.int64) for side in "cr")
        differ = chosen != rejected
        out.append(
            {
                "name": name,
                "chosen": tidy(float(chosen.mean())),
                "rejected": tidy(float(rejected.mean())),
                "more": share(chosen[differ] > rejected[differ], prompts[differ]),
            }
        )
    return out


def lengths(frame: pl.DataFrame) -> dict[str, Any]:
    """Characters of both sides over common bins ("all" of both, "kept" of the chosen), and how often the longer reply
    is chosen by how much longer it is."""
    chosen, rejected = (frame[f"{side}_chars"].to_numpy().astype(np.float64) for side in "cr")
    prompts = frame["p"].to_numpy()
    ratio = (np.maximum(chosen, rejected) + 1) / (np.minimum(chosen, rejected) + 1)
    steps = []
    for low, high in zip((1.0, *_RATIOS), (*_RATIOS, np.inf), strict=True):
        inside = (ratio >= low) & (ratio < high) & (chosen != rejected)
        said = f"{low:g} to {high:g} times" if np.isfinite(high) else f"{low:g} times and more"
        steps.append({"ratio": said, "longer": share((chosen > rejected)[inside], prompts[inside])})
    both = np.concatenate([chosen, rejected])
    return {"bins": histogram(both, np.arange(len(both)) < len(chosen)), "by_ratio": steps}


def margins(frame: pl.DataFrame) -> dict[str, Any] | None:
    """How strongly the chosen replies are preferred, where margins are told."""
    if "margin" not in frame.columns or frame["margin"].null_count() == frame.height:
        return None
    values = frame["margin"].drop_nulls().cast(pl.Float64).to_numpy()
    values = values[np.isfinite(values)]
    return {
        "known": len(values),
        "not_above_zero": int((values <= 0).sum()),
        "bins": histogram(values, np.ones(len(values), dtype=bool)),
    }


def slice_columns(frame: pl.DataFrame) -> list[str]:
    """Columns of texts with 2 to 40 different values: sources, categories, languages."""
    texts = [name for name, kind in frame.schema.items() if kind in (pl.String, pl.Categorical) and name != "tools"]
    return [name for name in texts if 2 <= frame[name].drop_nulls().n_unique() <= _MANY][:SLICES]


def slices(frame: pl.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """By column and value, the most frequent first: pairs, how often the longer reply is chosen, how often the reward
    model agrees, suspects, and how far raters do. `frame` has `chance` and `suspect`, null for pairs that were not
    fitted, and `agree`, null for pairs of which no two judgements are told."""
    out = []
    for column in columns:
        parts = frame.drop_nulls(column).partition_by(column, maintain_order=True)
        parts.sort(key=lambda part: (-part.height, str(part[column][0])))
        rows = [{"value": plain(part[column][0], _VALUE), **told(part)} for part in parts[:VALUES]]
        out.append({"column": column, "different": len(parts), "rows": rows})
    return out


def told(part: pl.DataFrame) -> dict[str, Any]:
    """What is said of one slice of the pairs."""
    differ = part.filter(pl.col("c_chars") != pl.col("r_chars"))
    fitted, rated = part.drop_nulls("chance"), part.drop_nulls("agree")
    return {
        "pairs": part.height,
        "longer": share((differ["c_chars"] > differ["r_chars"]).to_numpy(), differ["p"].to_numpy()),
        "right": share((fitted["chance"] > 0.5).to_numpy(), fitted["p"].to_numpy()),
        "suspect": int(fitted["suspect"].sum()) if fitted.height else None,
        "agree": share(rated["agree"].to_numpy(), rated["p"].to_numpy()),
    }
