"""The catalogue of one root: which versions there are, what went into each, what came of it.

An SQLite database (<root>/lineage.db) over the manifests. It is a cache: opening it takes in what was published since,
and `gristmill reindex` makes it anew from the manifests alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store

_TABLES = sql.MetaData()
VERSIONS = sql.Table(
    "versions", _TABLES,
    sql.Column("name", sql.String, primary_key=True), sql.Column("key", sql.String, primary_key=True),
    sql.Column("digest", sql.String, index=True), sql.Column("kind", sql.String), sql.Column("rows", sql.Integer),
    sql.Column("made_at", sql.String), sql.Column("seconds", sql.Float),
)  # fmt: skip
EDGES = sql.Table(
    "edges", _TABLES,
    sql.Column("name", sql.String, primary_key=True), sql.Column("key", sql.String, primary_key=True),
    sql.Column("input_name", sql.String, primary_key=True), sql.Column("input_key", sql.String, primary_key=True),
    sql.Column("input_digest", sql.String, index=True),
)  # fmt: skip
TALLIES = sql.Table(
    "tallies", _TABLES,
    sql.Column("name", sql.String, primary_key=True), sql.Column("key", sql.String, primary_key=True),
    sql.Column("op", sql.String, primary_key=True), sql.Column("position", sql.Integer), sql.Column("params", sql.JSON),
    sql.Column("rows_in", sql.Integer), sql.Column("kept", sql.Integer), sql.Column("dropped", sql.Integer),
)  # fmt: skip


@dataclass(frozen=True)
class Index:
    """The index of one root. Opening it takes in what is new on disk and forgets what is gone."""

    store: Store
    engine: sql.Engine

    @staticmethod
    def open(store: Store, *, anew: bool = False) -> Index:
        """Raises InputError where there is no such root."""
        if not store.root.is_dir():
            raise InputError(f"no root at {store.root}: run something first, or give --root")
        path = store.root / "lineage.db"
        if anew:
            path.unlink(missing_ok=True)
        engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        index = Index(store, engine)
        index.refresh()
        return index

    def refresh(self) -> int:
        """Bring the index to what is published; returns how many versions came or went."""
        _TABLES.create_all(self.engine)
        on_disk = {(item.name, item.key): item for item in self.store.all()}
        with self.engine.begin() as connection:
            known = {(name, key) for name, key in connection.execute(sql.select(VERSIONS.c.name, VERSIONS.c.key))}
            for name, key in known - on_disk.keys():
                for table in (VERSIONS, EDGES, TALLIES):
                    connection.execute(table.delete().where(table.c.name == name, table.c.key == key))
            for pair in on_disk.keys() - known:
                _insert(connection, on_disk[pair])
        return len(known ^ on_disk.keys())

    def made_from(self, dataset: Dataset) -> list[Dataset]:
        """All that went into a version, nearest first, each once."""
        return self._walk(dataset, EDGES.c.name, EDGES.c.key, EDGES.c.input_name, EDGES.c.input_key)

    def came_of(self, dataset: Dataset) -> list[Dataset]:
        """All that was made from a version, nearest first, each once."""
        return self._walk(dataset, EDGES.c.input_name, EDGES.c.input_key, EDGES.c.name, EDGES.c.key)

    def _walk(self, dataset: Dataset, from_name: Any, from_key: Any, to_name: Any, to_key: Any) -> list[Dataset]:
        found: dict[tuple[str, str], Dataset] = {}
        edge = [(dataset.name, dataset.key)]
        with self.engine.connect() as connection:
            while edge:
                name, key = edge.pop(0)
                query = sql.select(to_name, to_key).where(from_name == name, from_key == key).order_by(to_name, to_key)
                for pair in connection.execute(query):
                    if tuple(pair) not in found:
                        found[tuple(pair)] = Dataset.load(self.store.root / pair[0] / pair[1][:12])
                        edge.append((pair[0], pair[1]))
        return list(found.values())


def _insert(connection: sql.Connection, dataset: Dataset) -> None:
    manifest = dataset.manifest
    me = {"name": dataset.name, "key": dataset.key}
    made = manifest["made"]
    connection.execute(
        VERSIONS.insert().values(
            **me,
            digest=dataset.digest,
            kind=dataset.kind,
            rows=dataset.rows,
            made_at=made.get("at"),
            seconds=made.get("seconds"),
        )  # fmt: skip
    )
    for item in {(item["name"], item["key"]): item for item in manifest["inputs"]}.values():
        connection.execute(
            EDGES.insert().values(
                **me, input_name=item["name"], input_key=item["key"], input_digest=item["digest"]
            )  # fmt: skip
        )
    for position, op in enumerate(manifest["ops"]):
        tally = manifest["counts"].get(op["name"], {})
        connection.execute(
            TALLIES.insert().values(
                **me,
                op=op["name"],
                position=position,
                params=json.loads(json.dumps(op["params"])),
                rows_in=tally.get("in"),
                kept=tally.get("kept"),
                dropped=tally.get("dropped"),
            )  # fmt: skip
        )
