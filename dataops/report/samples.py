"""Rows to look at: some of what was dropped for each reason, and some of what stays.

The rows with the lowest ids are shown, which is a fair choice because ids are hashes, and the same choice every time.
Their texts are fetched last, so a report holds a few hundred texts however large the corpus. Every string is cut, and
characters that would hide or turn text around (controls, bidirectional overrides) are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.bins import tidy
from gristmill.dataops.report.chain import Stack, all_drops, copied, read_batches, shard_fates

TEXT, TITLE, URL = 300, 120, 200  # characters shown
REASONS = 100  # reasons with samples
_SHOWN_AT = ("id", "title", "uri", "text", "language", "warc", "offset")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")
_TWIN = re.compile(r"[0-9a-f]{32}")
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
    texts = dict.fromkeys(("dataset", "op", "reason", "evidence", "uri", "warc"), pl.String)
    lowest = pl.DataFrame(
        schema={"id": pl.Binary, **texts, "value": pl.Float64, "threshold": pl.Float64, "offset": pl.Int64}
    )
    counted = pl.DataFrame(schema={**dict.fromkeys(key, pl.String), "rows": pl.Int64})
    for dataset, drops in all_drops(order, _DETAILS):
        named = drops.with_columns(dataset=pl.lit(dataset.key))
        counts = named.group_by(key).agg(rows=pl.len().cast(pl.Int64))
        counted = pl.concat([counted, copied(counts)]).group_by(key).agg(pl.col("rows").sum())
        first = named.sort("id").group_by(key, maintain_order=True).head(each)
        both = pl.concat([lowest, copied(first.select(lowest.columns))])
        lowest = both.sort("id").group_by(key, maintain_order=True).head(each).select(lowest.columns)
    return lowest, counted.sort(key)


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


def examples(
    order: Sequence[Dataset],
    lowest: pl.DataFrame,
    ledger_rows: pl.DataFrame,
    stay: Sequence[bytes],
    seen: Mapping[str, Any],
) -> dict[str, Any]:
    """Samples by reason in the order of the chain, how many reasons there are, and samples of what stays.

    `lowest` and `ledger_rows` are those of `lowest_drops`; `seen` has the rows of their ids, twins and `stay`.
    """
    rows = {(key, op, reason): count for key, op, reason, count in ledger_rows.iter_rows()}
    places = {(item.key, op): (n, m) for n, item in enumerate(order) for m, op in enumerate(item.manifest["counts"])}
    chosen = sorted(rows, key=lambda key: (*places[key[:2]], -rows[key], key))
    by_reason = dict(lowest.group_by("dataset", "op", "reason", maintain_order=True))
    names = {item.key: item.name for item in order}
    dropped = [
        {
            "dataset": names[key[0]],
            "op": key[1],
            "reason": key[2],
            "rows": rows[key],
            "samples": [_sample(row, seen) for row in by_reason[key].iter_rows(named=True)],
        }
        for key in chosen[:REASONS]
    ]
    kept = [{"id": row.hex(), "row": seen.get(row.hex())} for row in stay]
    return {"dropped": dropped, "reasons": len(chosen), "kept": kept}


def twin_ids(lowest: pl.DataFrame) -> set[bytes]:
    """The rows that sampled drops name as the reason for going."""
    return {bytes.fromhex(value) for value in lowest["evidence"].drop_nulls() if _TWIN.fullmatch(value)}


def _sample(drop: dict[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """A dropped row as it is shown; of one that was never stored, what the ledger has."""
    row = seen.get(drop["id"].hex()) or {"url": plain(drop["uri"], URL), "source": source(drop["warc"], drop["offset"])}
    return {
        "id": drop["id"].hex(),
        "value": tidy(drop["value"]),
        "threshold": tidy(drop["threshold"]),
        "evidence": plain(drop["evidence"], TEXT),
        "row": row,
        "twin": seen.get(drop["evidence"]),
    }
