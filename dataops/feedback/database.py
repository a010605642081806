"""The database of feedback: SQLite in a file by default, PostgreSQL by URL.

The idea: two kinds of transaction. `write` is alone from its first statement (BEGIN IMMEDIATE on SQLite; on PostgreSQL
it locks the queue it works on, see `lock`), so what it reads stays true until it commits; `read` sees one state and
blocks nobody. The law kept here: opening brings the tables to this version of the code, once, however many open at
the same time. A database that a newer version made is refused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.tables import QUEUES

FILE = "feedback.db"
VERSION_TABLE = "feedback_version"  # Prefect's own tables may stand in the same PostgreSQL database
_WAIT = 30  # seconds that a writer waits for another
_LOCK = 0x67726973  # a constant for PostgreSQL's advisory locks: one migration at a time
_READING = {"feedback_reading": True}


def now() -> int:
    """Milliseconds since 1970 UTC by this machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Database:
    """An open database; `clock` says what time it is here, in milliseconds."""

    engine: sql.Engine
    clock: Callable[[], int] = now

    @contextlib.contextmanager
    def write(self) -> Iterator[sql.Connection]:
        """A transaction that commits at its end, or leaves nothing."""
        with self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sql.Connection]:
        """One state of the database to read from."""
        with self.engine.connect().execution_options(**_READING) as connection:
            if self.engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection


def open_database(where: str | Path, *, clock: Callable[[], int] = now) -> Database:
    """The feedback of a root (its `feedback.db`), or of a database URL; tables are made or brought up to date.

    Raises InputError for a URL that cannot be used, and for tables made by a newer version.
    """
    if isinstance(where, Path) or "://" not in where:
        Path(where).mkdir(parents=True, exist_ok=True)
        url = sql.URL.create("sqlite", database=str(Path(where) / FILE))
    else:
        url = _parsed(where)
    if url.get_backend_name() == "sqlite":
        engine = sql.create_engine(url, connect_args={"timeout": _WAIT, "isolation_level": None})
        sql.event.listen(engine, "connect", _prepare)
        sql.event.listen(engine, "begin", _begin)
    else:
        try:
            engine = sql.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise InputError(f"PostgreSQL needs {error.name}: pip install 'gristmill[postgres]'") from None
    try:
        migrate(engine)
    except sql.exc.DBAPIError as error:
        raise InputError(f"cannot use the database {url.render_as_string()}: {_line(error.orig)}") from None
    return Database(engine, clock)


def _line(error: object) -> str:
    return " ".join(str(error).split())


def _parsed(where: str) -> sql.URL:
    try:
        url = sql.make_url(where)
    except sql.exc.ArgumentError:
        raise InputError(f"{where!r} is no database URL: postgresql://USER@HOST/NAME, or sqlite:///FILE") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise InputError(f"feedback is kept in SQLite or PostgreSQL, not in {url.get_backend_name()}")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InputError("feedback needs a database that lasts: sqlite:///FILE")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _prepare(connection: Any, _: Any) -> None:
    """WAL lets readers go on while one writes; FULL keeps what was answered for through a power cut."""
    cursor = connection.cursor()
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin(connection: sql.Connection) -> None:
    reading = connection.get_execution_options().get("feedback_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def migrate(engine: sql.Engine) -> None:
    """Bring the tables to this version, in one transaction. Raises InputError where a newer one made them."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known, newest = {revision.revision for revision in script.walk_revisions()}, script.get_current_head()

    def stands(connection: sql.Connection) -> str | None:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()

    with engine.connect().execution_options(**_READING) as connection:
        if stands(connection) == newest:
            return
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
        found = stands(connection)
        if found is not None and found not in known:
            raise InputError(f"the feedback tables are of a newer version ({found}): update gristmill")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def lock(connection: sql.Connection, name: str) -> sql.Row[Any]:
    """A queue's row, for one transaction alone: whoever judges shares it, so no judgement is under way while a batch is
    frozen. On SQLite a writer is alone anyway. Raises InputError where there is no such queue.
    """
    row = connection.execute(sql.select(QUEUES).where(QUEUES.c.name == name).with_for_update()).one_or_none()
    if row is None:
        known = list(connection.execute(sql.select(QUEUES.c.name).order_by(QUEUES.c.name)).scalars())
        raise InputError(f"no queue {name!r}; there are: {', '.join(known) or 'none'}")
    return row
