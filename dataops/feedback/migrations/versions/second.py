"""Tokens of the HTTP service, and alignments with the batches that each took."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")


def upgrade() -> None:
    """Add three tables."""
    op.create_table(
        "feedback_tokens",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("sha256", sql.String(64), nullable=False),
        sql.Column("scope", sql.Text, nullable=False),
        sql.Column("rater", _NUMBER),
        sql.Column("made_at", sql.BigInteger, nullable=False),
        sql.Column("revoked_at", sql.BigInteger),
        sql.PrimaryKeyConstraint("id"),
        sql.UniqueConstraint("name"),
        sql.UniqueConstraint("sha256"),
        sql.ForeignKeyConstraint(["rater"], ["feedback_raters.id"]),
        sql.CheckConstraint("(scope = 'rate') = (rater IS NOT NULL)", "rates_as_somebody"),
    )
    op.create_table(
        "feedback_alignments",
        sql.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sql.Column("queue", _NUMBER, nullable=False),
        sql.Column("start", sql.Text, nullable=False),
        sql.Column("recipe", sql.JSON, nullable=False),
        sql.Column("claimed_at", sql.BigInteger, nullable=False),
        sql.Column("ended_at", sql.BigInteger),
        sql.Column("verdict", sql.Text),
        sql.Column("result", sql.JSON),
        sql.PrimaryKeyConstraint("id"),
        sql.ForeignKeyConstraint(["queue"], ["feedback_queues.id"]),
        sql.CheckConstraint("(ended_at IS NULL) = (verdict IS NULL)", "ended_with_verdict"),
    )
    op.create_table(
        "feedback_taken",
        sql.Column("batch", _NUMBER, autoincrement=False, nullable=False),
        sql.Column("alignment", _NUMBER, nullable=False),
        sql.PrimaryKeyConstraint("batch"),
        sql.ForeignKeyConstraint(["batch"], ["feedback_batches.id"]),
        sql.ForeignKeyConstraint(["alignment"], ["feedback_alignments.id"]),
    )
    op.create_index("ix_feedback_taken_alignment", "feedback_taken", ["alignment"])
