"""Alembic's entry point: run the migrations in the transaction of whoever asked (dataops/feedback/database.py)."""

from __future__ import annotations

from alembic import context

from gristmill.dataops.feedback.database import VERSION_TABLE
from gristmill.dataops.feedback.tables import TABLES

context.configure(
    connection=context.config.attributes["connection"], target_metadata=TABLES, version_table=VERSION_TABLE
)
context.run_migrations()
