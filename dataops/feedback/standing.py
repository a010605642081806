"""What stands in a queue: the last word of each rater on each item, as tables of ratings and as counts.

The law kept here: a superseded judgement and one that could not be made never count; nobody's silence is a label.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sql

from gristmill.dataops.feedback.batches import due
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.judge import could_judge, superseded
from gristmill.dataops.feedback.queues import GOLD, find
from gristmill.dataops.feedback.tables import BATCHES, ITEMS, JUDGEMENTS, OUTBOX, QUEUES, RATERS
from gristmill.dataops.identity import canonical_json

VALUE = "value"  # the one table of all kinds but ratings, which have one per aspect


def tables(db: Database, queue: str) -> dict[str, list[list[Any]]]:
    """Tables of ratings, rows by raters (by name), None for missing: what agreement is computed of.

    Of a rating queue one per aspect, whose rows are responses and whose cells are numbers; of the others one called
    "value", whose rows are items: the side that is preferred ("first", "second", "tie"), "up" or "down", or the ranks.
    Of edits none: they have no label that raters could share. Raises InputError for an unknown queue.
    """
    with db.read() as connection:
        asked = find(connection, queue)
        rows = connection.execute(
            sql.select(JUDGEMENTS.c.item, RATERS.c.name, JUDGEMENTS.c.value)
            .join(RATERS, JUDGEMENTS.c.rater == RATERS.c.id)
            .join(ITEMS, JUDGEMENTS.c.item == ITEMS.c.id)
            .where(JUDGEMENTS.c.queue == asked.id, could_judge(JUDGEMENTS))
            .where(~superseded(JUDGEMENTS, JUDGEMENTS.alias()))
            .order_by(ITEMS.c.rank, RATERS.c.name)
        ).all()
    columns = {name: n for n, name in enumerate(sorted({row.name for row in rows}))}
    made: dict[str, dict[tuple[str, int], list[Any]]] = {}
    for row in rows:
        for aspect, response, label in _labels(asked.kind, row.value):
            place = made.setdefault(aspect, {}).setdefault((row.item, response), [None] * len(columns))
            place[columns[row.name]] = label
    return {aspect: list(places.values()) for aspect, places in sorted(made.items())}


def _labels(kind: str, value: Any) -> list[tuple[str, int, Any]]:
    """(aspect, response, label) of a judgement."""
    if kind == "edit":
        return []
    if kind == "rating":
        return [(aspect, n, one) for aspect, given in value.items() for n, one in enumerate(given) if one is not None]
    if kind == "pairwise":
        return [(VALUE, 0, "tie" if value[0] == value[1] else "first" if value[0] > value[1] else "second")]
    if kind == "thumbs":
        return [(VALUE, 0, "up" if value[0] else "down")]
    return [(VALUE, 0, canonical_json(value))]


def checks(db: Database, queue: str) -> dict[str, tuple[int, int]]:
    """(right, judged) of the gold checks by rater. Raises InputError for an unknown queue."""
    with db.read() as connection:
        asked = find(connection, queue)
        rows = connection.execute(
            sql.select(RATERS.c.name, JUDGEMENTS.c.value, ITEMS.c.gold)
            .join(RATERS, JUDGEMENTS.c.rater == RATERS.c.id)
            .join(ITEMS, JUDGEMENTS.c.item == ITEMS.c.id)
            .where(ITEMS.c.queue == asked.id, ITEMS.c.strategy == GOLD, could_judge(JUDGEMENTS))
            .where(~superseded(JUDGEMENTS, JUDGEMENTS.alias()))
        ).all()
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        right, judged = found.get(row.name, (0, 0))
        found[row.name] = (right + (row.value == row.gold), judged + 1)
    return dict(sorted(found.items()))


def status(db: Database) -> list[dict[str, Any]]:
    """Every queue by name: what was asked, what was said, what waits for a batch, and the batches."""
    with db.read() as connection:
        queues = connection.execute(sql.select(QUEUES).order_by(QUEUES.c.name)).all()
        found = [_of(connection, queue) for queue in queues]
    for one in found:
        one["due"] = due(db, one["queue"])
        one["checks"] = {
            name: {"right": right, "judged": judged} for name, (right, judged) in checks(db, one["queue"]).items()
        }
    return found


def _of(connection: sql.Connection, queue: sql.Row[Any]) -> dict[str, Any]:
    items = connection.execute(
        sql.select(
            sql.func.count().label("items"),
            sql.func.count(sql.case((sql.and_(ITEMS.c.open, ITEMS.c.strategy != GOLD), 1))).label("open"),
            sql.func.count(sql.case((ITEMS.c.strategy == GOLD, 1))).label("gold"),
        ).where(ITEMS.c.queue == queue.id)
    ).one()
    mine = JUDGEMENTS.c.queue == queue.id
    said = connection.execute(
        sql.select(
            sql.func.count().label("judgements"), sql.func.count(sql.distinct(JUDGEMENTS.c.rater)).label("raters")
        ).where(mine)
    ).one()
    standing = sql.select(sql.func.count()).where(
        mine, could_judge(JUDGEMENTS), ~superseded(JUDGEMENTS, JUDGEMENTS.alias())
    )
    event = sql.select(OUTBOX.c.sent_at).where(OUTBOX.c.batch == BATCHES.c.id).scalar_subquery().label("sent_at")
    batches = connection.execute(
        sql.select(BATCHES, event).where(BATCHES.c.queue == queue.id).order_by(BATCHES.c.number)
    ).all()
    return {
        "queue": queue.name,
        "kind": queue.kind,
        "wanted": queue.wanted,
        "threshold": queue.threshold,
        "max_age_seconds": None if queue.max_age_ms is None else queue.max_age_ms / 1000,
        **items._mapping,
        **said._mapping,
        "standing": connection.execute(standing).scalar_one(),
        "waiting": said.judgements - sum(batch.judgements for batch in batches),
        "batches": [
            {
                "batch": batch.id, "number": batch.number, "judgements": batch.judgements, "reason": batch.reason,
                "state": "frozen" if batch.closed_at is None else "closed", "closed_at": batch.closed_at,
                "dataset": batch.dataset, "key": batch.dataset_key, "event_sent": batch.sent_at is not None,
            }
            for batch in batches
        ],
    }  # fmt: skip
