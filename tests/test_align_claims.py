"""Claims: a batch is taken once, whoever asks, and what was claimed stays as it was claimed."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sql
from feedbackdb import KINDS, fill, opened, work

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.batches import close
from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.feedback.tables import ALIGNMENTS, TAKEN
from gristmill.flows.wheel.claims import alignment, claim, claimed, ended, give_back, unaligned

RECIPE = {"model": "m", "stages": [1.5, None]}


@pytest.fixture(params=KINDS)
def db(request, tmp_path):
    with opened(request.param, tmp_path) as (found, _):
        yield found


def batches(db, root, count: int, queue: str = "q") -> list[int]:
    """Closed batches of two judgements each."""
    fill(db, 2 * count, queue=queue)
    made = []
    for _ in range(count):
        work(db, "r0", 2, queue=queue)
        made.append(close(db, root, queue).id)
    return made


def take(db, batch: int, start: str = "m:1", recipe=RECIPE):
    return claim(db, batch, lambda: start, recipe)


def test_a_claim_takes_all_that_nobody_took_up_to_the_one_that_asks(db, tmp_path):
    first, second, third = batches(db, tmp_path, 3)
    other = batches(db, tmp_path, 1, "other")
    assert unaligned(db) == [first, second, third, *other]
    found = take(db, second)
    assert [one.id for one in found.batches] == [first, second]
    assert (found.queue, found.kind, found.start, found.recipe) == ("q", "pairwise", "m:1", RECIPE)
    assert (found.verdict, found.result) == (None, None)
    assert unaligned(db) == [first, second, third, *other]  # not before it has ended
    ended(db, found.id, "promoted", {"x": 1})
    assert unaligned(db) == [third, *other]
    assert [one.id for one in take(db, third, "m:2").batches] == [third]


def test_whoever_claims_again_gets_what_was_claimed(db, tmp_path):
    first, second = batches(db, tmp_path, 2)
    assert claimed(db, first) is None
    found = take(db, second)
    assert claimed(db, first) == found
    assert take(db, first, "m:2", {**RECIPE, "stages": []}) == found == take(db, second, "m:3")
    done = ended(db, found.id, "blocked", {"reasons": ["why"]})
    assert (done.verdict, done.result) == ("blocked", {"reasons": ["why"]})
    assert take(db, first, "m:4") == done == ended(db, found.id, "promoted", {})  # the first end stays


def test_alignments_of_one_model_come_one_after_the_other(db, tmp_path):
    first, second = batches(db, tmp_path, 2)
    other = batches(db, tmp_path, 1, "other")[0]
    begun = take(db, first)
    assert take(db, second) == begun == take(db, other)
    assert take(db, other, "n:1", {"model": "n"}).queue == "other"  # another model waits for nobody
    ended(db, begun.id, "nothing", {})
    after = take(db, second, "m:2")
    assert ([one.id for one in after.batches], after.start) == ([second], "m:2")


def test_the_start_is_asked_for_only_where_something_is_claimed(db, tmp_path):
    (first,) = batches(db, tmp_path, 1)

    def gone() -> str:
        raise InputError("no model")

    with pytest.raises(InputError, match="no model"):
        claim(db, first, gone, RECIPE)
    assert unaligned(db) == [first]
    found = take(db, first)
    assert claim(db, first, gone, RECIPE) == found


def test_claimers_at_once_make_one_alignment(db, tmp_path):
    made = batches(db, tmp_path, 3)
    where = db.engine.url.render_as_string(hide_password=False)
    gate, found = threading.Barrier(6), []

    def run(batch: int) -> None:
        own = open_database(where)
        gate.wait()
        found.append(take(own, batch))
        own.engine.dispose()

    threads = [threading.Thread(target=run, args=(made[n % 3],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len({one.id for one in found}) == 1
    with db.read() as connection:
        taken = connection.execute(sql.select(TAKEN.c.batch)).scalars().all()
        assert connection.execute(sql.select(sql.func.count()).select_from(ALIGNMENTS)).scalar_one() == 1
    assert sorted(taken) == [one.id for one in found[0].batches] == made[: len(taken)]


def test_what_trained_nothing_may_be_given_back_until_it_has_ended(db, tmp_path):
    first, second = batches(db, tmp_path, 2)
    found = take(db, second)
    give_back(db, found.id)
    assert unaligned(db) == [first, second]
    with pytest.raises(InputError, match=f"no alignment {found.id}"):
        alignment(db, found.id)
    again = take(db, first, "m:2")
    assert ([one.id for one in again.batches], again.start) == ([first], "m:2")
    done = ended(db, again.id, "promoted", {})
    give_back(db, again.id)
    assert alignment(db, again.id) == done


def test_only_a_closed_batch_can_be_claimed(db, tmp_path):
    with pytest.raises(InputError, match="no closed batch 7"):
        take(db, 7)
    with pytest.raises(InputError, match="no closed batch 7"):
        claimed(db, 7)
