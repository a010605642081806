"""Equal content, equal names: keys, row hashes and digests."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.identity import Fingerprint, canonical_json, recipe_key, row_hashes, row_id

VALUES = {
    "id": st.binary(min_size=16, max_size=16),
    "text": st.none() | st.text(max_size=30),
    "count": st.none() | st.integers(-(2**40), 2**40),
    "score": st.none() | st.floats(allow_nan=True, width=64),
    "flag": st.booleans(),
    "items": st.none() | st.lists(st.none() | st.integers(0, 9), max_size=5),
    "parts": st.lists(st.fixed_dictionaries({"id": st.binary(max_size=4), "n": st.integers(0, 99)}), max_size=3),
}
SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("text", pa.large_string()),
        ("count", pa.int64()),
        ("score", pa.float64()),
        ("flag", pa.bool_()),
        ("items", pa.list_(pa.int32())),
        ("parts", pa.list_(pa.struct([("id", pa.binary()), ("n", pa.uint32())]))),
    ]
)
ROWS = st.lists(st.fixed_dictionaries(VALUES), max_size=12)


def fingerprint(rows: list[dict]) -> Fingerprint:
    return Fingerprint.of(row_hashes(pa.Table.from_pylist(rows, schema=SCHEMA)))


@given(rows=ROWS, cut=st.integers(0, 12), second=st.integers(0, 12))
def test_a_fingerprint_does_not_depend_on_where_rows_are_cut(rows, cut, second):
    parts = [rows[:cut], rows[cut:][:second], rows[cut:][second:]]
    total = Fingerprint()
    for part in parts:
        total += fingerprint(part)
    assert total == fingerprint(rows)


@given(rows=ROWS, data=st.data())
def test_a_slice_hashes_like_a_copy(rows, data):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    start = data.draw(st.integers(0, len(rows)))
    assert np.array_equal(row_hashes(table.slice(start)), row_hashes(pa.Table.from_pylist(rows[start:], schema=SCHEMA)))


@given(rows=st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=6), data=st.data())
def test_any_change_of_a_value_changes_the_fingerprint(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(sorted(VALUES)))
    value = data.draw(VALUES[name])
    same = (
        rows[at][name] == value or repr(rows[at][name]) == repr(value) or (name == "score" and value == rows[at][name])
    )
    changed = [dict(row) for row in rows]
    changed[at][name] = value
    assert (fingerprint(changed) == fingerprint(rows)) == same


def test_order_counts():
    rows = [
        {"id": bytes([n]) * 16, "text": "x", "count": 1, "score": 0.0, "flag": True, "items": [], "parts": []}
        for n in range(5)
    ]
    assert fingerprint(rows) != fingerprint(rows[::-1])
    assert fingerprint(rows) != fingerprint([rows[1], rows[0], *rows[2:]])


def test_columns_do_not_trade_values_and_types_count():
    one = pa.table({"a": ["x"], "b": ["y"]})
    other = pa.table({"a": ["y"], "b": ["x"]})
    assert Fingerprint.of(row_hashes(one)) != Fingerprint.of(row_hashes(other))
    whole = Fingerprint.of(row_hashes(one))
    assert whole.digest([("a", "string"), ("b", "string")]) != whole.digest([("a", "binary"), ("b", "string")])
    assert whole.digest([("a", "string"), ("b", "string")]) == whole.digest([("b", "large_string"), ("a", "string")])


def test_all_spellings_of_one_number_are_one_value():
    zero = pa.table({"x": pa.array([0.0, float("nan")])})
    minus = pa.table({"x": pa.array([-0.0, -float("nan")])})
    assert np.array_equal(row_hashes(zero), row_hashes(minus))


def test_polars_and_arrow_hash_alike():
    frame = pl.DataFrame({"text": ["a", None], "day": [None, "2024-01-02"]}).with_columns(pl.col("day").str.to_date())
    assert np.array_equal(
        row_hashes(frame.to_arrow()), row_hashes(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    )


def test_keys_hash_the_recipe_and_nothing_else():
    ops = [{"name": "a", "version": 1, "params": {"x": 1, "y": [1, 2]}}]
    assert recipe_key(ops, ["d"]) == recipe_key([{"params": {"y": [1, 2], "x": 1}, "version": 1, "name": "a"}], ["d"])
    for other in ({"name": "b"}, {"version": 2}, {"params": {"x": 2, "y": [1, 2]}}):
        assert recipe_key([ops[0] | other], ["d"]) != recipe_key(ops, ["d"])
    assert recipe_key(ops, ["e"]) != recipe_key(ops, ["d"])


def test_row_ids_keep_their_parts_apart():
    assert row_id("ab", "c") != row_id("a", "bc")
    assert len(row_id("ab")) == 16


def test_what_has_no_stable_spelling_is_refused():
    with pytest.raises(TypeError):
        canonical_json({"x": object()})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
