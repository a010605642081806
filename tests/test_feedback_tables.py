"""The tables of feedback on SQLite and PostgreSQL: made once, never ahead of the code, and judgements stay."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from feedbackdb import KINDS, fill, opened, url, work
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import VERSION_TABLE, open_database
from gristmill.dataops.feedback.tables import BATCHES, JUDGEMENTS, TABLES
from gristmill.dataops.feedback.values import of_item, same_order


@pytest.fixture(params=KINDS)
def db(request, tmp_path):
    with opened(request.param, tmp_path) as (database, _):
        yield database


def _rows(db, table):
    with db.read() as connection:
        return connection.execute(sql.select(table)).all()


def test_the_migrations_make_what_the_tables_say(db):
    with db.read() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), TABLES) == []
        made, said = sql.inspect(connection), TABLES.tables
        checks = {name: {check["name"] for check in made.get_check_constraints(name) if check["name"]} for name in said}
    wanted = {"ck_feedback_batches_holds_something", "ck_feedback_batches_closed_with_data"}
    assert wanted == checks["feedback_batches"] and checks["feedback_queues"] == {"ck_feedback_queues_wanted"}


@pytest.mark.parametrize("kind", KINDS)
def test_opening_again_keeps_everything(kind, tmp_path):
    where = url(kind, tmp_path)
    work(first := open_database(where), fill(first, 3)[0], 2)
    assert len(_rows(open_database(where), JUDGEMENTS)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_many_may_open_a_new_database_at_once(kind, tmp_path):
    where = url(kind, tmp_path)
    code = "import sys; from gristmill.dataops.feedback.database import open_database; open_database(sys.argv[1])"
    with ThreadPoolExecutor(3) as pool:
        run = [pool.submit(subprocess.run, [sys.executable, "-c", code, where], capture_output=True) for _ in range(3)]
    assert [one.result().returncode for one in run] == [0, 0, 0], [one.result().stderr[-500:] for one in run]


def test_tables_of_a_newer_version_are_refused(db):
    with db.write() as connection:
        connection.execute(sql.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(InputError, match="newer version"):
        open_database(db.engine.url.render_as_string(hide_password=False))


@pytest.mark.parametrize("change", ["UPDATE feedback_judgements SET comment = 'x'", "DELETE FROM feedback_judgements"])
def test_nobody_can_change_or_delete_a_judgement(db, change):
    work(db, fill(db, 2)[0], 2)
    before = _rows(db, JUDGEMENTS)
    with pytest.raises(sql.exc.DatabaseError, match="never changed or deleted"), db.write() as connection:
        connection.execute(sql.text(change))
    assert _rows(db, JUDGEMENTS) == before


def test_a_closed_batch_without_a_dataset_cannot_be_written(db):
    fill(db, 1)
    row = {"queue": 1, "number": 1, "after_seq": 0, "through_seq": 1, "judgements": 1, "reason": "hand", "frozen_at": 1}
    with pytest.raises(sql.exc.IntegrityError), db.write() as connection:
        connection.execute(BATCHES.insert().values(**row, closed_at=2))
    with pytest.raises(sql.exc.IntegrityError), db.write() as connection:
        connection.execute(BATCHES.insert().values(**row | {"judgements": 0}))


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("mysql://me@here/db", "SQLite or PostgreSQL"),
        ("sqlite:///:memory:", "lasts"),
        ("sqlite://", "lasts"),
        ("://", "no database URL"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot use the database"),
        ("sqlite:////nowhere/at/all.db", "cannot use the database"),
    ],
)
def test_a_database_that_cannot_be_used_is_said(where, told):
    with pytest.raises(InputError, match=told):
        open_database(where)


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "feedback.db").write_text("judgements, but as a letter to the editor " * 100)
    with pytest.raises(InputError, match="cannot use the database .*feedback.db"):
        open_database(tmp_path)


def test_a_root_gets_a_database_of_its_own(tmp_path):
    open_database(tmp_path / "root")
    assert (tmp_path / "root" / "feedback.db").is_file()


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(st.permutations(range(n)), st.lists(st.integers(1, n), min_size=n, max_size=n))
    )
)
def test_a_value_follows_the_responses_wherever_they_stood(given):
    order, ranks = given
    kept = of_item("ranking", ranks, order)
    assert [kept[response] for response in order] == ranks
    assert of_item("ranking", kept, same_order(len(order))) == kept
    assert of_item("rating", {"clear": ranks}, order) == {"clear": kept}
    assert of_item("ranking", None, order) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("pairwise", 1), ("pairwise", [1, 1]), ("pairwise", [1]), ("pairwise", [-1, 0]), ("pairwise", [True, 0]),
        ("pairwise", [float("nan"), 0]), ("pairwise", "tie"), ("ranking", [0, 1]), ("ranking", [1, 3]),
        ("ranking", [1.5, 1]), ("thumbs", True), ("thumbs", [2]), ("rating", {}), ("rating", {"a": [None, None]}),
        ("rating", {"": [1, 2]}), ("rating", {"a": ["4", 2]}), ("edit", ""), ("edit", "a\ud800"), ("edit", "a\0"),
        ("edit", "x" * 1_000_001), ("edit", ["a"]),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused(kind, value):
    with pytest.raises(InputError):
        of_item(kind, value, same_order(1 if kind in ("thumbs", "edit") else 2))
