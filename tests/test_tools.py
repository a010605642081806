"""Function calls: the right tools with the right arguments and nothing else; what cannot be read is no answer."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import real

from gristmill.verifiers.toolcalls.matching import matches
from gristmill.verifiers.tools import tools

WEATHER = {
    "name": "geo.weather",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 1},
            "scale": {"type": "float"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    },
}
STOCK = {"type": "function", "function": {"name": "stock", "parameters": {"properties": {"day": {"type": "string"}}}}}
TOOLS = [WEATHER, STOCK]
GOLD = [{"geo.weather": {"city": ["New York", "NYC"], "days": ["", 3], "scale": ["", 2.0], "tags": ["", ["a", "b"]]}}]
RIGHT = {"name": "geo.weather", "arguments": {"city": "new-york", "days": 3}}


def judge(response, calls=GOLD, **params):
    text = response if isinstance(response, str) else json.dumps(response)
    return tools(**params)("?", text, tools=TOOLS, calls=calls)


@pytest.mark.parametrize(
    "response",
    [
        [RIGHT],
        RIGHT,
        {"name": "geo_weather", "parameters": {"city": "NYC"}},
        [{"geo.weather": {"city": "NYC"}}],
        {"tool_calls": [{"type": "function", "function": {**RIGHT, "arguments": json.dumps(RIGHT["arguments"])}}]},
        f"<tool_call>\n{json.dumps(RIGHT)}\n</tool_call>",
        f"I look it up.\n```json\n{json.dumps([RIGHT])}\n```",
        f"<think>geo.weather(city='Rome')?</think>\n{json.dumps(RIGHT)}",
        "[geo.weather(city='New York', days=3, scale=2, tags=('a', 'b'))]",
        'geo.weather(city="NYC")',
    ],
)  # fmt: skip
def test_a_right_call_passes_in_every_form(response):
    assert judge(response).score == 1.0


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "empty_response"),
        ("It is sunny in New York.", "no_call"),
        ("[]", "no_call"),
        ([RIGHT, RIGHT], "wrong_count"),
        ({"name": "stock", "arguments": {"city": "NYC"}}, "wrong_function"),
        ({"name": "weather", "arguments": {"city": "NYC"}}, "unknown_function"),
        ({"name": "geo.weather", "arguments": {"days": 3}}, "missing_argument"),
        ({"name": "geo.weather", "arguments": {"city": "NYC", "unit": "C"}}, "unexpected_argument"),
        ({"name": "geo.weather", "arguments": {"city": "Boston"}}, "wrong_value"),
        ({"name": "geo.weather", "arguments": {"city": ["NYC"]}}, "wrong_type"),
        ({"name": "geo.weather", "arguments": {"city": "NYC", "days": 3.0}}, "wrong_type"),
        ({"name": "geo.weather", "arguments": {"city": "NYC", "days": "3"}}, "wrong_type"),
        ({"name": "geo.weather", "arguments": {"city": "NYC", "days": None}}, "wrong_type"),
        ({"name": "geo.weather", "arguments": {"city": "NYC", "tags": ["b", "a"]}}, "wrong_value"),
        ("geo.weather(city=NYC)", "wrong_type"),
        ("geo.weather('New York')", "positional_argument"),
        ("geo.weather(**{'city': 'NYC'})", "positional_argument"),
        ("geo.weather(city='NYC', days=1 + 2)", "not_a_literal"),
        ("geo.weather(city='NYC', city='Rome')", "duplicate_key"),
        ('{"name": "geo.weather", "arguments": {"city": "Rome", "city": "NYC"}}', "duplicate_key"),
        ('{"name": "geo.weather", "arguments": {"city": "NYC", "scale": NaN}}', "not_finite"),
        ('{"name": "geo.weather", "arguments": {"city": "NYC", "scale": 2e999}}', "not_finite"),
        ("geo.weather(city='NYC', scale=2e999)", "not_finite"),
        ('{"name": "geo.weather", "arguments": {"city": "NYC"}, "parameters": {"city": "Rome"}}', "not_a_call"),
        ("```\ngeo.weather(city='NYC')\n```\nor\n```\ngeo.weather(city='Rome')\n```", "several_answers"),
        ("<think>geo.weather(city='NYC')", "unclosed_think"),
        ('<tool_call>{"name": "geo.weather", "arguments": {"city": "NYC"}}', "unclosed_tool_call"),
        ("__import__('os').system('true')", "not_a_call"),
        ("geo.weather(city=__import__('os').getcwd())", "not_a_literal"),
        ("x" * 1_000_000, "too_long"),
        ("[" * 40_000 + "]" * 40_000, "too_deep"),
        ("geo.weather(city=" + "-" * 90_000 + "1)", "too_deep"),
        ("geo.weather(days=" + "9" * 90_000 + ")", "no_call"),
        ('{"name": "geo.weather", "arguments": {"city": "\\ud800"}}', "wrong_value"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_the_first_thing_wrong_is_named(response, reason):
    verdict = judge(response)
    assert (verdict.score, verdict.reason) == (0.0, reason)
    assert len(json.dumps(verdict.evidence, ensure_ascii=False).encode()) < 4000


@pytest.mark.parametrize(
    "response",
    [
        "I can't use stock() for that.",
        "No tool fits this.",
        "[]",
        "<think>stock(day='x')</think>None fits.",
        '{"answer": 42}',
        '{"answer": 42,}',
        "Run this:\n```python\nprint('hi')\n```",
        '{"content": "No tool fits.", "tool_calls": null}',
    ],
)
def test_where_no_call_is_expected_an_answer_passes(response):
    assert judge(response, calls=[]).score == 1.0


@pytest.mark.parametrize(
    "response",
    [
        [RIGHT], "stock(day='1')", "Sure: stock(day='1') will tell.", "[stock(day=1+1)]", '{"stock": "1"}',
        "<tool_call>stock</tool_call>",
        'I send {"name": "stock", "arguments": {}} now', "stock('1')", "[stock(day='1'",
    ],
    ids=str,
)  # fmt: skip
def test_where_no_call_is_expected_any_attempt_fails(response):
    assert (judge(response, calls=[]).score, judge(response, calls=[]).reason) == (0.0, "unexpected_call")


@pytest.mark.parametrize(
    "calls",
    [
        [{"rain": {}}], "not json", [{"geo.weather": {"city": "NYC"}}], [{"geo.weather": {}}], [7], 7,
        [{"geo.weather": {"city": ["x"], "town": ["y"]}}], [{"name": "geo.weather", "arguments": "{"}],
    ],
    ids=str,
)  # fmt: skip
def test_a_gold_that_no_answer_can_meet_is_not_judged(calls):
    assert (judge([RIGHT], calls=calls).score, judge([RIGHT], calls=calls).reason) == (None, "bad_gold")


def test_plain_gold_calls_let_a_default_be_said_or_left_out():
    plain = [{"name": "geo.weather", "arguments": {"city": "Rome"}}]
    assert judge({"name": "geo.weather", "arguments": {"city": "Rome", "days": 1}}, plain).score == 1.0
    assert judge({"name": "geo.weather", "arguments": {"city": "Rome", "days": 2}}, plain).reason == "wrong_value"
    said = [{"name": "geo.weather", "arguments": {"city": "Rome", "days": 1}}]
    assert judge({"name": "geo.weather", "arguments": {"city": "Rome"}}, said).score == 1.0


def test_parallel_calls_match_in_any_order_unless_order_matters():
    gold = [{"stock": {"day": ["1", "2"]}}, {"stock": {"day": ["1"]}}]
    one, two = ({"name": "stock", "arguments": {"day": day}} for day in "12")
    assert judge([two, one], gold).score == judge([two, one], gold, ordered=True).score == 1.0
    assert judge([one, two], gold).score == 1.0  # the loose expectation leaves "1" to the strict one
    assert judge([one, two], gold, ordered=True).reason == "wrong_order"
    assert judge([two, two], gold).reason == "wrong_value"
    assert judge([one, one], gold).score == 1.0


@pytest.mark.parametrize(
    ("value", "gold", "same"),
    [
        ("April 1,2024", "april 1, 2024", True), ("new_york", "New York", True), ("1,000", "1000", True),
        ("2024/01/05", "2024-01-05", True), ("3x^2 - 4", "3x**2-4", True), ("it's", 'it"s', True), ("", "", True),
        ("2024-1-11", "2024-11-1", False), ("3.5", "35", False), ("-5", "5", False), ("x^2-4", "x^24", False),
        ("...", "", False), ("2^3", "2*3", False), ("(-3, 5)", "(3, 5)", False),
    ],
)  # fmt: skip
def test_strings_are_compared_without_case_and_punctuation_but_numbers_stay_themselves(value, gold, same):
    assert matches(value, gold, {"type": "string"}, choices=False) is same


def test_types_are_told_apart_at_every_depth():
    gold = [{"id": [1], "on": [True, ""], "tags": [["x"]]}]
    assert matches([{"id": 1, "tags": ["X"]}], gold, {"type": "array"}, choices=True)
    assert not matches([{"id": True, "tags": ["x"]}], gold, {"type": "array"}, choices=True)
    assert not matches([{"id": 1, "on": 1, "tags": ["x"]}], gold, {"type": "array"}, choices=True)
    assert not matches([{"id": 1}], gold, {"type": "array"}, choices=True)
    assert matches([1, 2], [1.0, 2.0], {"type": "array", "items": {"type": "float"}}, choices=False)
    assert not matches(1.0, 1, {"type": "integer"}, choices=False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), values, max_size=4))
def test_a_plain_gold_passes_itself(arguments):
    call = {"name": "free", "arguments": {**arguments, "text": "</think><tool_call>```"}}
    verdict = tools()("?", json.dumps([call]), tools=[{"name": "free"}], calls=[call])
    assert verdict.score == 1.0, verdict


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@given(st.text(alphabet="[]{}()\"'=:,.`<>/ -1aft_\\\n", max_size=80))
def test_no_text_breaks_the_reader(response):
    assert judge(response).score == 0.0


def bfcl(kind):
    questions = [json.loads(line) for line in real(f"verify/bfcl-BFCL_v4_{kind}.json").open()]
    answers = [json.loads(line) for line in real(f"verify/bfcl-possible_answer-BFCL_v4_{kind}.json").open()]
    return [
        {"prompt": "?", "tools": question["function"], "calls": answer["ground_truth"]}
        for question, answer in zip(questions, answers, strict=True)
    ]


def mutants(call, function):
    """Calls that are wrong for certain: one thing at a time."""
    arguments = call["arguments"]
    yield "name", {**call, "name": call["name"] + "_2"}
    yield "extra", {**call, "arguments": {**arguments, "not_declared": 1}}
    for key in function["parameters"].get("required", []):
        yield "dropped", {**call, "arguments": {k: v for k, v in arguments.items() if k != key}}
    for key in arguments:
        yield "type", {**call, "arguments": {**arguments, key: {"other": "type"}}}
        yield "value", {**call, "arguments": {**arguments, key: "quite another value"}}


@pytest.mark.parametrize(("kind", "rows"), [("simple_python", 400), ("multiple", 200)])
def test_every_bfcl_answer_passes_and_every_mutant_fails(kind, rows):
    tasks, check = bfcl(kind), tools()
    assert len(tasks) == rows
    python = [[f"{name}({', '.join(f'{k}={v!r}' for k, v in args.items())})" for name, args in calls] for calls in [
        [(call["name"], call["arguments"]) for call in json.loads(check.reference(task))] for task in tasks
    ]]  # fmt: skip
    for task, calls in zip(tasks, python, strict=True):
        call = json.loads(check.reference(task))
        assert check.rows([{**task, "response": json.dumps(call)}])[0].score == 1.0, task["calls"]
        assert check.rows([{**task, "response": f"[{', '.join(calls)}]"}])[0].score == 1.0, task["calls"]
        function = next(f for f in task["tools"] if f["name"] == call[0]["name"])
        for what, wrong in mutants(copy.deepcopy(call[0]), function):
            assert check.rows([{**task, "response": json.dumps([wrong])}])[0].score == 0.0, (what, wrong)


def test_a_conversation_with_plain_calls_passes_itself():
    calls = answers = 0
    for row in json.loads(real("sft/lf-glaive_toolcall_en_demo.json").read_text()):
        for turn in row["conversations"]:
            if turn["from"] == "function_call":
                calls += 1
                assert tools()("?", turn["value"], tools=row["tools"], calls=turn["value"]).score == 1.0, turn
            elif turn["from"] == "gpt":
                answers += 1
                assert tools()("?", turn["value"], tools=row["tools"], calls=[]).score == 1.0, turn
    assert (calls, answers) == (211, 746)
