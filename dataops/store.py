"""The store: what is built, what is cached, what is published.

`build` derives the key, takes the published dataset if there is one, and otherwise runs the pass over the executor,
resuming parts that an earlier run finished. Accounting is checked in every part and again over the whole; the result
appears by one rename. Two runs that want the same key at once: one builds, the other waits and takes its result.

    <root>/<name>/<key[:12]>/    published versions          <root>/<name>/tags/<tag>   one key each
    <root>/.building/            work in progress            <root>/files.json          where source files were seen
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, Shard, publish, publish_files
from gristmill.dataops.executor import Executor, InProcess
from gristmill.dataops.identity import recipe_key
from gristmill.dataops.manifest import cpu_seconds_by_op, merged, sums, versions, when
from gristmill.dataops.op import Op
from gristmill.dataops.passes import (
    AccountingError,
    Unit,
    count,
    dropped_rows,
    finished_part,
    new_count,
    run_unit,
    view_fingerprint,
    write_ledger,
)

_NAMED = 24  # datasets an error lists


class Progress(Protocol):
    """Told how far a stage is; the command line draws it."""

    def __call__(self, stage: str, done: int, total: int, rows: int) -> None: ...


def silent(stage: str, done: int, total: int, rows: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Task:
    """One unit of a source op: what to read, and how many input rows it must account for (None: not known)."""

    work: Any
    rows: int | None = None


@dataclass
class Corpus:
    """What a corpus op sees: the dataset whose rows it judges, the others it reads, a scratch folder that survives a
    kill, and workers."""

    dataset: Dataset
    others: Sequence[Dataset]
    scratch: Path
    executor: Executor
    stats: dict[str, Any] = field(default_factory=dict)

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """Run a module-level function over tasks on the workers."""
        return self.executor.run(function, tasks)


@dataclass
class Store:
    """Datasets under one root. `seconds` collects the wall time of what was built here, by dataset name."""

    root: Path
    executor: Executor = field(default_factory=InProcess)
    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)
    _moved: dict[Path, str | None] | None = field(default=None, repr=False)

    def build(
        self, name: str, ops: Op | Sequence[Op], inputs: Sequence[Dataset], *, external: Sequence[str] = ()
    ) -> Dataset:
        """The dataset that these ops make of these inputs: built now, or taken if it stands.

        `external` are digests of what is read from outside the store. Raises AccountingError where an op loses a row.
        """
        chain = (ops,) if isinstance(ops, Op) else tuple(ops)
        names = [op.name for op in chain]
        if len(set(names)) < len(names):
            raise InputError(f"{name}: one op stands twice in its chain ({', '.join(names)}): build it in two steps")
        key = recipe_key([op.identity for op in chain], [*external, *(item.digest for item in inputs)])
        final = self.root / name / key[:12]
        if not (final / MANIFEST).exists():
            started = time.perf_counter()
            with self._locked(name, key) as building:
                if not (final / MANIFEST).exists():
                    self._make(name, key, chain, inputs, external, building, final, started)
            self.seconds[name] = time.perf_counter() - started
        self.tag(name, "latest", key)
        return Dataset.load(final)

    def get(self, reference: str) -> Dataset:
        """NAME, NAME@TAG or NAME:KEY (a prefix of at least 6 digits); raises InputError naming what there is."""
        name, _, prefix = reference.partition(":")
        name, _, tag = name.partition("@")
        folder = self.root / name
        if "/" in name or not name or not folder.is_dir():
            raise InputError(f"no dataset named {name!r} under {self.root}; {_there(name, self.names())}")
        if prefix:
            found = [
                path for path in folder.iterdir() if path.name.startswith(prefix[:12]) and (path / MANIFEST).exists()
            ]
            if len(found) != 1 or len(prefix) < 6:
                raise InputError(f"{reference}: {len(found)} versions match; give at least 6 digits of one key")
            return Dataset.load(found[0])
        try:
            key = (folder / "tags" / (tag or "latest")).read_text().strip()
        except FileNotFoundError:
            versions_there = [Dataset.load(path.parent) for path in folder.glob(f"*/{MANIFEST}")]
            if versions_there and not tag:  # published by a training step that was run by hand
                return max(versions_there, key=lambda item: (item.manifest["made"].get("at", ""), item.key))
            tags = sorted(path.name for path in (folder / "tags").glob("*"))
            raise InputError(f"{name} has no tag {tag or 'latest'!r}; it has: {', '.join(tags) or 'none'}") from None
        return Dataset.load(folder / key[:12])

    def names(self) -> list[str]:
        """Datasets with a published version."""
        if not self.root.is_dir():
            return []
        return sorted({path.parent.parent.name for path in self.root.glob(f"*/*/{MANIFEST}")})

    def all(self) -> list[Dataset]:
        """Every published version, by name and then by key."""
        return [Dataset.load(path.parent) for path in sorted(self.root.glob(f"*/*/{MANIFEST}"))]

    def tag(self, name: str, tag: str, key: str) -> None:
        """Point a tag at a version. Only `latest` moves; any other tag that names another version is refused."""
        path = self.root / name / "tags" / tag
        before = path.read_text().strip() if path.exists() else None
        if before == key:
            return
        if before is not None and tag != "latest":
            raise InputError(f"{name}@{tag} is {before[:12]} and not {key[:12]}: tags do not move; choose another name")
        if self._moved is not None:
            self._moved.setdefault(path, before)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{tag}.{os.getpid()}.{threading.get_ident()}")
        scratch.write_text(key)
        scratch.replace(path)

    @contextlib.contextmanager
    def tags_kept(self) -> Iterator[None]:
        """If what is done within ends by an error, each tag that this store moved is again what it was before; what was
        built stays."""
        moved: dict[Path, str | None] = {}
        self._moved = moved
        try:
            yield
        except BaseException:
            self._moved = None
            for path, before in moved.items():
                if before is None:
                    path.unlink(missing_ok=True)
                else:
                    self.tag(path.parent.parent.name, path.name, before)
            raise
        finally:
            self._moved = None

    @contextlib.contextmanager
    def _locked(self, name: str, key: str) -> Iterator[Path]:
        """The folder to build in, held by this process alone; the system frees the lock of a killed run."""
        folder = self.root / ".building"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}-{key[:12]}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                self.progress(f"{name}: another run builds it, waiting", 0, 0, 0)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder / f"{name}-{key[:12]}"

    def _make(
        self,
        name: str,
        key: str,
        ops: tuple[Op, ...],
        inputs: Sequence[Dataset],
        external: Sequence[str],
        building: Path,
        final: Path,
        started: float,
    ) -> Dataset:
        for sub in ("parts", "scratch", "shards", "ledger", "files"):
            (building / sub).mkdir(parents=True, exist_ok=True)
        made: dict[str, Any] = {"workers": self.executor.workers, "versions": versions()}
        if ops[0].kind == "artifact":
            stats = ops[0].function(inputs, building / "files", **ops[0].params, **ops[0].context)
            for sub in ("parts", "scratch", "shards", "ledger"):
                shutil.rmtree(building / sub, ignore_errors=True)
            return publish_files(
                self.root, name, building, ops=[op.identity for op in ops], inputs=inputs, external=external,
                stats=stats, made={**made, **when(started)},
            )  # fmt: skip
        stats = {}
        if ops[0].kind == "corpus":
            corpus = Corpus(inputs[0], inputs[1:], building / "scratch", self.executor)
            parts = _corpus_parts(ops[0], corpus, building)
            stats = corpus.stats
        else:
            parts = self._run(name, ops, inputs, building)
        manifest = merged(name, key, ops, inputs, external, parts)
        manifest["stats"] = stats or sums(parts)
        manifest["made"] = {**made, **when(started), "cpu_seconds_by_op": cpu_seconds_by_op(parts)}
        for sub in ("parts", "scratch"):
            shutil.rmtree(building / sub, ignore_errors=True)
        for sub in ("shards", "files"):
            with contextlib.suppress(OSError):
                (building / sub).rmdir()  # left only where something is in it
        for scratch in building.rglob("*.tmp"):
            scratch.unlink()  # of workers that were killed
        return publish(building, final, manifest)

    def _run(self, name: str, ops: tuple[Op, ...], inputs: Sequence[Dataset], building: Path) -> list[dict[str, Any]]:
        """Units over the executor; those that an earlier run finished are taken."""
        units = self._units(ops, inputs, building)
        parts = {unit.index: part for unit in units if (part := finished_part(building, unit.index)) is not None}
        missing = [unit for unit in units if unit.index not in parts]
        rows = sum(_rows_in(part, ops) for part in parts.values())
        self.progress(name, len(parts), len(units), rows)

        def done(_: int, part: dict[str, Any]) -> None:
            nonlocal rows
            parts[part["index"]] = part
            rows += _rows_in(part, ops)
            self.progress(name, len(parts), len(units), rows)

        self.executor.run(run_unit, missing, done)
        return [parts[unit.index] for unit in units]

    def _units(self, ops: tuple[Op, ...], inputs: Sequence[Dataset], building: Path) -> list[Unit]:
        compression = None if ops[-1].makes == "tokens" else "zstd"  # token shards are mapped as they are
        if ops[0].kind == "source":
            assert ops[0].plan is not None
            tasks = ops[0].plan(inputs, building, self.executor.workers, **ops[0].params, **ops[0].context)
            return [Unit(i, str(building), ops, task.work, task.rows, compression) for i, task in enumerate(tasks)]
        return [Unit(i, str(building), ops, shard, None, compression) for i, shard in enumerate(inputs[0].shards())]


def _corpus_parts(op: Op, corpus: Corpus, building: Path) -> list[dict[str, Any]]:
    """A corpus op returns one ledger frame per shard of its input (`row` set); the rest stays."""
    shards: list[Shard] = corpus.dataset.shards()
    drops = op.function(corpus, **op.params, **op.context)
    parts = []
    for index, (shard, lost) in enumerate(zip(shards, drops, strict=True)):
        lost = lost.with_columns(op=_literal(op.name))
        if lost["reason"].null_count() or lost["row"].null_count() or lost["row"].n_unique() != lost.height:
            raise AccountingError(
                f"{op.name}: shard {index} has drops without a reason, or a row that is dropped twice"
            )
        tally = new_count()
        count(tally, shard.kept, shard.kept - dropped_rows(lost), lost)
        part = {"index": index, "counts": {op.name: tally}, "ledger": write_ledger(building, index, lost)}
        part |= view_fingerprint(shard, lost)
        if part["rows"] != tally["kept"]:
            raise AccountingError(
                f"{op.name}: shard {index} keeps {tally['kept']} rows by count, {part['rows']} by row"
            )
        parts.append(part)
    return parts


def _there(name: str, names: Sequence[str]) -> str:
    """What there is instead, the nearest names where there are many."""
    if len(names) <= _NAMED:
        return f"there are: {', '.join(names) or 'none'}"
    near = ", ".join(difflib.get_close_matches(name, names, 5)) or ", ".join(names[:_NAMED])
    return f"nearest of {len(names)} (`gristmill ls`): {near}"


def _literal(value: str) -> Any:
    import polars as pl

    return pl.lit(value)


def _rows_in(part: dict[str, Any], ops: tuple[Op, ...]) -> int:
    return part["counts"][ops[0].name]["in"]
