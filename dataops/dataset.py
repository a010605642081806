"""Datasets: immutable versions of anything, as a folder with a manifest, Arrow shards and a ledger.

    <root>/<name>/<key[:12]>/manifest.json   written last; what it does not name does not exist
                             shards/00000.arrow, shards/00000.hash (16 bytes per row), ledger/00000.arrow, files/...

A *view* has no shards of its own: its manifest names a parent, and its ledger, lined up with the parent's shards,
says which rows are left out. Reading needs the standard library, NumPy and pyarrow (`scan` imports Polars), so that a
training image can stay slim. Any fsspec URL can be read; only local shards are memory-mapped.

The law kept here: a reader never sees half a dataset (`publish` renames a finished folder).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc

from gristmill.dataops.fileio import file_sha256, is_remote, open_arrow, read_bytes, write_json
from gristmill.dataops.identity import Fingerprint, recipe_key, row_id
from gristmill.dataops.rowfile import RowWriter
from gristmill.dataops.shard import Shard, read_ledger

#: What training may import from here: the one door between it and the rest.
__all__ = [
    "MANIFEST", "DamagedError", "Dataset", "InputError", "Shard", "is_remote", "open_arrow", "publish", "publish_files",
    "publish_rows", "read_ledger", "recipe_key", "row_id", "write_json",
]  # fmt: skip

if TYPE_CHECKING:
    import polars as pl

MANIFEST = "manifest.json"
Kind = Literal["rows", "view", "tokens", "checkpoint"]


class InputError(ValueError):
    """Bad input or usage: the message says what is wrong, where, and what to do; shown without a traceback."""


class DamagedError(RuntimeError):
    """A published file is not what its manifest says."""


@dataclass(frozen=True)
class Dataset:
    """One immutable version. `key` is the address (how it was made), `digest` the content, `path` any fsspec URL."""

    name: str
    key: str
    digest: str
    path: str
    kind: Kind

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Dataset:
        """Open a published dataset by its folder; raises InputError where there is none."""
        where = os.fspath(path)
        try:
            manifest = json.loads(read_bytes(f"{where}/{MANIFEST}"))
        except FileNotFoundError:
            raise InputError(f"no dataset at {where}: it has no {MANIFEST}") from None
        except ValueError as error:
            raise DamagedError(f"{where}/{MANIFEST} cannot be read: {error}") from None
        return Dataset(manifest["name"], manifest["key"], manifest["digest"], where, manifest["kind"])

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands on disk."""
        return json.loads(read_bytes(f"{self.path}/{MANIFEST}"))

    @property
    def rows(self) -> int:
        """Rows after what views leave out."""
        return self.manifest["rows"]

    @property
    def root(self) -> str:
        """The root that this dataset stands under."""
        return self.path.rstrip("/").rsplit("/", 2)[0]

    def input(self, number: int) -> Dataset:
        """One of the versions that this one was made from, in the order of its manifest. Raises InputError if gone."""
        entry = self.manifest["inputs"][number]
        return Dataset.load(f"{self.root}/{entry['name']}/{entry['key'][:12]}")

    @property
    def inputs(self) -> list[Dataset]:
        """All versions that this one was made from."""
        return [self.input(number) for number in range(len(self.manifest["inputs"]))]

    @cached_property
    def parent(self) -> Dataset | None:
        """What a view is a view of."""
        parent = self.manifest.get("parent")
        return parent and Dataset.load(f"{self.root}/{parent['name']}/{parent['key'][:12]}")

    @property
    def base(self) -> Dataset:
        """The dataset that holds the shards: this one, or the end of a chain of views."""
        return self if self.parent is None else self.parent.base

    def file(self, name: str) -> str:
        """The path of one of the files of a checkpoint."""
        return f"{self.path}/files/{name}"

    def check_files(self) -> Dataset:
        """This dataset, all of whose own files are what the manifest says. Raises DamagedError naming one that is not;
        reading them takes about a second per gigabyte."""
        for entry in (*self.manifest.get("files", []), *self.manifest.get("shards", [])):
            path = f"{self.path}/{entry['file']}"
            try:
                same = file_sha256(path) == entry["sha256"]
            except FileNotFoundError:
                raise DamagedError(f"{path} is missing") from None
            if not same:
                raise DamagedError(f"{path} is damaged: its bytes are not those that were published (SHA-256 differs)")
        return self

    def shards(self) -> list[Shard]:
        """The files of rows, in order, each with the positions that views leave out."""
        if self.parent is None:
            return [Shard(f"{self.path}/{entry['file']}", entry["rows"]) for entry in self.manifest["shards"]]
        shards = []
        for shard, entry in zip(self.parent.shards(), self.manifest["ledger"], strict=True):
            drops = read_ledger(f"{self.path}/{entry['file']}", ["row", "unit"])
            rows = drops.filter(pc.equal(drops["unit"], "row"))["row"].combine_chunks()
            if shard.left_out is not None and len(shard.left_out):
                rows = pa.concat_arrays([rows.cast(pa.uint32()), shard.left_out.cast(pa.uint32())])
            shards.append(Shard(shard.path, shard.rows, rows.sort() if len(rows) else None))
        return shards

    def batches(self, rows: int = 1024, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Record batches of at most `rows` rows, shard after shard; local shards are mapped, not read."""
        for shard in self.shards():
            yield from shard.read(columns).to_batches(max_chunksize=rows)

    def scan(self) -> pl.LazyFrame:
        """All rows as a lazy Polars frame; what views left out is left out."""
        import polars as pl

        frames = []
        for shard in self.shards():
            if "://" in shard.path:
                frames.append(pl.from_arrow(shard.read()).lazy())  # type: ignore[union-attr]
                continue
            frame = pl.scan_ipc(shard.path)
            if shard.left_out is not None and len(shard.left_out):
                gone = pl.Series(shard.left_out.to_numpy(), dtype=pl.UInt32)
                frame = frame.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(gone.implode()))
            frames.append(frame)
        if not frames:
            return pl.from_arrow(self.schema().empty_table()).lazy()  # type: ignore[union-attr]
        return pl.concat(frames)

    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows; raises InputError for a dataset without rows."""
        for shard in self.base.shards():
            with open_arrow(shard.path) as source, ipc.open_file(source) as reader:
                return reader.schema
        raise InputError(f"{self.name} at {self.path} holds no shards")

    def ledger(self) -> pl.LazyFrame:
        """What was lost on the way to this version (not to its parents), with the shard it belongs to."""
        import polars as pl

        from gristmill.dataops.op import LEDGER

        frames = [
            pl.from_arrow(read_ledger(f"{self.path}/{entry['file']}")).lazy().with_columns(shard=pl.lit(i, pl.UInt32))  # type: ignore[union-attr]
            for i, entry in enumerate(self.manifest["ledger"])
            if entry["rows"]
        ]
        return pl.concat(frames) if frames else pl.LazyFrame(schema={**LEDGER, "shard": pl.UInt32()})


def publish(building: Path, final: Path, manifest: Mapping[str, Any]) -> Dataset:
    """Manifest last, then one rename. Where another run has published the same key first, its result is taken."""
    write_json(building / MANIFEST, manifest)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        building.rename(final)
    except OSError:
        if not (final / MANIFEST).exists():
            raise
        shutil.rmtree(building, ignore_errors=True)
    return Dataset.load(final)


def publish_files(
    root: str | Path,
    name: str,
    building: Path,
    *,
    ops: Sequence[Mapping[str, Any]],
    inputs: Sequence[Dataset],
    external: Sequence[str] = (),
    made: Mapping[str, Any],
    stats: Mapping[str, Any] | None = None,
    reproducible: bool = True,
) -> Dataset:
    """Publish what stands in `building`/files as a `checkpoint`: a trained tokenizer, classifier or model.

    `ops` are {name, version, params}, the identity with the digests of `inputs`; the digest is over the names and
    SHA-256 of the files. `made` holds what is not identity (times, versions, device). Where training on a device
    gives other bytes each time, say `reproducible=False`: those that come after hash the digest of what came out.
    """
    key = recipe_key(ops, [*external, *(item.digest for item in inputs)])
    entries = [
        {"file": str(path.relative_to(building)), "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted((building / "files").rglob("*"))
        if path.is_file()
    ]
    content = json.dumps([[entry["file"], entry["sha256"]] for entry in entries])
    manifest = {
        "gristmill": 1,
        "name": name,
        "key": key,
        "digest": hashlib.sha256(content.encode()).hexdigest(),
        "kind": "checkpoint",
        "ops": list(ops),
        "inputs": [{"name": item.name, "key": item.key, "digest": item.digest} for item in inputs],
        "external": list(external),
        "rows": 0,
        "shards": [],
        "ledger": [],
        "files": entries,
        "counts": {},
        "stats": dict(stats or {}),
        "reproducible": reproducible,
        "made": dict(made),
    }
    return publish(building, Path(root) / name / key[:12], manifest)


def publish_rows(
    root: str | Path,
    name: str,
    building: Path,
    tables: Iterable[pa.Table],
    *,
    ops: Sequence[Mapping[str, Any]],
    inputs: Sequence[Dataset],
    external: Sequence[str] = (),
    made: Mapping[str, Any],
    stats: Mapping[str, Any] | None = None,
    reproducible: bool = True,
) -> Dataset:
    """Publish tables of one schema, with `id` binary(16) first, as `rows`: what a training step makes of rows, such as
    rollouts or an evaluation. One shard; the arguments are those of `publish_files`. Raises ValueError without a table.
    """
    (building / "shards").mkdir(parents=True, exist_ok=True)
    writer: RowWriter | None = None
    for table in tables:
        writer = RowWriter(building, 0, "zstd") if writer is None else writer
        writer.write(table)
    if writer is None:
        raise ValueError(f"{name}: no table, not even an empty one, so no schema")
    part = writer.close()
    total = Fingerprint(part["rows"], tuple(part["lanes"]))
    key = recipe_key(ops, [*external, *(item.digest for item in inputs)])
    manifest = {
        "gristmill": 1,
        "name": name,
        "key": key,
        "digest": total.digest(part["schema"]),
        "kind": "rows",
        "ops": list(ops),
        "inputs": [{"name": item.name, "key": item.key, "digest": item.digest} for item in inputs],
        "external": list(external),
        "rows": total.rows,
        "schema": part["schema"],
        "shards": [{**part["shard"], "hashes": part["hashes"]}],
        "ledger": [],
        "counts": {},
        "stats": dict(stats or {}),
        "reproducible": reproducible,
        "made": dict(made),
    }
    return publish(building, Path(root) / name / key[:12], manifest)
