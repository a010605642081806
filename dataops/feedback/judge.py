"""Judgements: what a rater says of an item that was shown to them, kept for good.

The laws: nothing is overwritten, a second judgement of the same item by the same rater is its next version, and the
last one counts; one idempotency key is one judgement, however often it is sent; an item that was never shown to a rater
cannot be judged by them; the server's clock says when, the client's is kept beside it as it was told. A judgement that
comes after its lease ended counts like any other. Not covered: who may call this (the HTTP API), and how fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sql

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.queues import GOLD
from gristmill.dataops.feedback.tables import ITEMS, JUDGEMENTS, QUEUES, RATERS, SHOWINGS
from gristmill.dataops.feedback.values import of_item, sound
from gristmill.dataops.identity import canonical_json

Why = Literal[
    "bad_key", "bad_value", "key_reused", "not_shown", "unknown_item", "unknown_queue", "unknown_rater", "wrong_kind"
]
_KEY = 200  # characters of an idempotency key, and of a client's time
_COMMENT = 10_000  # characters


class Refused(InputError):
    """A judgement that does not count; `why` is one word for a program."""

    def __init__(self, why: Why, told: str):
        super().__init__(told)
        self.why = why


@dataclass(frozen=True)
class Said:
    """A judgement as it is sent. `value` is of the responses in the order in which they were shown last, None where the
    rater could not judge; `key` is the client's own name for this judgement, `client_at` its time as a text."""

    item: str
    rater: str
    value: Any
    key: str
    comment: str | None = None
    client_at: str | None = None


@dataclass(frozen=True)
class Judged:
    """A judgement as it is kept: `version` above 1 supersedes; `again` where this very one was there already."""

    seq: int
    item: str
    rater: str
    version: int
    value: Any
    judged_at: int
    again: bool


def judge(
    db: Database,
    item: str,
    rater: str,
    value: Any,
    *,
    key: str,
    comment: str | None = None,
    client_at: str | None = None,
) -> Judged:
    """Keep one judgement (see `Said`); the same key with the same content answers as the first time. Raises Refused."""
    [found] = judge_all(db, [Said(item, rater, value, key, comment, client_at)])
    if isinstance(found, Refused):
        raise found
    return found


def judge_all(db: Database, said: Sequence[Said]) -> list[Judged | Refused]:
    """Keep several judgements in one transaction, which costs one write to the disk for all of them.

    What comes back stands in the order given; one that is refused leaves the others as they are.
    """
    sound_ones = [checked(one) for one in said]
    # By item, so that two who keep the same items on PostgreSQL do not wait for each other for ever.
    order = sorted(range(len(said)), key=lambda n: said[n].item if isinstance(sound_ones[n], Said) else "")
    for last in (False, True):
        found: dict[int, Judged | Refused] = {}
        try:
            with db.write() as connection:
                for n in order:
                    found[n] = kept(connection, db.clock(), sound_ones[n])
        except sql.exc.IntegrityError:  # somebody else used the key in this moment: the second time it is there
            if last:
                raise
            continue
        break
    return [found[n] for n in range(len(said))]


def checked(one: Said) -> Said | Refused:
    """What can be said of a judgement without the database."""
    if not isinstance(one.key, str) or not 0 < len(one.key) <= _KEY:
        return Refused("bad_key", f"an idempotency key has 1 to {_KEY} characters")
    try:
        for name, text in (("item", one.item), ("rater", one.rater), ("key", one.key)):
            if not isinstance(text, str):
                raise InputError(f"the {name} is a text, not {text!r}")
            sound(text, f"the {name}")
        told = None if one.client_at is None else sound(str(one.client_at)[:_KEY], "the client's time")
        return replace(one, comment=_remark(one.comment), client_at=told)
    except InputError as error:
        return Refused("bad_value", str(error))


def kept(connection: sql.Connection, at: int, one: Said | Refused) -> Judged | Refused:
    """Keep what was checked in a transaction that others began; one that is refused leaves no trace in it."""
    if isinstance(one, Refused):
        return one
    try:
        return _keep(connection, at, one)
    except Refused as refused:  # raised before anything is written
        return refused


def _keep(connection: sql.Connection, at: int, one: Said) -> Judged:
    found = connection.execute(_ITEM, {"item": one.item}).one_or_none()
    if found is None:
        raise Refused("unknown_item", f"there is no item {one.item!r}")
    if connection.dialect.name != "sqlite":  # where whoever writes is alone
        connection.execute(_ALONE, {"item": one.item})
    shown = connection.execute(_SHOWN, {"item": one.item, "rater": one.rater}).one_or_none()
    if shown is None:
        raise Refused("unknown_rater", f"no rater {one.rater!r}: raters are made known before they judge")
    if shown.id is None:
        raise Refused("not_shown", f"item {one.item} was never shown to {one.rater}: ask for the next item first")
    try:
        value = of_item(found.kind, one.value, shown.order)
    except InputError as error:
        raise Refused("bad_value", str(error)) from None
    row = {"item": one.item, "rater": shown.rater, "value": value, "comment": one.comment}
    before = connection.execute(_BEFORE, {"key": one.key}).one_or_none()
    if before is not None:
        if canonical_json({name: before._mapping[name] for name in row}) != canonical_json(row):
            raise Refused("key_reused", f"the key {one.key!r} was used for another judgement: take a new one")
        return Judged(before.seq, one.item, one.rater, before.version, before.value, before.judged_at, True)
    row |= {"key": one.key, "queue": found.queue, "showing": shown.id, "version": shown.version + 1}
    at = max(at, shown.judged_at)  # a clock that was set back never puts a correction before what it corrects
    row |= {"client_at": one.client_at, "judged_at": at}
    seq = connection.execute(_INSERT, row).scalar_one()
    connection.execute(_RECOUNT, {"of": one.item, "wanted": found.wanted})
    return Judged(seq, one.item, one.rater, shown.version + 1, value, at, False)


def _remark(comment: str | None) -> str | None:
    """A comment as it is kept. Raises InputError for one that is too long, or no text."""
    if comment is not None and (not isinstance(comment, str) or len(comment) > _COMMENT):
        raise InputError(f"a comment is a text of at most {_COMMENT:,} characters")
    return comment and sound(comment, "the comment")


def could_judge(judgements: Any) -> sql.ColumnElement[bool]:
    """Whether the rater said something; null in the database is a rater who could not."""
    return sql.cast(judgements.c.value, sql.Text).isnot(None)


def superseded(judgements: Any, newer: Any, through: int | None = None) -> sql.ColumnElement[bool]:
    """Whether the same rater judged the same item again (up to a number of the judgements)."""
    later = sql.exists().where(
        newer.c.item == judgements.c.item, newer.c.rater == judgements.c.rater, newer.c.version > judgements.c.version
    )
    return later if through is None else later.where(newer.c.seq <= through)


def recounted(which: sql.ColumnElement[bool], wanted: Any) -> sql.Update:
    """Says of items how many raters have judged them, and whether they need more; a check always does."""
    standing = sql.select(sql.func.count()).where(
        JUDGEMENTS.c.item == ITEMS.c.id, could_judge(JUDGEMENTS), ~superseded(JUDGEMENTS, JUDGEMENTS.alias())
    )
    judged = standing.scalar_subquery()
    return ITEMS.update().where(which).values(judged=judged, open=sql.or_(ITEMS.c.strategy == GOLD, judged < wanted))


# Made once: building a statement takes longer than running it.
_ITEM = (
    sql.select(ITEMS.c.queue, QUEUES.c.kind, QUEUES.c.wanted)
    .join(QUEUES, ITEMS.c.queue == QUEUES.c.id)
    .where(ITEMS.c.id == sql.bindparam("item"))
    .with_for_update(read=True, of=QUEUES)  # with others who judge, but not with who closes
)
#: One at a time per item: the next version follows from the last.
_ALONE = sql.select(ITEMS.c.id).where(ITEMS.c.id == sql.bindparam("item")).with_for_update()
_SHOWN = (
    sql.select(
        RATERS.c.id.label("rater"), SHOWINGS.c.id, SHOWINGS.c.order,
        *(
            sql.select(sql.func.coalesce(sql.func.max(JUDGEMENTS.c[name]), 0))
            .where(JUDGEMENTS.c.item == sql.bindparam("item"), JUDGEMENTS.c.rater == RATERS.c.id)
            .scalar_subquery()
            .label(name)
            for name in ("version", "judged_at")
        ),
    )
    .outerjoin(SHOWINGS, sql.and_(SHOWINGS.c.rater == RATERS.c.id, SHOWINGS.c.item == sql.bindparam("item")))
    .where(RATERS.c.name == sql.bindparam("rater"))
    .order_by(SHOWINGS.c.id.desc())
    .limit(1)
)  # fmt: skip
_BEFORE = sql.select(JUDGEMENTS).where(JUDGEMENTS.c.key == sql.bindparam("key"))
_INSERT = JUDGEMENTS.insert().returning(JUDGEMENTS.c.seq)
_RECOUNT = recounted(ITEMS.c.id == sql.bindparam("of"), sql.bindparam("wanted"))
