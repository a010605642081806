"""The first tables, and the triggers that keep judgements as they were given.

A migration says what was made then, whatever the tables have become since: so the tables are spelled out here again,
and a test holds the sum of all migrations against tables.py.
"""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")
_KEPT = "a judgement is never changed or deleted: judge again, which supersedes it"


def upgrade() -> None:
    """Make everything."""
    op.create_table(
        "feedback_queues",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("kind", sql.Text, nullable=False),
        sql.Column("wanted", sql.Integer, nullable=False),
        sql.Column("lease_ms", sql.BigInteger, nullable=False),
        sql.Column("gold_share", sql.Float, nullable=False),
        sql.Column("threshold", sql.Integer),
        sql.Column("max_age_ms", sql.BigInteger),
        sql.Column("made_at", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("name"),
        sql.CheckConstraint("wanted >= 1", "wanted"),
    )
    op.create_table(
        "feedback_items",
        sql.Column("id", sql.String(32), nullable=False),
        sql.Column("queue", _NUMBER, nullable=False),
        sql.Column("prompt", sql.JSON, nullable=False),
        sql.Column("responses", sql.JSON, nullable=False),
        sql.Column("tools", sql.Text),
        sql.Column("gold", sql.JSON),
        sql.Column("strategy", sql.Text, nullable=False),
        sql.Column("score", sql.Float),
        sql.Column("dataset", sql.Text),
        sql.Column("source", sql.Text),
        sql.Column("rank", _NUMBER, nullable=False),
        sql.Column("judged", sql.Integer, nullable=False),
        sql.Column("open", sql.Boolean, nullable=False),
        sql.Column("made_at", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("id"),
        sql.ForeignKeyConstraint(["queue"], ["feedback_queues.id"]),
    )
    op.create_index("ix_feedback_items_next", "feedback_items", ["queue", "open", "rank"])
    op.create_table(
        "feedback_raters",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("made_at", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("name"),
    )
    op.create_table(
        "feedback_showings",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("item", sql.String(32), nullable=False),
        sql.Column("rater", _NUMBER, nullable=False),
        sql.Column("order", sql.JSON, nullable=False),
        sql.Column("shown_at", sql.BigInteger, nullable=False),
        sql.Column("lease_until", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("id"),
        sql.ForeignKeyConstraint(["item"], ["feedback_items.id"]),
        sql.ForeignKeyConstraint(["rater"], ["feedback_raters.id"]),
    )
    op.create_index("ix_feedback_showings_item", "feedback_showings", ["item", "rater"])
    op.create_index("ix_feedback_showings_rater", "feedback_showings", ["rater", "lease_until"])
    op.create_table(
        "feedback_judgements",
        sql.Column("seq", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("key", sql.Text, nullable=False),
        sql.Column("queue", _NUMBER, nullable=False),
        sql.Column("item", sql.String(32), nullable=False),
        sql.Column("rater", _NUMBER, nullable=False),
        sql.Column("showing", _NUMBER, nullable=False),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("value", sql.JSON),
        sql.Column("comment", sql.Text),
        sql.Column("client_at", sql.Text),
        sql.Column("judged_at", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("seq"),
        sql.UniqueConstraint("key"),
        sql.UniqueConstraint("item", "rater", "version"),
        sql.ForeignKeyConstraint(["queue"], ["feedback_queues.id"]),
        sql.ForeignKeyConstraint(["item"], ["feedback_items.id"]),
        sql.ForeignKeyConstraint(["rater"], ["feedback_raters.id"]),
        sql.ForeignKeyConstraint(["showing"], ["feedback_showings.id"]),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_judgements_queue", "feedback_judgements", ["queue", "seq"])
    _batches()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION feedback_kept() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{_KEPT}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
        op.execute(
            "CREATE TRIGGER feedback_kept BEFORE UPDATE OR DELETE ON feedback_judgements"
            " FOR EACH ROW EXECUTE FUNCTION feedback_kept()"
        )
    else:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER feedback_kept_{change.lower()} BEFORE {change} ON feedback_judgements"
                f" BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END"
            )


def _batches() -> None:
    op.create_table(
        "feedback_batches",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("queue", _NUMBER, nullable=False),
        sql.Column("number", sql.Integer, nullable=False),
        sql.Column("after_seq", _NUMBER, nullable=False),
        sql.Column("through_seq", _NUMBER, nullable=False),
        sql.Column("judgements", sql.Integer, nullable=False),
        sql.Column("reason", sql.Text, nullable=False),
        sql.Column("frozen_at", sql.BigInteger, nullable=False),
        sql.Column("closed_at", sql.BigInteger),
        sql.Column("dataset", sql.Text),
        sql.Column("dataset_key", sql.Text),
        sql.Column("digest", sql.Text),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("queue", "number"),
        sql.UniqueConstraint("queue", "after_seq"),
        sql.ForeignKeyConstraint(["queue"], ["feedback_queues.id"]),
        sql.CheckConstraint("judgements >= 1 AND through_seq > after_seq", "holds_something"),
        sql.CheckConstraint(
            "(closed_at IS NULL) = (dataset IS NULL) AND (closed_at IS NULL) = (dataset_key IS NULL)"
            " AND (closed_at IS NULL) = (digest IS NULL)",
            "closed_with_data",
        ),
    )
    op.create_table(
        "feedback_outbox",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("batch", _NUMBER, nullable=False),
        sql.Column("event", sql.Text, nullable=False),
        sql.Column("payload", sql.JSON, nullable=False),
        sql.Column("made_at", sql.BigInteger, nullable=False),
        sql.Column("sent_at", sql.BigInteger),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("batch"),
        sql.ForeignKeyConstraint(["batch"], ["feedback_batches.id"]),
    )
