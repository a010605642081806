"""Groups of duplicates: rows that were dropped because they repeat a row that stayed.

A drop is a duplicate where its evidence is the id of another row, as the ledgers of deduplication have it. Sizes are
exact. Groups are counted in runs over a part of the ids each, so that memory does not grow with the duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.bins import histogram, quantiles, tidy
from gristmill.dataops.report.chain import all_drops, halves, whole_id

_PAIRS = 4_000_000  # dropped rows to a run: 32 hex digits each
_IS_TWIN = pl.col("evidence").str.contains(r"^[0-9a-f]{32}$")
_FOLD = 64  # ledgers between two folds


def duplicates(order: Sequence[Dataset], biggest: int = 10) -> dict[str, Any]:
    """Duplicate rows, groups by size (with the row that stayed), and the biggest groups with their reasons."""
    pairs = [dataset for dataset in order if _has_twins(dataset)]
    rows = sum(sum(tally["dropped"] for tally in dataset.manifest["counts"].values()) for dataset in pairs)
    runs = 1 + rows // _PAIRS
    sizes: list[pl.DataFrame] = []
    groups: list[pl.DataFrame] = []
    for run in range(runs):
        members = [
            _twins(drops).filter(pl.col("low") % runs == run).group_by("high", "low", "reason").len()
            for _, drops in all_drops(pairs, ["reason", "evidence"])
        ]
        if members:
            by_reason = pl.concat(members).group_by("high", "low", "reason").agg(pl.col("len").sum().cast(pl.Int64))
            whole = by_reason.group_by("high", "low").agg(size=1 + pl.col("len").sum())
            sizes.append(whole.group_by("size").agg(groups=pl.len().cast(pl.Int64)))
            groups.append(_biggest(whole, biggest).join(by_reason, on=["high", "low"]))
    if not groups or not (found := pl.concat(groups)).height:
        return {"rows": 0, "groups": 0, "sizes": [], "biggest": []}
    counted = pl.concat(sizes).group_by("size").agg(pl.col("groups").sum()).sort("size")
    ranked = _biggest(found.unique(["high", "low"]), biggest)
    shown = []
    for high, low, size in ranked.select("high", "low", "size").iter_rows():
        reasons = found.filter((pl.col("high") == high) & (pl.col("low") == low)).select("reason", "len")
        shown.append({"kept": whole_id(high, low).hex(), "size": size, "reasons": dict(sorted(reasons.iter_rows()))})
    return {
        "rows": int(((counted["size"] - 1) * counted["groups"]).sum()),
        "groups": int(counted["groups"].sum()),
        "sizes": _size_bins(counted),
        "biggest": shown,
    }


def likeness(order: Sequence[Dataset], sample: int = 100_000) -> dict[str, Any] | None:
    """How alike removed duplicates were to the row that stayed, where an op measured it: value and threshold."""
    pairs = [dataset for dataset in order if _has_twins(dataset)]
    held: list[pl.DataFrame] = []
    for _, drops in all_drops(pairs, ["id", "value", "threshold", "evidence"]):
        measured = drops.filter(_IS_TWIN & pl.col("value").is_not_null())
        held.append(measured.select("value", "threshold", **halves()))
        if len(held) > _FOLD:
            held = [pl.concat(held).sort("high", "low").head(sample)]
    if not held or not (found := pl.concat(held).sort("high", "low").head(sample)).height:
        return None
    values = found["value"].to_numpy()
    thresholds = sorted(set(found["threshold"].drop_nulls().to_list()))[:4]
    return {
        "sampled": found.height,
        "thresholds": [tidy(threshold) for threshold in thresholds],
        "quantiles": quantiles(values),
        **histogram(values, np.zeros(len(values), dtype=bool), thresholds),
    }


def _twins(drops: pl.DataFrame) -> pl.DataFrame:
    """The reasons of the duplicates among dropped rows, with the halves of the id of the row that stayed."""
    digits = {"high": pl.col("evidence").str.slice(0, 16), "low": pl.col("evidence").str.slice(16)}
    parts = {name: part.str.to_integer(base=16, dtype=pl.UInt64) for name, part in digits.items()}
    return drops.filter(_IS_TWIN).select(pl.col("reason").cast(pl.Categorical), **parts)


def _biggest(whole: pl.DataFrame, count: int) -> pl.DataFrame:
    return whole.sort("size", "high", "low", descending=[True, False, False]).head(count).select("high", "low", "size")


def _has_twins(dataset: Dataset) -> bool:
    """Only ops that compare rows name other rows, and they make views."""
    return dataset.kind == "view" and any(tally["dropped"] for tally in dataset.manifest["counts"].values())


def _size_bins(counted: pl.DataFrame) -> list[dict[str, Any]]:
    bounds = [(2, 2), (3, 3), (4, 5), (6, 10), (11, 30), (31, 100), (101, 1000), (1001, None)]
    bins = []
    for low, high in bounds:
        inside = counted.filter(pl.col("size").is_between(low, high or 1 << 62))
        label = str(low) if low == high else f"{low:,}+" if high is None else f"{low}–{high:,}"
        bins.append({"label": label, "groups": int(inside["groups"].sum())})
    while bins and not bins[-1]["groups"]:
        bins.pop()
    return bins
