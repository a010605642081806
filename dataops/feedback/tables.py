"""The tables of feedback: who was asked what, when, and what they said.

    queues      what is asked of raters, and when a batch of it closes by itself
    items       a prompt with one or more responses, once per queue; its id is a hash of that content
    raters      people and judges, by name
    showings    an item put before a rater: in which order, when, and how long it is theirs
    judgements  what a rater said of an item that was shown; version 2 supersedes version 1
    batches     a closed run of judgements, and the dataset they became
    outbox      one event per closed batch, until it was sent
    tokens      who may speak over HTTP, by the SHA-256 of what they show
    alignments  a model that is made better by the batches that it takes; `taken` says which one took a batch

The laws: a judgement is never changed or deleted (triggers refuse it, whoever writes); one idempotency key is one
judgement; a batch is the judgements `after_seq < seq <= through_seq` of its queue, so each is in one batch at most; a
closed batch names its dataset; a batch is taken by one alignment at most. Times are the server's, in milliseconds since
1970 UTC. Not covered: raters' passwords.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sql

TABLES = sql.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
#: SQLite counts rows only in an INTEGER; PostgreSQL gets 64 bits.
_NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")


def _number(name: str, **options: Any) -> sql.Column[int]:
    return sql.Column(name, _NUMBER, nullable=False, **options)


def _of(name: str, table: str, **options: Any) -> sql.Column[int]:
    return sql.Column(name, _NUMBER, sql.ForeignKey(f"{table}.id"), nullable=False, **options)


QUEUES = sql.Table(
    "feedback_queues", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    sql.Column("name", sql.Text, nullable=False, unique=True),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("wanted", sql.Integer, nullable=False),  # judgements per item, of different raters
    sql.Column("lease_ms", sql.BigInteger, nullable=False),
    sql.Column("gold_share", sql.Float, nullable=False),  # of what a rater is shown
    sql.Column("threshold", sql.Integer),  # judgements that close a batch
    sql.Column("max_age_ms", sql.BigInteger),  # of the oldest judgement, closes a batch
    sql.Column("made_at", sql.BigInteger, nullable=False),
    sql.CheckConstraint("wanted >= 1", "wanted"),
)  # fmt: skip
ITEMS = sql.Table(
    "feedback_items", TABLES,
    sql.Column("id", sql.String(32), primary_key=True),
    _of("queue", "feedback_queues"),
    sql.Column("prompt", sql.JSON, nullable=False),  # messages
    sql.Column("responses", sql.JSON, nullable=False),  # [{message, policy}, ...]
    sql.Column("tools", sql.Text),  # JSON that the policies were given
    sql.Column("gold", sql.JSON(none_as_null=True)),  # what is right, of an item that checks raters
    sql.Column("strategy", sql.Text, nullable=False),  # why it is asked
    sql.Column("score", sql.Float),  # by which the strategy ranked it
    sql.Column("dataset", sql.Text),  # NAME:KEY that the responses come from
    sql.Column("source", sql.Text),  # row id there, or the id that a file gave it
    _number("rank"),  # first come the lowest
    sql.Column("judged", sql.Integer, nullable=False),  # raters that could judge it
    sql.Column("open", sql.Boolean, nullable=False),  # fewer than wanted
    sql.Column("made_at", sql.BigInteger, nullable=False),
    sql.Index("ix_feedback_items_next", "queue", "open", "rank"),
)  # fmt: skip
RATERS = sql.Table(
    "feedback_raters", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    sql.Column("name", sql.Text, nullable=False, unique=True),
    sql.Column("made_at", sql.BigInteger, nullable=False),
)  # fmt: skip
SHOWINGS = sql.Table(
    "feedback_showings", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    sql.Column("item", sql.String(32), sql.ForeignKey("feedback_items.id"), nullable=False),
    _of("rater", "feedback_raters"),
    sql.Column("order", sql.JSON, nullable=False),  # which response stood at each position
    sql.Column("shown_at", sql.BigInteger, nullable=False),
    sql.Column("lease_until", sql.BigInteger, nullable=False),
    sql.Index("ix_feedback_showings_item", "item", "rater"),
    sql.Index("ix_feedback_showings_rater", "rater", "lease_until"),
)  # fmt: skip
JUDGEMENTS = sql.Table(
    "feedback_judgements", TABLES,
    _number("seq", primary_key=True, autoincrement=True),
    sql.Column("key", sql.Text, nullable=False, unique=True),  # the client's, so that sending twice counts once
    _of("queue", "feedback_queues"),
    sql.Column("item", sql.String(32), sql.ForeignKey("feedback_items.id"), nullable=False),
    _of("rater", "feedback_raters"),
    _of("showing", "feedback_showings"),
    sql.Column("version", sql.Integer, nullable=False),  # of what this rater says of this item
    sql.Column("value", sql.JSON(none_as_null=True)),  # null: the rater could not judge
    sql.Column("comment", sql.Text),
    sql.Column("client_at", sql.Text),  # as the client said it; decides nothing
    sql.Column("judged_at", sql.BigInteger, nullable=False),
    sql.UniqueConstraint("item", "rater", "version"),
    sql.Index("ix_feedback_judgements_queue", "queue", "seq"),
    sqlite_autoincrement=True,
)  # fmt: skip
BATCHES = sql.Table(
    "feedback_batches", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    _of("queue", "feedback_queues"),
    sql.Column("number", sql.Integer, nullable=False),
    _number("after_seq"), _number("through_seq"),
    sql.Column("judgements", sql.Integer, nullable=False),
    sql.Column("reason", sql.Text, nullable=False),  # hand, threshold or time
    sql.Column("frozen_at", sql.BigInteger, nullable=False),
    sql.Column("closed_at", sql.BigInteger),
    sql.Column("dataset", sql.Text), sql.Column("dataset_key", sql.Text), sql.Column("digest", sql.Text),
    sql.UniqueConstraint("queue", "number"),
    sql.UniqueConstraint("queue", "after_seq"),
    sql.CheckConstraint("judgements >= 1 AND through_seq > after_seq", "holds_something"),
    sql.CheckConstraint(
        "(closed_at IS NULL) = (dataset IS NULL) AND (closed_at IS NULL) = (dataset_key IS NULL)"
        " AND (closed_at IS NULL) = (digest IS NULL)",
        "closed_with_data",
    ),
)  # fmt: skip
OUTBOX = sql.Table(
    "feedback_outbox", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    _of("batch", "feedback_batches", unique=True),
    sql.Column("event", sql.Text, nullable=False),
    sql.Column("payload", sql.JSON, nullable=False),
    sql.Column("made_at", sql.BigInteger, nullable=False),
    sql.Column("sent_at", sql.BigInteger),
)  # fmt: skip
TOKENS = sql.Table(
    "feedback_tokens", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    sql.Column("name", sql.Text, nullable=False, unique=True),
    sql.Column("sha256", sql.String(64), nullable=False, unique=True),
    sql.Column("scope", sql.Text, nullable=False),  # rate: judge as one rater; send: thumbs of an application's users
    sql.Column("rater", _NUMBER, sql.ForeignKey("feedback_raters.id")),  # of scope rate
    sql.Column("made_at", sql.BigInteger, nullable=False),
    sql.Column("revoked_at", sql.BigInteger),
    sql.CheckConstraint("(scope = 'rate') = (rater IS NOT NULL)", "rates_as_somebody"),
)  # fmt: skip
ALIGNMENTS = sql.Table(
    "feedback_alignments", TABLES,
    _number("id", primary_key=True, autoincrement=True),
    _of("queue", "feedback_queues"),
    sql.Column("start", sql.Text, nullable=False),  # NAME:KEY of the model it starts from, fixed when it is claimed
    sql.Column("recipe", sql.JSON, nullable=False),  # as it was when it was claimed
    sql.Column("claimed_at", sql.BigInteger, nullable=False),
    sql.Column("ended_at", sql.BigInteger),
    sql.Column("verdict", sql.Text),  # promoted, blocked or nothing
    sql.Column("result", sql.JSON(none_as_null=True)),
    sql.CheckConstraint("(ended_at IS NULL) = (verdict IS NULL)", "ended_with_verdict"),
)  # fmt: skip
TAKEN = sql.Table(
    "feedback_taken", TABLES,
    sql.Column("batch", _NUMBER, sql.ForeignKey("feedback_batches.id"), primary_key=True, autoincrement=False),
    _of("alignment", "feedback_alignments"),
    sql.Index("ix_feedback_taken_alignment", "alignment"),
)  # fmt: skip
