"""One pass over one unit of work, in a worker: rows in, through a chain of ops, shards and a ledger out.

Consecutive ops run batch by batch with nothing in between on disk. After every op the accounting law is checked on the
ids: what went in is kept or in the ledger, once. The part's JSON is written last, by rename, so that a part that is
named is whole; a killed run loses at most the parts in flight.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc as ipc

from gristmill.dataops.dataset import Shard
from gristmill.dataops.fileio import HashedFile, file_sha256, write_json
from gristmill.dataops.identity import Fingerprint
from gristmill.dataops.op import LEDGER, Op, Split
from gristmill.dataops.rowfile import RowWriter

ID = pa.binary(16)
BATCH = 4096  # rows of a shard that go through a pass together
LEDGER_ARROW = pl.DataFrame(schema=LEDGER).to_arrow().schema.set(0, pa.field("id", ID))


class AccountingError(RuntimeError):
    """An op lost, invented or duplicated a row: nothing of it is published."""


@dataclass(frozen=True)
class Unit:
    """Work for one worker: a source task or a shard, the ops to run, and where the parts go."""

    index: int
    folder: str
    ops: tuple[Op, ...]
    task: Any
    expected: int | None = None
    compression: str | None = "zstd"

    def __str__(self) -> str:
        return f"part {self.index} of {Path(self.folder).name}"

    @property
    def is_view(self) -> bool:
        """Rules alone copy no rows: they only say which go."""
        return all(op.kind == "rule" for op in self.ops)


def run_unit(unit: Unit) -> dict[str, Any]:
    """Run the pass and write its part; returns the part's description."""
    started = time.perf_counter()
    writer = None if unit.is_view else RowWriter(Path(unit.folder), unit.index, unit.compression)
    counts: dict[str, dict[str, Any]] = {op.name: new_count() for op in unit.ops}
    drops: list[pl.DataFrame] = []
    seconds = dict.fromkeys(counts, 0.0)
    consumed = 0
    stats: dict[str, int] = {}
    for split, ops in _inputs(unit, seconds):
        if split.drops.height:
            drops.append(split.drops)
        if ops is not unit.ops:  # a source op has already run
            name = unit.ops[0].name
            kept = height(split.kept)
            taken = split.consumed if split.consumed is not None else kept + dropped_rows(split.drops)
            consumed += taken
            count(counts[name], taken, kept, split.drops)
            for stat, number in split.stats.items():
                stats[stat] = stats.get(stat, 0) + number
        rows = split.kept
        for op in ops:
            clock = time.process_time()
            after = op(rows)
            seconds[op.name] += time.process_time() - clock
            clock = time.process_time()
            check_accounting(op, rows, after)
            seconds["accounting"] = seconds.get("accounting", 0.0) + time.process_time() - clock
            if after.drops.height:
                drops.append(after.drops)
            count(counts[op.name], height(rows), height(after.kept), after.drops)
            rows = after.kept
        if writer is not None:
            clock = time.process_time()
            writer.write(rows if isinstance(rows, pa.Table) else to_arrow(rows))
            seconds["write"] = seconds.get("write", 0.0) + time.process_time() - clock
    if unit.expected is not None and consumed != unit.expected:
        raise AccountingError(f"{unit.ops[0].name}: part {unit.index} has {unit.expected} rows, {consumed} were read")
    clock = time.process_time()
    lost = pl.concat(drops) if drops else pl.DataFrame(schema=LEDGER)
    part: dict[str, Any] = {"index": unit.index, "counts": counts, "stats": stats}
    part["ledger"] = write_ledger(Path(unit.folder), unit.index, lost)
    seconds["ledger"] = time.process_time() - clock
    if writer is not None:
        part |= writer.close()
        seconds["hashes"] = writer.hash_seconds
        seconds["write"] -= writer.hash_seconds
    else:
        part |= view_fingerprint(unit.task, lost)
    part["seconds"] = {name: round(value, 6) for name, value in seconds.items()}
    part["wall"] = round(time.perf_counter() - started, 6)
    write_json(part_path(Path(unit.folder), unit.index), part, durable=False)
    return part


def part_path(folder: Path, index: int) -> Path:
    """Where a part says that it is finished."""
    return folder / "parts" / f"{index:05d}.json"


def finished_part(folder: Path, index: int) -> dict[str, Any] | None:
    """A part that an earlier run finished, if its files are whole: nothing forced them to the disk."""
    try:
        part = json.loads(part_path(folder, index).read_bytes())
        files = [part["ledger"], *([part["shard"], part["hashes"]] if "shard" in part else [])]
        whole = all(file_sha256(folder / entry["file"]) == entry["sha256"] for entry in files)
    except (OSError, ValueError, KeyError):
        return None
    return part if whole else None


def _inputs(unit: Unit, seconds: dict[str, float]) -> Iterator[tuple[Split, tuple[Op, ...]]]:
    """Batches with the ops that are still to run on them."""
    first = unit.ops[0]
    if first.kind == "source":
        clock = time.process_time()
        for split in first.function(unit.task, **first.params, **first.context):
            seconds[first.name] += time.process_time() - clock
            named = replace(split, drops=split.drops.with_columns(op=pl.lit(first.name)))
            yield named, unit.ops[1:]
            clock = time.process_time()
        seconds[first.name] += time.process_time() - clock
        return
    shard: Shard = unit.task
    if unit.is_view:
        names = {"id"}
        for op in unit.ops:
            for rule in op.rules.values():
                names.update(rule.fails().meta.root_names())
        yield Split(positioned(shard, sorted(names)), pl.DataFrame(schema=LEDGER)), unit.ops
        return
    for batch in shard.read().to_batches(max_chunksize=BATCH) or [shard.read().slice(0, 0)]:
        yield Split(pl.DataFrame(batch), pl.DataFrame(schema=LEDGER)), unit.ops


def positioned(shard: Shard, columns: list[str]) -> pl.DataFrame:
    """A shard's remaining rows with `row`, their position among all the shard's rows."""
    frame = pl.DataFrame(Shard(shard.path, shard.rows).read(columns)).with_row_index("row")
    mask = shard.mask()
    return frame if mask is None else frame.filter(pl.Series(mask.to_numpy(zero_copy_only=False)))


def height(rows: pl.DataFrame | pa.Table) -> int:
    """Rows of either kind of frame."""
    return rows.num_rows if isinstance(rows, pa.Table) else rows.height


def dropped_rows(drops: pl.DataFrame) -> int:
    """Ledger rows that stand for a whole row."""
    return int((drops["unit"] == "row").sum())


def new_count() -> dict[str, Any]:
    """An op's tally."""
    return {"in": 0, "kept": 0, "dropped": 0, "reasons": {}, "losses": {}}


def count(into: dict[str, Any], rows_in: int, kept: int, drops: pl.DataFrame) -> None:
    """Add a batch to an op's tally."""
    into["in"] += rows_in
    into["kept"] += kept
    if not drops.height:
        return
    for reason, unit, rows, lost in drops.group_by("reason", "unit").agg(pl.len(), pl.col("lost").sum()).iter_rows():
        if unit == "row":
            into["dropped"] += rows
            into["reasons"][reason] = into["reasons"].get(reason, 0) + rows
        else:
            entry = into["losses"].setdefault(reason, {"rows": 0, "lost": 0, "unit": unit})
            entry["rows"] += rows
            entry["lost"] += lost


def add_counts(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Merge the tally of one part into the tally of the dataset."""
    for name in ("in", "kept", "dropped"):
        into[name] += other[name]
    for reason, rows in other["reasons"].items():
        into["reasons"][reason] = into["reasons"].get(reason, 0) + rows
    for reason, loss in other["losses"].items():
        entry = into["losses"].setdefault(reason, {"rows": 0, "lost": 0, "unit": loss["unit"]})
        entry["rows"] += loss["rows"]
        entry["lost"] += loss["lost"]


def check_accounting(op: Op, before: pl.DataFrame, after: Split) -> None:
    """Every row is kept or in the ledger with a reason, exactly once."""
    assert isinstance(after.kept, pl.DataFrame)
    gone = after.drops.filter(pl.col("unit") == "row")
    if after.drops["reason"].null_count():
        raise AccountingError(f"{op.name} dropped a row without a reason")
    kept = after.kept["id"]
    if not gone.height and kept.equals(before["id"]):
        return
    ids = pl.concat([kept, gone["id"]])
    if len(ids) != before.height or not ids.sort().equals(before["id"].sort()):
        raise AccountingError(
            f"{op.name} took {before.height} rows, kept {len(kept)} and named {gone.height} as dropped; the ids differ"
        )


def view_fingerprint(shard: Shard, lost: pl.DataFrame) -> dict[str, Any]:
    """The fingerprint of the rows that remain, from the base shard's row hashes: no text is read."""
    hashes = np.fromfile(shard.path.removesuffix(".arrow") + ".hash", dtype="<u8").reshape(-1, 2)
    keep = np.ones(shard.rows, dtype=bool)
    if shard.left_out is not None:
        keep[shard.left_out.to_numpy()] = False
    keep[lost.filter(pl.col("unit") == "row")["row"].to_numpy()] = False
    fingerprint = Fingerprint.of(hashes[keep])
    return {"rows": fingerprint.rows, "lanes": list(fingerprint.lanes)}


def to_arrow(rows: pl.DataFrame) -> pa.Table:
    """Polars to Arrow with ids as 16 fixed bytes."""
    table = rows.to_arrow()
    at = table.schema.get_field_index("id")
    return table.set_column(at, pa.field("id", ID), table["id"].cast(pa.binary()).cast(ID))


def write_ledger(folder: Path, index: int, rows: pl.DataFrame) -> dict[str, Any]:
    """One ledger file under its final name."""
    name = f"ledger/{index:05d}.arrow"
    scratch = folder / f"{name}.{os.getpid()}.tmp"
    file = HashedFile(scratch)
    with ipc.new_file(file, LEDGER_ARROW, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(to_arrow(rows).cast(LEDGER_ARROW))
    file.close()
    scratch.replace(folder / name)
    return file.entry(name, rows=rows.height)
