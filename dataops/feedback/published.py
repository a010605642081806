"""A batch of judgements as the rows of a dataset.

The laws: a row is a judgement as dataops/preferences/judgements.py has it, so that pairs, agreement and raters are
computed of a batch as of any file; its id follows from what was said, by whom, of what and when. A superseded judgement
is among the rows and says so; one that could not be made has a null value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import sqlalchemy as sql

from gristmill.dataops.chat.messages import MESSAGE
from gristmill.dataops.feedback.judge import superseded
from gristmill.dataops.feedback.queues import GOLD
from gristmill.dataops.feedback.tables import ITEMS, JUDGEMENTS, QUEUES, RATERS, SHOWINGS
from gristmill.dataops.feedback.values import WHOLE
from gristmill.dataops.identity import canonical_json, row_id
from gristmill.dataops.preferences.judgements import JUDGEMENT, judgement

OP = "feedback.batch"
#: A published judgement: the columns that pairs are made of, and what the queue knows beside them. `value` is in the
#: order of `responses`, which is the order in which they were shown; `order` says which of the item's each was.
SCHEMA: dict[str, Any] = JUDGEMENT | {
    "sources": pl.List(pl.Binary()), "queue": pl.String(), "policies": pl.List(pl.String()), "comment": pl.String(),
    "version": pl.Int32(), "superseded": pl.Boolean(), "gold": pl.String(), "strategy": pl.String(),
    "order": pl.List(pl.Int32()), "shown_at": pl.Datetime("ms", "UTC"), "client_at": pl.String(), "seq": pl.Int64(),
}  # fmt: skip


def frozen(batch: sql.Row[Any]) -> sql.Select[Any]:
    """The judgements of a batch in their order, with their items, raters and showings."""
    newer = JUDGEMENTS.alias()
    return (
        sql.select(
            JUDGEMENTS, ITEMS.c.prompt, ITEMS.c.responses, ITEMS.c.gold, ITEMS.c.strategy, ITEMS.c.dataset,
            ITEMS.c.tools, ITEMS.c.source, SHOWINGS.c.order, SHOWINGS.c.shown_at, RATERS.c.name.label("rater_name"),
            QUEUES.c.kind, superseded(JUDGEMENTS, newer, batch.through_seq).label("superseded"),
        )
        .join(ITEMS, JUDGEMENTS.c.item == ITEMS.c.id)
        .join(QUEUES, JUDGEMENTS.c.queue == QUEUES.c.id)
        .join(RATERS, JUDGEMENTS.c.rater == RATERS.c.id)
        .join(SHOWINGS, JUDGEMENTS.c.showing == SHOWINGS.c.id)
        .where(JUDGEMENTS.c.queue == batch.queue)
        .where(JUDGEMENTS.c.seq > batch.after_seq, JUDGEMENTS.c.seq <= batch.through_seq)
        .order_by(JUDGEMENTS.c.seq)
    )  # fmt: skip


def as_rows(row: sql.Row[Any], queue: str) -> list[dict[str, Any]]:
    """A judgement as rows: a rating has one for each aspect."""
    said = [row.item, row.rater_name, row.version, row.value, row.comment, row.judged_at, row.key]
    made = []
    for aspect, responses, value in _as_shown(row):
        prompt = [_conform(turn) for turn in row.prompt]
        columns = judgement(
            prompt, responses, row.kind, value, rater=row.rater_name, aspect=aspect, at=row.judged_at / 1000,
            tools=row.tools, given=row.item,
        )  # fmt: skip
        columns |= {
            "id": row_id(OP, queue, canonical_json(said), aspect or ""), "sources": _sources(row), "queue": queue,
            "source": row.dataset, "line": None, "policies": [row.responses[n]["policy"] for n in row.order],
            "comment": row.comment, "version": row.version, "superseded": bool(row.superseded),
            "gold": canonical_json(row.gold) if row.strategy == GOLD else None, "strategy": row.strategy,
            "order": row.order, "shown_at": datetime.fromtimestamp(row.shown_at / 1000, UTC),
            "client_at": row.client_at, "seq": row.seq,
        }  # fmt: skip
        made.append({name: columns[name] for name in SCHEMA})
    return made


def _as_shown(row: sql.Row[Any]) -> list[tuple[str | None, list[dict[str, Any]], list[float | None] | None]]:
    """(aspect, responses, value) in the order in which the responses were shown."""
    shown = [_conform(row.responses[n]["message"]) for n in row.order]
    if row.kind == "edit":
        edited = shown[0] | {"content": row.value if row.value is not None else shown[0]["content"]}
        same = row.value is None or row.value.strip() == (shown[0]["content"] or "").strip()
        return [(None, [*shown, edited], None if row.value is None else [0, 0 if same else 1])]
    if row.value is None or row.kind != "rating":
        return [(None, shown, None if row.value is None else [row.value[n] for n in row.order])]
    return [
        (None if aspect == WHOLE else aspect, shown, [numbers[n] for n in row.order])
        for aspect, numbers in row.value.items()
    ]


def _conform(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: message.get(name) for name in MESSAGE.to_schema()}


def _sources(row: sql.Row[Any]) -> list[bytes]:
    """Rows of the dataset that the item was made of; of items out of a file there are none."""
    return [bytes.fromhex(row.source)] if row.dataset is not None and row.source is not None else []
