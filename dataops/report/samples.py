"""Rows to look at: some of what was dropped for each reason, some of what stays, and the groups of duplicates.

The rows with the lowest ids are shown, which is a fair choice because ids are hashes, and the same choice every time.
Their texts are fetched last, so a report holds a few hundred texts however large the corpus. Every string is cut, and
characters that would hide or turn text around (controls, bidirectional overrides) are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.bins import histogram, quantiles, tidy
from gristmill.dataops.report.chain import Stack, all_drops, read_batches, shard_fates

TEXT, TITLE, URL = 300, 120, 200  # characters shown
_PAIRS = 4_000_000  # duplicates grouped at a time: 32 hex digits each
_SHOWN_AT = ("id", "title", "uri", "text", "language", "warc", "offset")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")
_TWIN = r"^[0-9a-f]{32}$"
_DETAILS = ["id", "op", "reason", "value", "threshold", "evidence", "uri", "warc", "offset"]


def plain(value: Any, limit: int) -> str | None:
    """A string on one line of at most `limit` characters, with nothing in it that acts; null stays null."""
    if value is None:
        return None
    head = str(value)[: 4 * limit]
    text = re.sub(r"\s+", " ", _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"[\t\n\r\f\v]", " ", head))).strip()
    return text if len(text) <= limit and len(str(value)) <= 4 * limit else text[: limit - 1].rstrip() + "…"


def source(warc: str | None, offset: int | None) -> str | None:
    """Where a row was read, as "file @ offset"."""
    return plain(warc if offset is None else f"{warc} @ {offset}", URL) if warc else None


def lowest_drops(order: Sequence[Dataset], each: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The `each` dropped rows with the lowest ids of every dataset, op and reason; and how many rows each has."""
    key = ["dataset", "op", "reason"]
    held: list[pl.DataFrame] = []
    counted: list[pl.DataFrame] = []
    for dataset, drops in all_drops(order, _DETAILS):
        named = drops.with_columns(dataset=pl.lit(dataset.key))
        counted.append(named.group_by(key).agg(rows=pl.len().cast(pl.Int64)))
        held.append(named.sort("id").group_by(key, maintain_order=True).head(each))
        if len(held) > 64:
            held = [pl.concat(held).sort("id").group_by(key, maintain_order=True).head(each)]
            counted = [pl.concat(counted).group_by(key).agg(pl.col("rows").sum())]
    if not held:
        names = dict.fromkeys([*_DETAILS, *key], pl.String)
        return pl.DataFrame(schema=names), pl.DataFrame(schema={**dict.fromkeys(key, pl.String), "rows": pl.Int64})
    lowest = pl.concat(held).sort("id").group_by(key, maintain_order=True).head(each)
    return lowest, pl.concat(counted).group_by(key).agg(pl.col("rows").sum()).sort(key)


def duplicates(order: Sequence[Dataset], biggest: int = 10) -> dict[str, Any]:
    """Groups of rows that were dropped for the same kept row: sizes (with the kept row), reasons and likeness.

    A drop is a duplicate where its evidence is the id of another row. Sizes are exact; they are grouped in runs of a
    part of the ids each, so that memory does not grow with the duplicates.
    """
    pairs = [dataset for dataset in order if _has_twins(dataset)]
    rows = sum(sum(tally["dropped"] for tally in dataset.manifest["counts"].values()) for dataset in pairs)
    runs = 1 + rows // _PAIRS
    sizes: list[pl.DataFrame] = []
    groups: list[pl.DataFrame] = []
    for run in range(runs):
        members = [
            drops.filter(pl.col("evidence").str.contains(_TWIN))
            .filter((pl.col("evidence").str.slice(0, 8).str.to_integer(base=16) % runs) == run)
            .group_by("evidence", "reason")
            .len()
            for _, drops in all_drops(pairs, ["reason", "evidence"])
        ]
        if not members:
            continue
        by_reason = pl.concat(members).group_by("evidence", "reason").agg(pl.col("len").sum().cast(pl.Int64))
        whole = by_reason.group_by("evidence").agg(size=1 + pl.col("len").sum())
        sizes.append(whole.group_by("size").len())
        top = whole.sort("size", "evidence", descending=[True, False]).head(biggest)
        groups.append(top.join(by_reason, on="evidence").sort("reason"))
    if not groups:
        return {"rows": 0, "groups": 0, "sizes": [], "biggest": []}
    counted = pl.concat(sizes).group_by("size").agg(pl.col("len").sum()).sort("size")
    found = pl.concat(groups).group_by("evidence", "size", maintain_order=True).agg("reason", "len")
    found = found.sort("size", "evidence", descending=[True, False]).head(biggest)
    return {
        "rows": int(((counted["size"] - 1) * counted["len"]).sum()),
        "groups": int(counted["len"].sum()),
        "sizes": _size_bins(counted),
        "biggest": [
            {"kept": twin, "size": size, "reasons": dict(zip(reasons, rows, strict=True))}
            for twin, size, reasons, rows in found.select("evidence", "size", "reason", "len").iter_rows()
        ],
    }


def likeness(order: Sequence[Dataset], sample: int = 100_000) -> dict[str, Any] | None:
    """How alike removed duplicates were to the row that stayed, where an op measured it: value and threshold."""
    held: list[pl.DataFrame] = []
    for _, drops in all_drops(
        [dataset for dataset in order if _has_twins(dataset)], ["id", "value", "threshold", "evidence"]
    ):
        pairs = drops.filter(pl.col("evidence").str.contains(_TWIN) & pl.col("value").is_not_null())
        held.append(pairs.drop("evidence"))
        if len(held) > 64:
            held = [pl.concat(held).sort("id").head(sample)]
    if not held or not (found := pl.concat(held).sort("id").head(sample)).height:
        return None
    values = found["value"].to_numpy()
    thresholds = sorted(set(found["threshold"].drop_nulls().to_list()))[:4]
    return {
        "sampled": found.height,
        "thresholds": [tidy(threshold) for threshold in thresholds],
        "quantiles": quantiles(values),
        **histogram(values, np.zeros(len(values), dtype=bool), thresholds),
    }


def _has_twins(dataset: Dataset) -> bool:
    """Only ops that compare rows name other rows, and they make views."""
    return dataset.kind == "view" and any(tally["dropped"] for tally in dataset.manifest["counts"].values())


def _size_bins(counted: pl.DataFrame) -> list[dict[str, Any]]:
    bounds = [(2, 2), (3, 3), (4, 5), (6, 10), (11, 30), (31, 100), (101, 1000), (1001, None)]
    bins = []
    for low, high in bounds:
        inside = counted.filter(pl.col("size").is_between(low, high or 1 << 62))
        label = str(low) if low == high else f"{low:,}+" if high is None else f"{low}–{high:,}"
        bins.append({"label": label, "groups": int(inside["len"].sum())})
    while bins and not bins[-1]["groups"]:
        bins.pop()
    return bins


def fetch(found_in: Iterable[Stack], ids: set[bytes]) -> dict[str, dict[str, Any]]:
    """The rows with these ids, by hex id: title, uri, text and language cut to what is shown, and their fate.

    A first look reads ids alone; other columns are read for batches that hold one of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for stack in found_in:
        columns = [name for name in stack.schema.names if name in _SHOWN_AT]
        wanted = pl.Series("id", sorted(ids), pl.Binary)
        for index, entry in enumerate(stack.base.manifest["shards"]):
            path = f"{stack.base.path}/{entry['file']}"
            hits = {
                start: rows
                for start, batch in read_batches(path, ["id"])
                if len(rows := pl.DataFrame(batch)["id"].is_in(wanted.implode()).arg_true())
            }
            if not hits:
                continue
            codes = shard_fates(stack, index)
            for start, batch in read_batches(path, columns):
                if start in hits:
                    for row, at in zip(_shown(batch.take(hits[start].to_arrow())), hits[start], strict=True):
                        fate = stack.fates[codes[start + at]]
                        found.setdefault(row.pop("id"), {**row, "dropped_by": list(fate) if fate[2] else None})
    return found


def _shown(batch: Any) -> list[dict[str, Any]]:
    """Rows as they are shown; long strings are cut before they leave the column."""
    frame = pl.DataFrame(batch)
    limits = {"text": 4 * TEXT, "title": 4 * TITLE, "uri": 4 * URL, "language": 20, "warc": 4 * URL}
    cuts = [pl.col(name).str.slice(0, limit + 1) for name, limit in limits.items() if name in frame.columns]
    sizes = [pl.col("text").str.len_chars().alias("chars")] if "text" in frame.columns else []
    shown = frame.with_columns(*cuts, *sizes, id=pl.col("id").bin.encode("hex")).to_dicts()
    return [
        {
            "id": row["id"],
            "title": plain(row.get("title"), TITLE),
            "url": plain(row.get("uri"), URL),
            "text": plain(row.get("text"), TEXT),
            "chars": row.get("chars"),
            "language": plain(row.get("language"), 20),
            "source": source(row.get("warc"), row.get("offset")),
        }
        for row in shown
    ]
