"""Queues: what is put in, and who gets what next.

The laws: an item is in a queue once, however often it is put; a rater is shown an item only while it still needs a
judgement that nobody else holds a lease for, and never again after judging it; asking again before the lease ends gives
the same item. A lease that ran out frees the item, and the judgement of whoever held it still counts. Gold checks are
mixed in by share, stand open for every rater, and look like any other item.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.feedback.candidates import Candidate, bare, rank
from gristmill.dataops.feedback.database import Database, lock
from gristmill.dataops.feedback.tables import ITEMS, JUDGEMENTS, QUEUES, RATERS, SHOWINGS
from gristmill.dataops.feedback.values import KINDS, same_order, sound

_MANY = 500  # rows of one statement: SQLite takes 32,766 parameters
_ROW = re.compile(r"[0-9a-f]{32}")  # a row's id in hex
GOLD = "gold"  # the strategy of items that check raters


@dataclass(frozen=True)
class Shown:
    """An item before a rater: `responses` are messages in the order shown. A judgement is sent with `item`."""

    showing: int
    item: str
    kind: str
    prompt: list[dict[str, Any]]
    responses: tuple[dict[str, Any], ...]
    tools: str | None
    shown_at: int
    lease_until: int


@dataclass(frozen=True)
class Put:
    """How many candidates became items, were there before, say the same thing twice, or came after `most`."""

    added: int
    known: int
    same_responses: int
    left: int


def make_queue(
    db: Database,
    name: str,
    kind: str,
    *,
    wanted: int | None = None,
    lease_seconds: float | None = None,
    gold_share: float | None = None,
    threshold: int | None = None,
    max_age_seconds: float | None = None,
) -> None:
    """Make a queue, or change what is given of one that is there; its kind stays.

    A new one asks for one judgement per item, leases for 600 s, mixes in no gold and closes by hand alone. `wanted` is
    judgements per item by different raters, `threshold` judgements, `max_age_seconds` of the oldest, that close a
    batch. Raises InputError for a kind or a number that is none.
    """
    if kind not in KINDS:
        raise InputError(f"no kind of queue {kind!r}; there are: {', '.join(KINDS)}")
    if not name or set(name) & set("/@:\0") or name.startswith("."):
        raise InputError(f"{name!r} cannot name a queue: no /, @ or :, and no dot in front")
    for what, number, least in (("wanted", wanted, 1), ("threshold", threshold, 1)):
        if number is not None and number < least:
            raise InputError(f"{what} is {least} or more, not {number}")
    for what, seconds in (("lease_seconds", lease_seconds), ("max_age_seconds", max_age_seconds)):
        if seconds is not None and seconds <= 0:
            raise InputError(f"{what} is above 0, not {seconds}")
    if gold_share is not None and not 0 <= gold_share < 1:
        raise InputError(f"gold_share is from 0 to below 1, not {gold_share}")
    given = {
        "wanted": wanted,
        "lease_ms": None if lease_seconds is None else round(1000 * lease_seconds),
        "gold_share": gold_share,
        "threshold": threshold,
        "max_age_ms": None if max_age_seconds is None else round(1000 * max_age_seconds),
    }
    said = {key: value for key, value in given.items() if value is not None}
    with db.write() as connection:
        new = {"wanted": 1, "lease_ms": 600_000, "gold_share": 0.0, **said}
        made = insert_new(connection, QUEUES, [{"name": name, "kind": kind, "made_at": db.clock(), **new}], "name")
        queue = lock(connection, name)
        if queue.kind != kind:
            raise InputError(f"queue {name} asks for a {queue.kind}, not for a {kind}: take another name")
        if said and not made:
            connection.execute(QUEUES.update().where(QUEUES.c.id == queue.id).values(said))
        if wanted is not None and not made:
            still = sql.and_(ITEMS.c.queue == queue.id, ITEMS.c.strategy != GOLD)
            connection.execute(ITEMS.update().where(still).values(open=ITEMS.c.judged < wanted))


def add_rater(db: Database, name: str) -> int:
    """The number of a rater, who is made known where new. Raises InputError for a name that is none."""
    rater_name(name)
    with db.write() as connection:
        insert_new(connection, RATERS, [{"name": name, "made_at": db.clock()}], "name")
        return connection.execute(sql.select(RATERS.c.id).where(RATERS.c.name == name)).scalar_one()


def rater_name(name: str) -> str:
    """The name, if it can be a rater's. Raises InputError."""
    if not name.strip() or len(name) > 200:
        raise InputError(f"a rater's name has 1 to 200 characters, not {len(name)}")
    return sound(name, "a rater's name")


def put(
    db: Database,
    queue: str,
    candidates: Iterable[Candidate],
    *,
    strategy: str,
    most: int | None = None,
    seed: int = 0,
    dataset: Dataset | None = None,
) -> Put:
    """Put the `most` candidates that a strategy ranks first behind what is in a queue; those with a gold judgement are
    checks, and all taken.

    `dataset` is where the responses come from, and each candidate's `source` a row of it, in hex: the batches name
    both. Raises InputError for candidates that do not fit the queue.
    """
    with db.read() as connection:
        kind = find(connection, queue).kind
    given = list(candidates)
    for one in given:
        if dataset is not None and one.source is not None and not _ROW.fullmatch(one.source):
            raise InputError(f"`id` {one.source!r} names no row of {dataset.name}: 32 hex digits, or none")
    checks = rank([one for one in given if one.gold is not None], kind, "random", seed=seed)
    asked = rank([one for one in given if one.gold is None], kind, strategy, seed=seed)
    taken = [*checks, *asked[:most]]
    same = len(given) - len(checks) - len(asked)
    origin = None if dataset is None else f"{dataset.name}:{dataset.key}"
    with db.write() as connection:
        number = lock(connection, queue).id
        first = connection.execute(
            sql.select(sql.func.coalesce(sql.func.max(ITEMS.c.rank) + 1, 0)).where(ITEMS.c.queue == number)
        ).scalar_one()
        rows = [
            item_row(one, queue, number, first + n, db.clock(), GOLD if one.gold is not None else strategy, origin)
            for n, one in enumerate(taken)
        ]
        added = insert_new(connection, ITEMS, rows, "id")
    return Put(added, len(taken) - added, same, len(asked) - len(asked[:most]))


def item_row(
    one: Candidate, queue: str, number: int, place: int, at: int, strategy: str, dataset: str | None
) -> dict[str, Any]:
    """A candidate as a row of the items."""
    said = [{"message": bare(response.message), "policy": response.policy} for response in one.responses]
    asked = [bare(turn) for turn in one.prompt]
    return {
        "id": one.identity(queue), "queue": number, "prompt": asked, "responses": said, "gold": one.gold,
        "strategy": strategy, "score": one.score, "dataset": dataset, "source": one.source, "tools": one.tools,
        "rank": place, "judged": 0, "open": True, "made_at": at,
    }  # fmt: skip


def next_item(db: Database, queue: str, rater: str) -> Shown | None:
    """What a rater is to judge now, leased; None where nothing is left for them. Raises InputError for names that are
    unknown."""
    with db.write() as connection:
        return _lease(connection, lock(connection, queue), rater_id(connection, rater), db.clock())


def next_items(db: Database, asked: Sequence[tuple[str, str]]) -> list[Shown | None | InputError]:
    """The same for several (queue, rater) in one transaction, which costs one write to the disk for all of them; in the
    order given, with the error in the place of those whose names are unknown."""
    found: dict[int, Shown | None | InputError] = {}
    with db.write() as connection:
        for n in sorted(range(len(asked)), key=lambda n: asked[n][0]):  # so that nobody waits in a circle
            queue, rater = asked[n]
            try:
                locked, who = lock(connection, sound(queue, "the queue")), rater_id(connection, rater)
            except InputError as error:
                found[n] = error
            else:
                found[n] = _lease(connection, locked, who, db.clock())
    return [found[n] for n in range(len(asked))]


def _lease(connection: sql.Connection, asked: sql.Row[Any], who: int, at: int) -> Shown | None:
    given = {"queue": asked.id, "rater": who, "at": at, "wanted": asked.wanted}
    if row := connection.execute(_MINE, given).one_or_none():
        return _shown(asked.kind, row, row.showing, row.order, row.shown_at, row.lease_until)
    for query in [_CHECK, _NORMAL] if _gold_is_due(connection, asked, who) else [_NORMAL]:
        if row := connection.execute(query, given).one_or_none():
            break
    else:
        return None
    order = same_order(len(row.responses))
    random.Random(f"{row.id} {who}").shuffle(order)  # who sees which first is settled by content, not by chance
    until = at + asked.lease_ms
    stated = {"item": row.id, "rater": who, "order": order, "shown_at": at, "lease_until": until}
    showing = connection.execute(_SHOW, stated).scalar_one()
    return _shown(asked.kind, row, showing, order, at, until)


def _gold_is_due(connection: sql.Connection, asked: sql.Row[Any], who: int) -> bool:
    """Whether a check now keeps the share of checks among what this rater was shown at what the queue asks for."""
    if asked.gold_share == 0:
        return False
    shown, checks = connection.execute(_SEEN, {"queue": asked.id, "rater": who}).one()
    return checks + 1 <= asked.gold_share * (shown + 1)


# Made once: building a statement takes longer than running it.
_QUEUE: sql.BindParameter[int] = sql.bindparam("queue")
_WHO: sql.BindParameter[int] = sql.bindparam("rater")
_AT: sql.BindParameter[int] = sql.bindparam("at")
_JUDGED = sql.exists().where(JUDGEMENTS.c.item == ITEMS.c.id, JUDGEMENTS.c.rater == _WHO)
_HELD = sql.and_(SHOWINGS.c.item == ITEMS.c.id, SHOWINGS.c.lease_until > _AT)
_MINE = (
    sql.select(ITEMS, SHOWINGS.c.id.label("showing"), *(SHOWINGS.c[n] for n in ("order", "shown_at", "lease_until")))
    .join(SHOWINGS, sql.and_(_HELD, SHOWINGS.c.rater == _WHO))
    .where(ITEMS.c.queue == _QUEUE, ~_JUDGED)
    .order_by(SHOWINGS.c.id)
    .limit(1)
)
_OTHERS = (
    sql.select(sql.func.count(sql.distinct(SHOWINGS.c.rater)))
    .where(_HELD, SHOWINGS.c.rater != _WHO)
    .where(~sql.exists().where(JUDGEMENTS.c.item == SHOWINGS.c.item, JUDGEMENTS.c.rater == SHOWINGS.c.rater))
    .scalar_subquery()
)
_OPEN = sql.select(ITEMS).where(ITEMS.c.queue == _QUEUE, ITEMS.c.open, ~_JUDGED).order_by(ITEMS.c.rank).limit(1)
_CHECK = _OPEN.where(ITEMS.c.strategy == GOLD)
_NORMAL = _OPEN.where(ITEMS.c.strategy != GOLD, ITEMS.c.judged + _OTHERS < sql.bindparam("wanted"))
_SHOW = SHOWINGS.insert().returning(SHOWINGS.c.id)
_SEEN = (
    sql.select(sql.func.count(), sql.func.count(sql.case((ITEMS.c.strategy == GOLD, 1))))
    .select_from(SHOWINGS.join(ITEMS, SHOWINGS.c.item == ITEMS.c.id))
    .where(SHOWINGS.c.rater == _WHO, ITEMS.c.queue == _QUEUE)
)


def _shown(kind: str, row: sql.Row[Any], showing: int, order: Sequence[int], at: int, until: int) -> Shown:
    messages = tuple(row.responses[n]["message"] for n in order)
    return Shown(showing, row.id, kind, row.prompt, messages, row.tools, at, until)


def queue_kind(db: Database, name: str) -> str | None:
    """What a queue asks for; None where there is no such queue."""
    with db.read() as connection:
        return connection.execute(sql.select(QUEUES.c.kind).where(QUEUES.c.name == name)).scalar_one_or_none()


def find(connection: sql.Connection, name: str) -> sql.Row[Any]:
    """A queue's row, to read. Raises InputError where there is none."""
    row = connection.execute(sql.select(QUEUES).where(QUEUES.c.name == name)).one_or_none()
    if row is None:
        raise InputError(f"no queue {name!r}: `gristmill feedback queue {name}` makes it")
    return row


def rater_id(connection: sql.Connection, name: str) -> int:
    """Raises InputError where nobody has that name."""
    found = connection.execute(sql.select(RATERS.c.id).where(RATERS.c.name == name)).scalar_one_or_none()
    if found is None:
        raise InputError(f"no rater {name!r}: raters are made known before they judge")
    return found


def insert_new(connection: sql.Connection, table: sql.Table, rows: Iterable[dict[str, Any]], unique: str) -> int:
    """Insert rows, without those whose `unique` column is there already; returns how many were new."""
    from sqlalchemy.dialects import postgresql, sqlite

    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    added = 0
    for part in chunks(rows, _MANY):
        insert = dialect.insert(table).on_conflict_do_nothing(index_elements=[unique])
        added += len(connection.execute(insert.returning(table.c[unique]), part).all())
    return added


def chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in lists of at most `size`."""
    source = iter(rows)
    while part := list(itertools.islice(source, size)):
        yield part
