"""Batches: judgements frozen, published as a dataset, and announced.

    freeze    a batch row names the judgements `after_seq < seq <= through_seq` of its queue: from now on it is fixed
    publish   NAME = feedback-<queue>, one row per judgement; what stands in it follows from the freeze alone
    close     dataset version and outbox row, in one transaction

Only the first and the last hold a lock, and briefly, so raters go on while a large batch is written. The laws: each
judgement is in exactly one batch; a closed batch has its dataset; a crash at any point leaves at most a frozen batch,
which the next close or sweep finishes, with the same content and so the same version; closing twice at once is one
batch and one event. A correction that comes after the freeze is in the next batch, which says what it supersedes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sql

from gristmill.dataops.dataset import Dataset, InputError, publish_rows
from gristmill.dataops.feedback.database import Database, lock
from gristmill.dataops.feedback.published import OP, SCHEMA, as_rows, frozen
from gristmill.dataops.feedback.queues import find
from gristmill.dataops.feedback.tables import BATCHES, JUDGEMENTS, OUTBOX, QUEUES
from gristmill.dataops.identity import canonical_json, sha256_json
from gristmill.dataops.passes import to_arrow

VERSION = 1
EVENT = "feedback.batch.closed"
PREFIX = "feedback-"  # of the dataset's name, before the queue's
_READ = 2_000  # judgements in memory at a time


@dataclass(frozen=True)
class Batch:
    """A closed batch: `id` is what the event hands over; `reason` is hand, threshold or time."""

    id: int
    queue: str
    number: int
    judgements: int
    reason: str
    after_seq: int
    through_seq: int
    closed_at: int
    dataset: str
    key: str
    digest: str


@dataclass(frozen=True)
class Event:
    """A row of the outbox that was not sent yet."""

    id: int
    batch: int
    event: str
    payload: dict[str, Any]


def due(db: Database, queue: str) -> str | None:
    """Why the open judgements of a queue are to be closed now: "threshold", "time" or None. Raises InputError."""
    with db.read() as connection:
        asked = find(connection, queue)
        return _due(connection, asked, db.clock())


def _due(connection: sql.Connection, asked: sql.Row[Any], at: int) -> str | None:
    after = _closed_through(connection, asked.id)
    waiting = sql.select(sql.func.count(), sql.func.min(JUDGEMENTS.c.judged_at)).where(
        JUDGEMENTS.c.queue == asked.id, JUDGEMENTS.c.seq > after
    )
    number, oldest = connection.execute(waiting).one()
    if asked.threshold is not None and number >= asked.threshold:
        return "threshold"
    if asked.max_age_ms is not None and number and at - oldest >= asked.max_age_ms:
        return "time"
    return None


def close(
    db: Database, root: str | Path, queue: str, *, only_due: bool = False, before: Callable[[str], None] | None = None
) -> Batch | None:
    """Close what was judged since the last batch of a queue, or finish what was frozen; None where there is nothing.

    `only_due`: only where the queue's threshold or time asks for it. `before` is told "publish" and "close" ahead of
    each step, so that a caller can say where it is. Raises InputError for an unknown queue, or where a dataset that
    items came from is gone.
    """
    told = before or (lambda step: None)
    batch = _freeze(db, queue, only_due)
    if batch is None:
        return None
    told("publish")
    published = _publish(db, Path(root), queue, batch)
    told("close")
    return _close(db, queue, batch.id, published)


def close_due(db: Database, root: str | Path) -> list[Batch]:
    """Finish every frozen batch, and close what a threshold or a time asks for, of all queues: what a sweep does."""
    with db.read() as connection:
        names = list(connection.execute(sql.select(QUEUES.c.name).order_by(QUEUES.c.name)).scalars())
    closed = []
    for name in names:
        while (batch := close(db, root, name, only_due=True)) is not None:
            closed.append(batch)
    return closed


def batch_of(db: Database, number: int) -> Batch:
    """A closed batch by its id. Raises InputError where there is none."""
    with db.read() as connection:
        query = sql.select(BATCHES, QUEUES.c.name).join(QUEUES, BATCHES.c.queue == QUEUES.c.id)
        row = connection.execute(query.where(BATCHES.c.id == number, BATCHES.c.closed_at.isnot(None))).one_or_none()
    if row is None:
        raise InputError(f"no closed batch {number}")
    return _batch(row, row.name)


def pending(db: Database, most: int = 100) -> list[Event]:
    """Events that were not sent, oldest first."""
    with db.read() as connection:
        query = sql.select(OUTBOX).where(OUTBOX.c.sent_at.is_(None)).order_by(OUTBOX.c.id).limit(most)
        return [Event(row.id, row.batch, row.event, row.payload) for row in connection.execute(query)]


def sent(db: Database, event: int) -> None:
    """Mark an event as sent; the first time stays. Who crashes between sending and this sends it again."""
    with db.write() as connection:
        mine = sql.and_(OUTBOX.c.id == event, OUTBOX.c.sent_at.is_(None))
        connection.execute(OUTBOX.update().where(mine).values(sent_at=db.clock()))


def _closed_through(connection: sql.Connection, queue: int) -> int:
    last = sql.select(sql.func.coalesce(sql.func.max(BATCHES.c.through_seq), 0)).where(BATCHES.c.queue == queue)
    return connection.execute(last).scalar_one()


def _freeze(db: Database, queue: str, only_due: bool) -> sql.Row[Any] | None:
    with db.write() as connection:
        asked = lock(connection, queue)
        frozen = sql.select(BATCHES).where(BATCHES.c.queue == asked.id, BATCHES.c.closed_at.is_(None))
        if row := connection.execute(frozen.order_by(BATCHES.c.number).limit(1)).one_or_none():
            return row
        at = db.clock()
        reason = _due(connection, asked, at) or (None if only_due else "hand")
        after = _closed_through(connection, asked.id)
        through, number = connection.execute(
            sql.select(sql.func.max(JUDGEMENTS.c.seq), sql.func.count()).where(
                JUDGEMENTS.c.queue == asked.id, JUDGEMENTS.c.seq > after
            )
        ).one()
        if reason is None or not number:
            return None
        last = sql.select(sql.func.coalesce(sql.func.max(BATCHES.c.number), 0)).where(BATCHES.c.queue == asked.id)
        made = {
            "queue": asked.id, "number": 1 + connection.execute(last).scalar_one(), "after_seq": after,
            "through_seq": through, "judgements": number, "reason": reason, "frozen_at": at,
        }  # fmt: skip
        return connection.execute(BATCHES.insert().values(made).returning(BATCHES)).one()


def _publish(db: Database, root: Path, queue: str, batch: sql.Row[Any]) -> Dataset:
    """The dataset of a frozen batch: its key follows from what was judged, so a second try is the same version."""
    rows, origins = [], set()
    with db.read() as connection:
        for part in connection.execution_options(yield_per=_READ).execute(frozen(batch)).partitions():
            rows += [made for row in part for made in as_rows(row, queue)]
            origins |= {row.dataset for row in part if row.dataset is not None}
    params = {"queue": queue, "number": batch.number, "judgements": batch.judgements}
    content = sha256_json([[row["id"].hex(), row["superseded"]] for row in rows])
    judged = len({row["seq"] for row in rows})
    stats = {
        "batch": batch.id, "reason": batch.reason, "judgements": judged,
        "superseded": len({row["seq"] for row in rows if row["superseded"]}),
        "unjudged": sum(row["value"] is None for row in rows), "items": len({row["item"] for row in rows}),
        "raters": len({row["rater"] for row in rows}), "checks": sum(row["gold"] is not None for row in rows),
        "after_seq": batch.after_seq, "through_seq": batch.through_seq,
    }  # fmt: skip
    if judged != batch.judgements:
        raise RuntimeError(f"batch {batch.id} of {queue} froze {batch.judgements} judgements and has {judged}")
    table = to_arrow(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    inputs = [_input(root, origin) for origin in sorted(origins)]
    name = PREFIX + queue
    building = root / ".building" / f"{name}-{uuid.uuid4().hex[:12]}"
    try:
        return publish_rows(
            root, name, building, [table], ops=[{"name": OP, "version": VERSION, "params": params}], inputs=inputs,
            external=[content], made={"at": _told(batch.frozen_at)}, stats=stats, reproducible=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _told(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _input(root: Path, origin: str) -> Dataset:
    name, _, key = origin.partition(":")
    return Dataset.load(root / name / key[:12])


def _close(db: Database, queue: str, batch: int, published: Dataset) -> Batch:
    with db.write() as connection:
        lock(connection, queue)
        row = connection.execute(sql.select(BATCHES).where(BATCHES.c.id == batch)).one()
        if row.closed_at is None:
            version = {"dataset": published.name, "dataset_key": published.key, "digest": published.digest}
            stated = BATCHES.update().where(BATCHES.c.id == batch).values(closed_at=db.clock(), **version)
            row = connection.execute(stated.returning(BATCHES)).one()
            payload = {"batch": batch, "queue": queue, "number": row.number, "judgements": row.judgements, **version}
            event = {"batch": batch, "event": EVENT, "payload": json.loads(canonical_json(payload))}
            connection.execute(OUTBOX.insert().values(**event, made_at=db.clock()))
        return _batch(row, queue)


def _batch(row: sql.Row[Any], queue: str) -> Batch:
    return Batch(
        row.id, queue, row.number, row.judgements, row.reason, row.after_seq, row.through_seq, row.closed_at,
        row.dataset, row.dataset_key, row.digest,
    )  # fmt: skip
