"""Which prompts a round asks: all come before one comes again."""

from __future__ import annotations

import pytest
from evaluated import tasks

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.draw import draw
from gristmill.dataops.store import Store


def drawn(store, data, **of):
    """The ids of a run, and how many rows the ledger has."""
    made = store.build("drawn", draw(**of), [data])
    assert made.ledger().collect()["reason"].unique().to_list() in (["not_drawn"], [])
    return set(made.scan().collect()["id"]), made.ledger().collect().height


def test_rounds_take_other_prompts_until_all_have_come(tmp_path):
    store = Store(tmp_path)
    data = tasks(tmp_path, [f"w{n}" for n in range(10)])
    runs = [drawn(store, data, count=4, part=part) for part in range(6)]
    assert all(len(ids) == 4 and lost == 6 for ids, lost in runs)
    assert not runs[0][0] & runs[1][0] and len(runs[0][0] | runs[1][0] | runs[2][0]) == 10
    assert runs[5][0] == runs[0][0] != runs[2][0]  # after five runs of four all have come twice


def test_the_order_of_the_rows_does_not_count(tmp_path):
    texts = [f"w{n}" for n in range(20)]
    one, two = Store(tmp_path / "a"), Store(tmp_path / "b")
    found = drawn(one, tasks(tmp_path / "a", texts), count=3, part=2)
    assert drawn(two, tasks(tmp_path / "b", texts[::-1]), count=3, part=2) == found


def test_fewer_prompts_than_a_round_takes_all_come(tmp_path):
    store = Store(tmp_path)
    data = tasks(tmp_path, ["w1", "w2"])
    assert drawn(store, data, count=2, part=1) == drawn(store, data, count=5, part=3)
    assert len(drawn(store, data, count=5, part=3)[0]) == 2
    with pytest.raises(InputError, match="count is 1 or more"):
        draw(count=0, part=0)
