"""Databases for tests of feedback: SQLite in a folder, and a real PostgreSQL server of the tests' own."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sql

from gristmill.dataops.feedback.candidates import candidate
from gristmill.dataops.feedback.database import Database, open_database
from gristmill.dataops.feedback.judge import judge
from gristmill.dataops.feedback.queues import add_rater, make_queue, next_item, put

KINDS = ("sqlite", "postgresql")
START = 1_750_000_000_000


@dataclass
class Clock:
    """A clock that tests move, in milliseconds."""

    at: int = START

    def __call__(self) -> int:
        return self.at


def url(kind: str, folder: Path) -> str:
    """A new, empty database; skips the calling test where no PostgreSQL server is installed."""
    return f"sqlite:///{folder}/own.db" if kind == "sqlite" else _new_on_server()


@contextlib.contextmanager
def opened(kind: str, folder: Path) -> Iterator[tuple[Database, Clock]]:
    """A new database and its clock."""
    clock = Clock()
    db = open_database(url(kind, folder), clock=clock)
    yield db, clock
    db.engine.dispose()


def rows_of(db: Database, table: sql.Table) -> list[sql.Row]:
    """All rows of a table, by its key."""
    with db.read() as connection:
        return list(connection.execute(sql.select(table).order_by(*table.primary_key.columns)))


def fill(db: Database, items: int, raters: int = 1, *, queue: str = "q", **settings) -> list[str]:
    """A pairwise queue of so many items, and raters named r0, r1, ..."""
    make_queue(db, queue, "pairwise", **settings)
    rows = [candidate({"prompt": f"p{n}", "responses": [f"a{n}", f"b{n}"]}, f"row {n}") for n in range(items)]
    put(db, queue, rows, strategy="random")
    names = [f"r{n}" for n in range(raters)]
    for name in names:
        add_rater(db, name)
    return names


def work(db: Database, rater: str, most: int, *, queue: str = "q", value: object = (1, 0)) -> list[str]:
    """Judge what comes next, at most so many items; returns the keys."""
    keys: list[str] = []
    while len(keys) < most and (shown := next_item(db, queue, rater)) is not None:
        keys.append(f"{rater} {shown.item}")
        judge(db, shown.item, rater, None if value is None else list(value), key=keys[-1])  # type: ignore[call-overload]
    return keys


@functools.cache
def _server() -> sql.URL | str:
    """The server's URL, or why there is none. PostgreSQL refuses to run as root: there it runs as another user."""
    if importlib.util.find_spec("psycopg") is None:
        return "no driver for PostgreSQL is installed (psycopg)"
    bins = [Path(found).parent for found in [shutil.which("initdb")] if found]
    bins += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    home = next((folder for folder in bins if (folder / "initdb").exists() and (folder / "postgres").exists()), None)
    if home is None:
        return "no PostgreSQL server is installed (initdb and postgres)"
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    other = {}
    if os.getuid() == 0:
        other = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **other}
    command = [home / "initdb", "-D", folder / "data", "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
    subprocess.run(command, check=True, **quiet)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    process = subprocess.Popen([home / "postgres", "-D", folder / "data", *options], **quiet)
    atexit.register(_stop, process)
    where = sql.URL.create("postgresql", "tests", database="postgres", query={"host": str(folder)})
    engine = sql.create_engine(where.set(drivername="postgresql+psycopg"))
    for _ in range(200):
        with contextlib.suppress(sql.exc.OperationalError), engine.connect():
            engine.dispose()
            return where
        time.sleep(0.1)
    raise RuntimeError("PostgreSQL did not start within 20 s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)


def _new_on_server() -> str:
    server = _server()
    if isinstance(server, str):
        pytest.skip(server)
    name = f"t{uuid.uuid4().hex}"
    engine = sql.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sql.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
