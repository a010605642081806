"""Verifiers of form: what each takes and refuses, whose fault a failure is, and that hostile input is answered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.verifiers.instructions import schemas, strictjson
from gristmill.verifiers.verifier import find, load

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
PASSAGES = ["The mill was built in 1784, by two brothers.", "It burned down; “nobody”  was\nhurt in the fire."]
SPENT = {"name": "format.regex", "version": 1, "params": {"pattern": "a+"}}


def told(name: str, response: str, columns: dict | None = None, **params):
    verdict = find(f"format.{name}")(**params)("p", response, **(columns or {}))
    return verdict.score, verdict.reason


@pytest.mark.parametrize("response", ["", "  \n", "\u200b\u200b"])
@pytest.mark.parametrize(
    ("name", "params", "columns"),
    [
        ("json", {"schema": True}, {}),
        ("regex", {"pattern": "(?s).*"}, {}),
        ("xml", {"tags": ["a"]}, {}),
        ("think", {}, {}),
        ("length", {"maximum": 9}, {}),
        ("citations", {}, {"context": PASSAGES}),
    ],
)
def test_an_empty_response_fails(name, params, columns, response):
    assert told(name, response, columns, **params) == (0.0, "empty")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('{"name": "Ann", "age": 3}', (1.0, "valid")),
        ('```json\n{"name": "Ann"}\n```', (1.0, "valid")),
        ('{"name": "Ann", "age": 3.0}', (1.0, "valid")),
        ('{"name": "Ann", "age": -1}', (0.0, "schema_violated")),
        ('{"name": "Ann", "age": true}', (0.0, "schema_violated")),
        ('{"name": "Ann", "aged": 3}', (0.0, "schema_violated")),
        ('{"age": 3}', (0.0, "schema_violated")),
        ('{"name": "Ann",}', (0.0, "not_json")),
        ("{'name': 'Ann'}", (0.0, "not_json")),
        ('Here it is: {"name": "Ann"}', (0.0, "not_json")),
        ('{"name": "Ann"} {"name": "Bob"}', (0.0, "not_json")),
        ('{"name": "Ann", "name": "Bob"}', (0.0, "duplicate_key")),
        ('{"name": "Ann", "age": NaN}', (0.0, "not_finite")),
        ('{"name": "Ann", "age": -Infinity}', (0.0, "not_finite")),
        ('{"name": "Ann", "age": 1e999}', (0.0, "not_finite")),
        ('{"name": "Ann", "age": ' + "9" * 5_000 + "}", (0.0, "number_too_long")),
        ("[" * 100_000 + "]" * 100_000, (0.0, "too_deep")),
        ('{"a":' * 65 + "1" + "}" * 65, (0.0, "too_deep")),
        ("[" + "1," * 60_000 + "1]", (0.0, "too_large")),
    ],
)
def test_json(response, expected):
    assert told("json", response, {"schema": PERSON}) == expected
    assert told("json", response, schema=PERSON) == expected
    assert told("json", response, {"schema": json.dumps(PERSON)}, schema=False) == expected, "the row's own goes first"


def test_json_without_a_fence_and_with_any_value():
    assert told("json", '```json\n{"name": "Ann"}\n```', schema=PERSON, fenced=False) == (0.0, "not_json")
    for response in ("{}", "[]", "null", '"a"', "0"):
        assert told("json", response, schema=True) == (1.0, "valid")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (None, "no_schema"),
        (5, "bad_schema"),
        ("{", "bad_schema"),
        ({"type": "int"}, "bad_schema"),
        ({"$schema": "https://example.com/own"}, "bad_schema"),
        ({"$ref": "https://example.com/other.json"}, "bad_schema"),
        ({"$ref": "#"}, "bad_schema"),
        ({"pattern": "("}, "bad_schema"),
        ({"unevaluatedProperties": False, "patternProperties": {"a": True}}, "bad_schema"),
        ({"pattern": "^(a|aa)+b$"}, "timed_out"),
    ],
)
def test_a_broken_or_endless_schema_is_no_score(schema, reason):
    response = json.dumps("a" * 80)
    assert told("json", response, {"schema": schema}, seconds_context=0.2) == (None, reason)


def test_one_rows_schema_costs_no_other_row_its_verdict():
    odd = {"$schema": "http://json-schema.org/draft-03/schema#", "extends": {"$ref": 5}, "type": "house"}
    rows = [{"prompt": "p", "response": "1", "schema": schema} for schema in (True, odd, {"type": "string"})]
    assert [verdict.score for verdict in find("format.json")().rows(rows)] == [1.0, None, 0.0]


def test_the_draft_is_the_schemas_own():
    tuples = {"items": [{"type": "string"}, {"type": "integer"}]}
    old = {"$schema": "http://json-schema.org/draft-07/schema#", **tuples}
    assert told("json", '["a", 1]', schema=old) == (1.0, "valid")
    assert told("json", '["a", "b"]', schema=old) == (0.0, "schema_violated")
    assert told("json", '["a", 1]', schema=tuples) == (None, "bad_schema"), "in 2020-12 that is prefixItems"
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}
    assert told("json", "1.0", schema=draft4) == (0.0, "schema_violated")
    assert told("json", "1.0", schema={"type": "integer"}) == (1.0, "valid")


def test_a_reference_inside_the_schema_and_a_recursive_one_hold_to_the_deepest_value():
    node = {"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"a": {"$ref": "#/$defs/node"}}}]}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    depth = strictjson.MAX_DEPTH
    assert told("json", '{"a":' * depth + "1" + "}" * depth, schema=schema) == (1.0, "valid")
    assert told("json", '{"a":' * depth + '"x"' + "}" * depth, schema=schema) == (0.0, "schema_violated")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, -2.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "xa", "xb"]), inner),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.lists(values, max_size=6), st.booleans())
def test_the_replaced_keywords_say_what_jsonschema_says(items, loose):
    from jsonschema import Draft202012Validator

    below = {
        "properties": {"a": {"type": "integer"}},
        "patternProperties": {"^x": {"type": ["string", "array"]}},
        "additionalProperties": {"pattern": "^a"} if loose else False,
        "pattern": "^(a|b)",
        "uniqueItems": True,
    }
    schema = {"uniqueItems": True, "items": below}
    expected = Draft202012Validator(schema).is_valid(items)
    assert told("json", json.dumps(items), schema=schema)[0] == float(expected)


@given(values)
def test_what_python_writes_is_read_back(value):
    assert strictjson.read(json.dumps(value)).value == value
    assert schemas.verdict(schemas.compiled({"const": value}), value, 1.0).score == 1.0


@pytest.mark.parametrize(
    ("pattern", "response", "expected"),
    [
        (r"\d{4}-\d\d", "2026-11", (1.0, "matched")),
        (r"\d{4}-\d\d", "2026-11\n", (0.0, "not_matched")),
        (r"\d{4}-\d\d", "on 2026-11", (0.0, "not_matched")),
        (r"(?is)answer:.*", "ANSWER:\nso", (1.0, "matched")),
        (r"a.c", "a\ud800c", (1.0, "matched")),
        (r"(", "a", (None, "bad_pattern")),
        (5, "a", (None, "bad_pattern")),
        (None, "a", (None, "no_pattern")),
        (r"(a|aa)+b", "a" * 80, (None, "timed_out")),
    ],
)
def test_regex(pattern, response, expected):
    assert told("regex", response, {"pattern": pattern}, seconds_context=0.2) == expected


def test_seconds_are_no_identity():
    short, long = (find("format.regex")(pattern="a+", seconds_context=seconds) for seconds in (0.1, 9.0))
    assert short.identity == long.identity == SPENT
    assert load(SPENT)("p", "aaa").score == 1.0


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("<plan>go</plan> and <do>it</do>.", "tags_hold"),
        ("Well, <plan>a < b</plan><do><b>it</b></do>", "tags_hold"),
        ("<plan>go</plan>", "missing_tag"),
        ("<plan>go</plan><do>it", "unclosed_tag"),
        ("<plan>go</plan><do> \u200b </do>", "empty_tag"),
        ("<do>it</do><plan>go</plan>", "tag_order"),
        ("<plan>go<do>it</do></plan>", "tag_order"),
        ("<plan>go</plan><do>it</plan></do>", "repeated_tag"),
        ("<plan>go</plan><do>it</do><do>that</do>", "repeated_tag"),
        ("<PLAN>go</PLAN><do>it</do>", "missing_tag"),
    ],
)
def test_xml(response, reason):
    assert told("xml", response, tags=["plan", "do"]) == (float(reason == "tags_hold"), reason)


@pytest.mark.parametrize("tags", ["plan", [], ["a", "a"], ["a b"], ["a>"], [5], {"a": 1}])
def test_tags_that_are_none_are_no_score(tags):
    assert told("xml", "<a>b</a>", {"tags": tags}) == (None, "bad_tags")
    assert told("xml", "<a>b</a>") == (None, "no_tags")


@pytest.mark.parametrize(
    ("prompt", "response", "reason"),
    [
        ("p", "<think>so</think>\n<answer>4</answer>\n", "tags_hold"),
        ("p", "<think>so</think><answer>{}</answer>", "tags_hold"),
        ("p", "<think>so</think>4", "missing_tag"),
        ("p", "<think>so</think><answer>4</answer> I am sure.", "text_outside"),
        ("p", "So: <think>so</think><answer>4</answer>", "text_outside"),
        ("p", "<think>so</think> or <answer>4</answer>", "text_outside"),
        ("p", "<think>so</think><answer>4</answer><answer>5</answer>", "repeated_tag"),
        ("p", "<think>a</think><think>b</think><answer>4</answer>", "repeated_tag"),
        ("p", "<answer>4</answer><think>so</think>", "tag_order"),
        ("p", "<think></think><answer>4</answer>", "empty_tag"),
        ("p", "so</think><answer>4</answer>", "missing_tag"),
        ("p\n<think>\n", "so</think><answer>4</answer>", "tags_hold"),
        ("p\n<think>\n", "<think>so</think><answer>4</answer>", "tags_hold"),
        ("p\n<think>\n", "so</think><think>so</think><answer>4</answer>", "repeated_tag"),
    ],
)
def test_think(prompt, response, reason):
    verdict = find("format.think")()(prompt, response)
    assert (verdict.score, verdict.reason) == (float(reason == "tags_hold"), reason)
    assert ("attack" in verdict.evidence) is (reason == "repeated_tag")


@given(st.integers(1, 40), st.integers(0, 3))
def test_a_text_of_n_units_lies_between_n_and_n(n, blanks):
    text = " " * blanks + ("\n" * blanks + " ").join(["ab"] * n) + "\u200b"
    for unit, count in (("words", n), ("tokens", n), ("chars", 3 * n - 1)):
        assert told("length", text, unit=unit, minimum=count, maximum=count) == (1.0, "in_limits")
        assert told("length", text, unit=unit, minimum=count + 1) == (0.0, "too_short")
        assert told("length", text, unit=unit, maximum=count - 1) == (0.0, "too_long")


def test_a_length_without_limits_or_unit_is_no_score():
    assert told("length", "a") == (None, "bad_limits")
    assert told("length", "a", unit="lines", maximum=3) == (None, "bad_limits")
    assert told("length", "a", minimum=0) == (1.0, "in_limits"), "0 is a limit"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("It is old [1].", "cited"),
        ("It is old [1, 2] and burned [1-2].", "cited"),
        ('It "was built in 1784", as they say.', "cited"),
        ("It “was\nbuilt   in 1784” [1].", "cited"),
        ('They were "two brothers" [1].', "cited"),
        ("It says \"'nobody' was hurt\"", "quote_not_found"),
        ('It "burned down ... hurt in the fire."', "cited"),
        ('It "hurt in the fire ... burned down"', "quote_not_found"),
        ('It "was built in 1784" [2].', "quote_not_in_cited"),
        ('It "was built in 1785".', "quote_not_found"),
        ("It is old [3].", "unknown_id"),
        ("It is old [1-3].", "unknown_id"),
        ("It is old [1][doc7].", "unknown_id"),
        ("It is old.", "no_citation"),
        ("It is old [sic].", "no_citation"),
        ("[1] [2].", "no_claim"),
        ('The "mill" is old.', "no_citation"),
        ('It "was ... in ... by", so.', "no_citation"),
        ('It "was built in 1784.', "unbalanced_quotes"),
        ("It “was never built [1].", "unbalanced_quotes"),
        ('"a" ' * 2_000, "too_many_quotes"),
    ],
)
def test_citations(response, reason):
    assert told("citations", response, {"context": PASSAGES}) == (float(reason == "cited"), reason)


@pytest.mark.parametrize(
    ("context", "response", "expected"),
    [
        ("[1] The mill. [2] The fire.", "So [2].", (1.0, "cited")),
        ("[1] The mill. [2] The fire.", "So [3].", (0.0, "unknown_id")),
        ("The mill is old.", 'So "the mill is old".', (0.0, "quote_not_found")),
        ("The mill is old.", 'So "The mill is old".', (1.0, "cited")),
        ({"Smith 2020": "The mill."}, "So [Smith 2020].", (1.0, "cited")),
        ([{"id": "doc7", "text": "The mill."}], "So [doc7].", (1.0, "cited")),
        ([{"id": 7, "text": "The mill."}], "So [7]; not [8].", (0.0, "unknown_id")),
        ([], "So [1].", (None, "bad_context")),
        (" ", "So [1].", (None, "bad_context")),
        (5, "So [1].", (None, "bad_context")),
        ([{"id": 1}], "So [1].", (None, "bad_context")),
        ([{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], "So [1].", (None, "bad_context")),
        (None, "So [1].", (None, "no_column")),
    ],
)
def test_contexts(context, response, expected):
    assert told("citations", response, {"context": context}) == expected


UNITS = ["a", ".", "[", "[1]", "[1-999]", '"', '"a b c" ', "“", "<think>", "<", '{"a":', "[1,", '\\"', "\0", "\ud800"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_million_characters_are_answered(unit):
    text = unit * (1_000_000 // len(unit)) + " a"
    schema = {"items": {"anyOf": [{"type": "integer"}, {"pattern": "^a"}]}, "uniqueItems": True}
    for name, params, columns in (
        ("json", {"schema": schema}, {}),
        ("regex", {"pattern": "(?s)(?:a.*)*b"}, {}),
        ("xml", {"tags": ["think", "a"]}, {}),
        ("think", {}, {}),
        ("length", {"unit": "chars", "maximum": 9}, {}),
        ("citations", {}, {"context": PASSAGES * 100}),
    ):
        score, reason = told(name, text, columns, **params)
        assert score is not None or reason == "timed_out", (name, reason)
