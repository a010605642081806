"""The laws of the hand-over, for every form: all rows are accounted for, in order, and within the limits."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hosted_reader import SIZES, check_line, lines_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hosted import ASKED, CALLED, PLAIN, SFT, STAGE, WEATHER

from gristmill.dataops.export.hosted import render, write
from gristmill.dataops.export.hosted_forms import FORMS
from gristmill.dataops.export.hosted_rows import Refused

TEXTS = st.sampled_from(["yes", "", " ", "User: x", "a\u2028b\x85c", "é\n", "\ud800", "[EOS]"]) | st.text(max_size=8)
CALLS = st.lists(
    st.builds(
        lambda id, name, text: {"id": id, "function": {"name": name, "arguments": text}},
        st.sampled_from([None, "a", "b"]), st.sampled_from(["weather", "f g", ""]),
        st.sampled_from(["{}", '{"town": "\u2028"}', "[]", "{"]),
    ), max_size=2,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "assistant", "user", "system", "developer", "tool", "human"])},
    optional={
        "content": TEXTS, "weight": st.sampled_from([None, 0, 1, 2]), "name": st.sampled_from([None, "weather"]),
        "tool_call_id": st.sampled_from([None, "a"]), "tool_calls": CALLS, "other": st.none(),
    },
)  # fmt: skip
#: Mostly what services take, with a fault here and there, so that both sides of each rule are met.
SPOKEN = st.one_of(
    st.lists(MESSAGES, max_size=5),
    st.builds(
        lambda start, end: [*start, *end],
        st.sampled_from([PLAIN["messages"], CALLED, ASKED, CALLED[:4], CALLED[1:]]), st.lists(MESSAGES, max_size=2),
    ),
)  # fmt: skip
COLUMNS = {
    "messages": SPOKEN, "prompt": TEXTS | SPOKEN, "completion": TEXTS, "chosen": TEXTS | st.lists(MESSAGES, max_size=2),
    "rejected": TEXTS, "tools": st.sampled_from([None, [], [WEATHER], [{}], "[", json.dumps([WEATHER])]),
    "gold": st.sampled_from([None, "1", 2, [3], float("inf"), {"a": None}]),
}  # fmt: skip
FAULTS = st.sampled_from(sorted(COLUMNS)).flatmap(lambda name: st.fixed_dictionaries({name: COLUMNS[name]}))
EXAMPLES = st.one_of(
    st.fixed_dictionaries({}, optional=COLUMNS),
    st.builds(lambda whole, fault: {**whole, **fault}, st.sampled_from([*STAGE.values(), SFT]), FAULTS),
)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(EXAMPLES, min_size=1, max_size=8), size=st.integers(1, 4))
def test_every_row_is_written_in_order_or_in_the_ledger(name, rows, size):
    form = replace(FORMS[name], min_examples=1, max_examples=size, max_bytes=400, max_tokens=150)
    good, bad = [], []
    for number, row in enumerate([STAGE[form.stage], *rows]):
        try:
            good.append(render(row, form, ("gold",))[0])
        except Refused:
            bad.append(number)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        note = write([(str(n), row) for n, row in enumerate([STAGE[form.stage], *rows])], folder, form, ("gold",))
        entries = [json.loads(line) for line in (folder / "ledger.ndjson").read_text().splitlines()]
        lines = lines_of(folder, name, at_least=1)
        content = b"".join((folder / file["file"]).read_bytes()[3 * form.bom :] for file in note["files"][:-1])
        assert all(file["bytes"] <= 400 and file["examples"] <= size for file in note["files"][:-1])
    assert content == b"".join(good) and note["rows"] == len(good)
    assert [entry["row"] for entry in entries if entry["unit"] == "row"] == bad
    assert all(entry["reason"] for entry in entries) and len(good) + len(bad) == note["read"]
    for line in lines:
        check_line(line, name)


def test_the_limits_are_those_that_the_reader_knows():
    for name, form in FORMS.items():
        least, most, size = SIZES[name]
        assert (form.min_examples, form.max_examples) == (least, most)
        assert form.max_bytes is None if size is None else 0 < form.max_bytes <= size
        assert form.sources and all(source.startswith(("https://", "PyPI ")) for source in form.sources)
