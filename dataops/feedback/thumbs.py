"""Thumbs from production: an answer that an application gave, and whether its user liked it.

Nobody put the item in and nobody leased it: item, rater, showing and judgement come at once, in one transaction. The
laws are those of judge.py: one key is one thumb however often it is sent; another thumb of the same user for the same
answer supersedes the first; what is refused leaves no trace. Two users who were given the same answer to the same
prompt judge one item. Not covered: telling an application's users apart, who are whom it says they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.chat.messages import Fault, check
from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.candidates import Candidate, candidate, fits
from gristmill.dataops.feedback.database import Database, lock
from gristmill.dataops.feedback.judge import Judged, Refused, Said, checked, kept
from gristmill.dataops.feedback.queues import insert_new, item_row, rater_name
from gristmill.dataops.feedback.tables import ITEMS, JUDGEMENTS, RATERS, SHOWINGS
from gristmill.dataops.feedback.values import sound

STRATEGY = "production"


@dataclass(frozen=True)
class Thumb:
    """What a user of an application thought of a response; `prompt` is a text or messages, `response` a text or a
    message, `policy` the model that gave it, `key` and `client_at` as in `judge.Said`."""

    queue: str
    prompt: str | Sequence[Mapping[str, Any]]
    response: str | Mapping[str, Any]
    label: bool
    rater: str
    key: str
    policy: str | None = None
    tools: str | None = None
    comment: str | None = None
    client_at: str | None = None


@dataclass(frozen=True)
class _Item:
    """A thumb with the item that it is of."""

    candidate: Candidate
    said: Said


def thumbs_all(db: Database, given: Sequence[Thumb]) -> list[Judged | Refused]:
    """Keep several thumbs in one transaction; what comes back stands in the order given, and one that is refused leaves
    the others as they are."""
    read = [_read(one) for one in given]
    queues: dict[str, list[int]] = {}
    for n, thumb in enumerate(given):
        if isinstance(read[n], _Item):
            queues.setdefault(thumb.queue, []).append(n)
    for last in (False, True):
        found = {n: one for n, one in enumerate(read) if isinstance(one, Refused)}
        kept_now: dict[int, Judged | Refused] = {}
        try:
            with db.write() as connection:
                for queue, part in sorted(queues.items()):  # so that nobody waits in a circle
                    items = [one for n in part if isinstance(one := read[n], _Item)]
                    kept_now |= zip(part, _keep(connection, db.clock(), queue, items), strict=True)
        except sql.exc.IntegrityError:  # somebody else used a key, or made the rater, in this moment
            if last:
                raise
            continue
        break
    answers = found | kept_now
    return [answers[n] for n in range(len(given))]


def _read(one: Thumb) -> _Item | Refused:
    """What can be said of a thumb without the database."""
    try:
        sound(one.queue, "the queue")
        reply = {"message": one.response} if isinstance(one.response, Mapping) else {"text": one.response}
        row = {"prompt": one.prompt, "responses": [reply | {"policy": one.policy}], "tools": one.tools}
        made = fits("thumbs", candidate(row, "the thumb"), "the thumb")
        check([{"content": None, **turn} for turn in (*made.prompt, made.responses[0].message)])
        rater_name(one.rater)
    except (Fault, InputError) as error:
        return Refused("bad_value", str(error))
    value = [1.0 if one.label else 0.0]
    said = checked(Said(made.identity(one.queue), one.rater, value, one.key, one.comment, one.client_at))
    return said if isinstance(said, Refused) else _Item(made, said)


def _keep(connection: sql.Connection, at: int, queue: str, items: Sequence[_Item]) -> list[Judged | Refused]:
    """The thumbs of one queue, which is locked: whoever closes a batch of it waits."""
    try:
        asked = lock(connection, queue)
    except InputError as error:
        return [Refused("unknown_queue", str(error)) for _ in items]
    if asked.kind != "thumbs":
        told = f"queue {queue} asks for a {asked.kind}, and takes no thumbs of applications"
        return [Refused("wrong_kind", told) for _ in items]
    used = _used(connection, [one.said.key for one in items])
    new: list[_Item] = []
    for one in items:
        if one.said.key not in used:  # what is refused for its key must leave no item
            used[one.said.key] = (one.said.item, one.said.rater)
            new.append(one)
    _show(connection, at, asked.id, queue, new)
    return [
        kept(connection, at, one.said)
        if used[one.said.key] == (one.said.item, one.said.rater)
        else Refused("key_reused", f"the key {one.said.key!r} was used for another judgement: take a new one")
        for one in items
    ]


def _used(connection: sql.Connection, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Which item was judged under each of these keys, and by whom."""
    query = sql.select(JUDGEMENTS.c.key, JUDGEMENTS.c.item, RATERS.c.name).join(RATERS)
    rows = connection.execute(query.where(JUDGEMENTS.c.key.in_(sorted(set(keys)))))
    return {row.key: (row.item, row.name) for row in rows}


def _show(connection: sql.Connection, at: int, number: int, queue: str, new: Sequence[_Item]) -> None:
    """Make items and raters that are not there, and say that these raters saw these items."""
    if not new:
        return
    first = max(connection.execute(_LAST, {"queue": number, "open": open}).scalar() or 0 for open in (True, False)) + 1
    rows = [item_row(one.candidate, queue, number, first + n, at, STRATEGY, None) for n, one in enumerate(new)]
    insert_new(connection, ITEMS, rows, "id")
    names = sorted({one.said.rater for one in new})
    insert_new(connection, RATERS, ({"name": name, "made_at": at} for name in names), "name")
    known = sql.select(RATERS.c.name, RATERS.c.id).where(RATERS.c.name.in_(names))
    raters: dict[str, int] = {row.name: row.id for row in connection.execute(known)}
    pairs = dict.fromkeys((one.said.item, raters[one.said.rater]) for one in new)
    seen = sql.select(SHOWINGS.c.item, SHOWINGS.c.rater).where(
        SHOWINGS.c.item.in_({item for item, _ in pairs}), SHOWINGS.c.rater.in_(raters.values())
    )
    for row in connection.execute(seen):
        pairs.pop((row.item, row.rater), None)
    if pairs:
        shown = [{"item": item, "rater": who, "order": [0], "shown_at": at, "lease_until": at} for item, who in pairs]
        connection.execute(SHOWINGS.insert(), shown)


_LAST = (  # by the index, which a maximum over both would read from end to end
    sql.select(ITEMS.c.rank)
    .where(ITEMS.c.queue == sql.bindparam("queue"), ITEMS.c.open == sql.bindparam("open"))
    .order_by(ITEMS.c.rank.desc())
    .limit(1)
)
