"""Files of gates: what is read, and what is refused with its line, hostile files within a second."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.dataops.gates.conditions import STAGES, parse_gates, read_gates
from gristmill.dataops.gates.document import MAX_BYTES, parse
from gristmill.flows.stages import GATES

ROOT = Path(__file__).parents[1]
GATE = "- gate: g\n  measure: a/x\n"


def refused(text: str) -> str:
    started = time.process_time()
    with pytest.raises(InputError) as error:
        parse_gates(text, "my.yaml")
    assert time.process_time() - started < 1
    assert str(error.value).startswith("my.yaml")
    return str(error.value)


def test_a_gate_says_what_it_wants():
    (gate,) = parse_gates(
        'gates:\n- gate: held\n  measure: "*/loss"\n  rises_at_most: 2 %  # of the parent\n  least: 20\n'
        "  stages: [rl, sft]\n  against: base-evaluation@v1\n"
    )
    assert gate.measures == ("*/loss",) and gate.amount is not None and gate.amount.number == 0.02
    assert (gate.least, gate.stages, gate.against) == (20, ("sft", "rl"), "base-evaluation@v1")
    assert gate.told == "rises at most 2 %, against base-evaluation@v1"


def test_the_identity_of_a_gate_does_not_depend_on_how_it_is_written():
    one, two = (
        parse_gates(text)[0].identity
        for text in (
            "gates:\n- {gate: g, measure: a/x, at_most: 2.0 %}",
            "# why\ngates:\n  - measure: 'a/x'\n    at_most: '2%'\n    gate: \"g\"\n    stages:\n      - rl\n".replace(
                "    stages:\n      - rl\n", ""
            ),
        )
    )
    assert one == two


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"gates:\n{GATE}  at_most: 1\n  at_mots: 2\n", 5, "at_mots"),
        (f"gates:\n{GATE}  at_most: 1\n  at_most: 2\n", 5, "given twice, first on line 4"),
        (f"gates:\n{GATE}  at_most: 1\n{GATE}  at_most: 2\n", 5, "on line 2 is called 'g' too"),
        (f"gates:\n{GATE}", 2, "has none; one condition"),
        (f"gates:\n{GATE}  at_most: 1\n  at_least: 0\n", 2, "at_most and at_least"),
        (f"gates:\n{GATE}  at_most: much\n", 4, "'much'"),
        (f"gates:\n{GATE}  at_most: .nan\n", 4, "'.nan'"),
        (f"gates:\n{GATE}  at_most: [1]\n", 4, "a list of 1"),
        (f"gates:\n{GATE}  at_most:\n", 4, "''"),
        (f"gates:\n{GATE}  not_below_interval: false\n", 4, "or leave it out"),
        (f"gates:\n{GATE}  at_most: 1\n  if_measured: yes\n", 5, "if_measured: true"),
        (f"gates:\n{GATE}  at_most: 1\n  against: parent\n", 5, "value alone"),
        (f"gates:\n{GATE}  rises_at_most: 1\n  against: none\n", 5, "name what against"),
        (f"gates:\n{GATE}  rises_at_most: 1\n  end: low\n", 5, "`end`"),
        (f"gates:\n{GATE}  at_most: 1\n  end: value\n", 5, "`end`"),
        (f"gates:\n{GATE}  at_most: 1\n  least: 0\n", 5, "`least`"),
        (f"gates:\n{GATE}  at_most: 1\n  least: 1.5\n", 5, "`least`"),
        (f"gates:\n{GATE}  at_most: 1\n  stages: [sfft]\n", 5, "preference"),
        (f"gates:\n{GATE}  at_most: 1\n  stages: sft\n", 5, "a list of some of"),
        (f"gates:\n{GATE}  at_most: 1\n  stages: []\n", 5, "a list of some of"),
        (f"gates:\n{GATE}  hacked: {{proxy: a/x, gold: a/y}}\n", 2, "its own measures"),
        ("gates:\n- gate: g\n  hacked: {proxy: a/x}\n", 3, "{proxy: MEASURE, gold: MEASURE}"),
        ("gates:\n- gate: g\n  measure: loss\n  at_most: 1\n", 2, "no measure"),
        ("gates:\n- measure: a/x\n  at_most: 1\n", 2, "without `gate`"),
        ("gates:\n- gate: [g]\n  measure: a/x\n  at_most: 1\n", 2, "`gate` is a text"),
        ("gates:\n- a\n", 2, "there is a text"),
        ("gates: []\n", 1, "at least one"),
        ("gates:\n- gate: g\n  measure: */loss\n  at_most: 1\n", 3, "stands in quotes"),
        ("gates:\n- gate: g\n  measure: *loss\n  at_most: 1\n", 3, "stands in quotes"),
        ("gates:\n- gate: &a g\n  measure: a/x\n  at_most: 1\n", 2, "anchors"),
        ("gates:\n- gate: !!python/object/apply:os.system [ls]\n", 2, "tags"),
        ("gates:\n- ? [a]\n  : b\n", 2, "a key is a word"),
        ("gates:\n\t- a\n", 2, "no YAML"),
        ('gates:\n- gate: "a\\u202eb"\n', 2, "cannot be printed"),
        ('gates:\n- gate: "a\\ud800b"\n', 2, "cannot be printed"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text, line, says):
    told = refused(text)
    assert f"line {line}" in told and says in told


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "gates", "- a", "gate: []", "gates: [a]\nmore: 1", "a: 1\n---\nb: 2", "\0", "gates: \x07", "'"],
)
def test_what_is_no_file_of_gates_is_refused(text):
    refused(text)


BOMB = "a: &a [x,x]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    "text",
    [
        BOMB, "[" * 30_000, "{a: " * 7_500, "- " * 15_000, "? " * 15_000, "gates:\n" + "- a\n" * 7_500,
        "gates: {" + "".join(f"k{n}: 1, " for n in range(3_000)) + "}", "[" + "a," * 15_000, '"' + "\\" * 30_000,
        "'" + "a\n" * 15_000, "a" * 32_000, ": " * 15_000, "|\n" + " a\n" * 10_000, "%TAG ! a\n" * 3_000,
        "gates:\n- gate: g\n  measure: a/x\n  at_most: " + "9" * 30_000,
    ],
    ids=lambda text: text[:6].strip(),
)  # fmt: skip
def test_hostile_files_are_refused_within_a_second(text):
    refused(text)


def test_files_that_are_too_long_binary_or_not_there(tmp_path):
    path = tmp_path / "my.yaml"
    for data, says in [
        (b"gates: " * 2_000_000, "bytes"), (b"\xff\xfe\x00", "no UTF-8"), (b"a" * (MAX_BYTES + 1), "bytes"),
    ]:  # fmt: skip
        path.write_bytes(data)
        started = time.process_time()
        with pytest.raises(InputError, match=says):
            read_gates(path)
        assert time.process_time() - started < 1
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match=str(missing)):
            read_gates(missing)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbfgates:\r\n- gate: g\r\n  measure: a/x\r\n  at_most: 1\r\n")
    assert read_gates(path)[0].name == "g"


@given(st.text(max_size=60))
def test_no_text_ends_in_anything_but_gates_or_a_refusal(text):
    for document in (text, f"gates:\n- {text}", f"gates:\n{GATE}  at_most: {text}"):
        try:
            parse_gates(document)
        except InputError as error:
            assert "\n" not in str(error)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text("abc %.:#'\"", max_size=12), min_size=1))
def test_quoted_values_come_back(values):
    text = "".join(f"{name}: '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items())
    found = parse(text, "x").value
    assert isinstance(found, dict)
    assert {name: node.value for name, node in found.items()} == {
        name: " ".join(value.split()) for name, value in values.items()
    }


def test_the_shipped_gates_cover_every_pair_of_stages():
    gates = read_gates(GATES)
    for stage in ("sft", "preference", "rl", "ppo", "merge"):
        mine = [gate for gate in gates if not gate.stages or stage in gate.stages]
        assert any(gate.condition == "rises_at_most" and gate.against == "parent" for gate in mine), stage
        assert any(not gate.if_measured for gate in mine), f"{stage} may pass without a measure"
    assert {"hacked", "not_below_interval", "falls_at_most"} <= {gate.condition for gate in gates}


NO_MODELS = {"describe", "evaluate", "generate", "logprobs", "rollouts"}  # ops of training that publish rows


def test_the_stages_are_the_ops_that_make_models():
    """A stage that no gate can name would be judged by fewer gates than its neighbours."""
    made = set()
    for path in (ROOT / "training").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign):
                pairs = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
                target, value = (
                    (node.targets[0].elts[0], node.value.elts[0]) if pairs else (node.targets[0], node.value)
                )
                if isinstance(target, ast.Name) and target.id == "OP":
                    made.add(ast.literal_eval(value))
    assert made - NO_MODELS == set(STAGES)
