"""Judgements that were given elsewhere, as items, raters and judgements of a queue.

    judged = read_judgements(store, "judged", ["export.json"], "argilla")     # any format of dataops/preferences
    import_judgements(db, "helpful", judged)

The laws: importing the same judgements again adds nothing, however their file has grown; a rater who judges an item
again supersedes what they said before; all is taken in one transaction, or nothing. An item is what was judged,
whatever order the replies stood in; the order that each rater had is kept with the showing. When it was said elsewhere
is kept as the client's time; when it came here is the server's. Not covered: gold checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.feedback.candidates import Candidate, Response, bare, fits
from gristmill.dataops.feedback.database import Database, lock
from gristmill.dataops.feedback.judge import recounted
from gristmill.dataops.feedback.queues import chunks, insert_new, item_row, make_queue
from gristmill.dataops.feedback.tables import ITEMS, JUDGEMENTS, RATERS, SHOWINGS
from gristmill.dataops.feedback.values import KINDS, WHOLE, of_item
from gristmill.dataops.identity import canonical_json, row_id, sha256_json
from gristmill.dataops.preferences.judgements import JUDGEMENT, check_columns

STRATEGY = "import"
_MANY = 500  # rows of one statement


@dataclass(frozen=True)
class Imported:
    """What came of an import: `items` and `raters` that judgements name, `judgements` that are new, of which
    `corrections` supersede one that was there, and how many were known or said twice."""

    kind: str
    items: int
    raters: int
    judgements: int
    corrections: int
    known: int


@dataclass(frozen=True)
class _Said:
    """One judgement to take in; `order[p]` is the item's response that stood at position p."""

    item: str
    rater: str
    order: tuple[int, ...]
    value: Any
    at: str | None


def import_judgements(db: Database, queue: str, judged: Dataset, *, kind: str | None = None) -> Imported:
    """Take judgements into a queue, which is made where it is new (see make_queue for its settings).

    `kind`: only those of one kind, which must be given where a dataset has several. Raises InputError for a dataset
    without judgements, for several kinds, for one without a rater, and for a value that is none.
    """
    check_columns(judged.schema().names, f"{judged.name} at {judged.path}")
    rows = judged.scan().select(*JUDGEMENT).collect()
    kinds = sorted(set(rows["kind"].to_list()))
    if kind is None and len(kinds) > 1:
        raise InputError(f"{judged.name} has judgements of several kinds: {', '.join(kinds)}; take one into each queue")
    rows = rows if kind is None else rows.filter(kind=kind)
    if not len(rows):
        raise InputError(f"{judged.name} has no judgement{'' if kind is None else ' of kind ' + kind}")
    one = kind or kinds[0]
    if one not in KINDS:
        raise InputError(f"no kind of judgement {one!r}; there are: {', '.join(KINDS)}")
    items, said = _grouped(rows.iter_rows(named=True), one, queue)
    make_queue(db, queue, one)
    with db.write() as connection:
        asked = lock(connection, queue)
        newest = sql.select(sql.func.coalesce(sql.func.max(JUDGEMENTS.c.judged_at), 0))
        before = connection.execute(newest.where(JUDGEMENTS.c.queue == asked.id)).scalar_one()
        at = max(db.clock(), before)  # however the clock was set: what corrects is not before what it corrects
        last = sql.select(sql.func.coalesce(sql.func.max(ITEMS.c.rank) + 1, 0)).where(ITEMS.c.queue == asked.id)
        first = connection.execute(last).scalar_one()
        origin = f"{judged.name}:{judged.key}"
        made = (
            item_row(item, queue, asked.id, first + n, at, STRATEGY, origin) | {"id": name}
            for n, (name, item) in enumerate(items.items())
        )
        insert_new(connection, ITEMS, made, "id")
        raters = {row.rater for row in said}
        insert_new(connection, RATERS, ({"name": name, "made_at": at} for name in sorted(raters)), "name")
        new, corrections = _insert(connection, asked.id, said, at)
        if new:
            connection.execute(recounted(ITEMS.c.queue == asked.id, asked.wanted))
    return Imported(one, len(items), len(raters), new, corrections, len(said) - new)


def _grouped(rows: Iterator[dict[str, Any]], kind: str, queue: str) -> tuple[dict[str, Candidate], list[_Said]]:
    """Items by id, and what was said of them in the order of the rows; the aspects of one rating are one judgement."""
    items: dict[str, Candidate] = {}
    replies: dict[str, list[bytes]] = {}
    said: list[_Said] = []
    last: dict[tuple[str, str], int] = {}  # where in `said` a rater last spoke of an item
    for row in rows:
        where = f"{row['source']}, record {row['line']}"
        if row["rater"] is None:
            raise InputError(f"{where}: nobody is named who judged: say who, for all that name nobody")
        names, messages = row["replies"], row["responses"]
        if kind == "edit":
            names, messages = names[:1], messages[:1]
        known = row["item"]
        if kind == "edit":  # what was judged is the reply, not what each rater made of it
            known = row_id("edited", canonical_json([bare(turn) for turn in row["prompt"]]), *names)
        item = row_id("feedback.item", queue, STRATEGY, known).hex()
        if item not in items:
            responses = tuple(Response(bare(message), None) for message in messages)
            made = Candidate(row["prompt"], responses, source=row["id"].hex(), tools=row["tools"])
            items[item], replies[item] = fits(kind, made, where), names
        order = _order(names, replies[item])
        value = row["value"]
        if value is not None and kind in ("edit", "rating"):
            value = row["responses"][1]["content"] if kind == "edit" else {row["aspect"] or WHOLE: value}
        try:
            value = of_item(kind, value, order)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        at = None if row["at"] is None else row["at"].isoformat()
        pair, one = (item, row["rater"]), _Said(item, row["rater"], tuple(order), value, at)
        if kind == "rating" and pair in last:
            before = said[last[pair]]
            if not set(before.value or ()) & set(value or ()):  # another aspect of the same rating, or none
                said[last[pair]] = replace(before, value=_both(before.value, value))
                continue
            one = replace(one, value=_both(before.value, value))  # said anew; what it says of others stays
        last[pair] = len(said)
        said.append(one)
    return items, said


def _both(before: dict[str, Any] | None, value: dict[str, Any] | None) -> dict[str, Any] | None:
    return dict(sorted({**(before or {}), **(value or {})}.items())) or None


def _order(shown: Sequence[bytes], own: Sequence[bytes]) -> list[int]:
    """Which of the item's replies each of those shown is; of equal ones the first that is left."""
    left = list(range(len(own)))
    order = []
    for name in shown:
        order.append(next(n for n in left if own[n] == name))
        left.remove(order[-1])
    return order


def _insert(connection: sql.Connection, queue: int, said: Sequence[_Said], at: int) -> tuple[int, int]:
    """(new, corrections): showings and judgements of what is not there yet."""
    raters: dict[str, int] = {name: id for id, name in connection.execute(sql.select(RATERS.c.id, RATERS.c.name))}
    mine = JUDGEMENTS.c.queue == queue
    keys = set(connection.execute(sql.select(JUDGEMENTS.c.key).where(mine)).scalars())
    latest = sql.select(JUDGEMENTS.c.item, JUDGEMENTS.c.rater, sql.func.max(JUDGEMENTS.c.version)).where(mine)
    versions = {
        (item, rater): version
        for item, rater, version in connection.execute(latest.group_by(JUDGEMENTS.c.item, JUDGEMENTS.c.rater))
    }
    turns: dict[tuple[str, int], tuple[int, Any]] = {}
    showings, judgements, corrections = [], [], 0
    for one in said:
        who = raters[one.rater]
        turn, before = turns.get((one.item, who), (0, None))
        content = [one.value, one.at]
        if turn and content == before:  # the same line twice is one judgement
            continue
        turns[one.item, who] = (turn + 1, content)
        key = f"{STRATEGY}:{sha256_json([queue, one.item, one.rater, turn, *content])}"
        if key in keys:
            continue
        version = versions[one.item, who] = versions.get((one.item, who), 0) + 1
        corrections += version > 1
        showings.append(
            {"item": one.item, "rater": who, "order": list(one.order), "shown_at": at, "lease_until": at}
        )  # fmt: skip
        judgements.append(
            {
                "key": key,
                "queue": queue,
                "item": one.item,
                "rater": who,
                "version": version,
                "value": one.value,
                "client_at": one.at,
                "judged_at": at,
            }  # fmt: skip
        )
    ids: list[int] = []
    for part in chunks(showings, _MANY):
        insert = SHOWINGS.insert().returning(SHOWINGS.c.id, sort_by_parameter_order=True)
        ids += connection.execute(insert, part).scalars()
    for part in chunks(({**row, "showing": id} for row, id in zip(judgements, ids, strict=True)), _MANY):
        connection.execute(JUDGEMENTS.insert(), part)
    return len(judgements), corrections
