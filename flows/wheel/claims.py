"""Claims: which closed batches a model is made better by, and what became of it.

The idea: an alignment takes all batches of a queue that nobody took, up to the one that asks, in one transaction, and
fixes in it the model that it starts from and the recipe. All that is made afterwards follows from these, so whoever
goes on after a crash makes the same. The laws: a batch is taken by one alignment at most, so it is trained on once;
alignments of one model come one after the other, each from what the last one left; one that has ended stays as it is.
Who made nothing of its batches may give them back. Not covered: who may align, and where it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sql

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.batches import Batch, batch_of
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.tables import ALIGNMENTS, BATCHES, QUEUES, TAKEN
from gristmill.dataops.identity import canonical_json

Verdict = Literal["promoted", "blocked", "nothing"]


@dataclass(frozen=True)
class Alignment:
    """A claim: `start` is NAME:KEY of the model, `batches` those it took, by number. `verdict` and `result` are None
    until it has ended."""

    id: int
    queue: str
    kind: str
    start: str
    recipe: dict[str, Any]
    batches: tuple[Batch, ...]
    claimed_at: int
    verdict: Verdict | None
    result: dict[str, Any] | None


def claim(db: Database, batch: int, start: Callable[[], str], recipe: Mapping[str, Any]) -> Alignment:
    """The alignment that is to be done now for a closed batch to be aligned.

    That is the one that took it; or the one of this model that has not ended, which comes first; or a new one, which
    takes all batches of the queue that are not taken, up to this one. `recipe` is plain data and names the `model`.
    `start` says which one is promoted now (NAME:KEY) and is asked while nobody else can claim. Raises InputError where
    there is no such closed batch, and what `start` raises.
    """
    asked = batch_of(db, batch)
    with db.write() as connection:
        # All queues are locked, since alignments of two queues may be of one model.
        locked = connection.execute(sql.select(QUEUES).order_by(QUEUES.c.id).with_for_update())
        queues = {row.name: row.id for row in locked}
        taken = sql.select(TAKEN.c.alignment).where(TAKEN.c.batch == batch)
        number = connection.execute(taken).scalar_one_or_none()
        if number is None:
            number = _unended(connection, recipe["model"])
        if number is None:
            number = _take(connection, asked, queues[asked.queue], start(), recipe, db.clock())
    return alignment(db, number)


def claimed(db: Database, batch: int) -> Alignment | None:
    """The alignment that took a batch. Raises InputError where there is no such closed batch."""
    batch_of(db, batch)
    with db.read() as connection:
        taken = sql.select(TAKEN.c.alignment).where(TAKEN.c.batch == batch)
        number = connection.execute(taken).scalar_one_or_none()
    return None if number is None else alignment(db, number)


def alignment(db: Database, number: int) -> Alignment:
    """An alignment by its id. Raises InputError where there is none."""
    with db.read() as connection:
        query = sql.select(ALIGNMENTS, QUEUES.c.name, QUEUES.c.kind).join(QUEUES, ALIGNMENTS.c.queue == QUEUES.c.id)
        row = connection.execute(query.where(ALIGNMENTS.c.id == number)).one_or_none()
        took = sql.select(TAKEN.c.batch).where(TAKEN.c.alignment == number).order_by(TAKEN.c.batch)
        batches = list(connection.execute(took).scalars())
    if row is None:
        raise InputError(f"no alignment {number}")
    return Alignment(
        row.id, row.name, row.kind, row.start, row.recipe, tuple(batch_of(db, batch) for batch in batches),
        row.claimed_at, row.verdict, row.result,
    )  # fmt: skip


def ended(db: Database, number: int, verdict: Verdict, result: Mapping[str, Any]) -> Alignment:
    """Record how an alignment ended; where somebody did before, that stays."""
    told = {"verdict": verdict, "result": json.loads(canonical_json(dict(result))), "ended_at": db.clock()}
    with db.write() as connection:
        mine = sql.and_(ALIGNMENTS.c.id == number, ALIGNMENTS.c.ended_at.is_(None))
        connection.execute(ALIGNMENTS.update().where(mine).values(told))
    return alignment(db, number)


def give_back(db: Database, number: int) -> None:
    """Undo the claim of an alignment that has trained nothing and has not ended: its batches are free again."""
    with db.write() as connection:
        mine = sql.select(ALIGNMENTS.c.id).where(ALIGNMENTS.c.id == number, ALIGNMENTS.c.ended_at.is_(None))
        if connection.execute(mine.with_for_update()).one_or_none() is not None:
            connection.execute(TAKEN.delete().where(TAKEN.c.alignment == number))
            connection.execute(ALIGNMENTS.delete().where(ALIGNMENTS.c.id == number))


def unaligned(db: Database) -> list[int]:
    """Closed batches, oldest first, that no alignment took, or one that has not ended."""
    with db.read() as connection:
        query = (
            sql.select(BATCHES.c.id)
            .outerjoin(TAKEN, TAKEN.c.batch == BATCHES.c.id)
            .outerjoin(ALIGNMENTS, TAKEN.c.alignment == ALIGNMENTS.c.id)
            .where(BATCHES.c.closed_at.isnot(None), ALIGNMENTS.c.ended_at.is_(None))
            .order_by(BATCHES.c.id)
        )
        return list(connection.execute(query).scalars())


def _unended(connection: sql.Connection, model: str) -> int | None:
    """The first alignment of a model's name that has not ended."""
    open_ = sql.select(ALIGNMENTS.c.id, ALIGNMENTS.c.recipe).where(ALIGNMENTS.c.ended_at.is_(None))
    rows = connection.execute(open_.order_by(ALIGNMENTS.c.id))
    return next((row.id for row in rows if row.recipe["model"] == model), None)


def _take(connection: sql.Connection, asked: Batch, queue: int, start: str, recipe: Mapping[str, Any], at: int) -> int:
    free = (
        sql.select(BATCHES.c.id)
        .outerjoin(TAKEN, TAKEN.c.batch == BATCHES.c.id)
        .where(BATCHES.c.queue == queue, BATCHES.c.closed_at.isnot(None), BATCHES.c.number <= asked.number)
        .where(TAKEN.c.batch.is_(None))
    )
    batches = list(connection.execute(free.order_by(BATCHES.c.id)).scalars())
    row = {"queue": queue, "start": start, "recipe": json.loads(canonical_json(dict(recipe))), "claimed_at": at}
    number: int = connection.execute(ALIGNMENTS.insert().values(row).returning(ALIGNMENTS.c.id)).scalar_one()
    connection.execute(TAKEN.insert(), [{"batch": batch, "alignment": number} for batch in batches])
    return number
