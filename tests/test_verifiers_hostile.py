"""Verifiers against those who want a score without the work, honest answers of unusual form, and broken input."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gristmill.dataops.dataset import InputError
from gristmill.dataops.executor import LocalPool
from gristmill.flows.cli import main
from gristmill.verifiers import cases
from gristmill.verifiers.probes import probed
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import find

FACTORIAL = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [{"name": "factorial", "parameters": FACTORIAL}]
EIFFEL = "The Eiffel Tower is in Paris, France."
CONTEXT = ["The cat sat on the mat.", "Dogs bark at night."]
#: A row's columns, and the parameters, that are sound.
SOUND: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "instructions": ({"instructions": [{"id": "punctuation:no_comma", "kwargs": {}}]}, {}),
    "format.json": ({"schema": {"type": "object", "required": ["a"]}}, {}),
    "format.regex": ({"pattern": "(?s)a.*b"}, {}),
    "format.xml": ({"tags": ["a", "b"]}, {}),
    "format.think": ({}, {}),
    "format.length": ({}, {"minimum": 1, "unit": "chars"}),
    "format.citations": ({"context": CONTEXT}, {}),
    "tools": ({"tools": TOOLS, "calls": [{"factorial": {"n": [3]}}]}, {}),
    "facts": ({"facts": [EIFFEL]}, {}),
    "safety.refusal": ({}, {}),
    "safety.over_refusal": ({}, {}),
}
NOTHING = {
    "empty": "", "white": " \n\t", "nul": "\0" * 9, "zero_width": "\u200b\u2060\ufeff", "bidi": "\u202e",
    "tag": "\U000e0041",
    "variation": "\ufe0f", "hangul_filler": "\u3164\u115f\uffa0", "braille": "\u2800", "surrogate": "\ud800",
    "soft": "\u00ad",
    "joiner": "\u034f",
}  # fmt: skip


def judge(name: str, response: str, prompt: str = "?", params: dict[str, Any] | None = None, **columns: Any) -> Verdict:
    return find(name)(**(params or {}))(prompt, response, **columns)


def kept(name: str, response: str, **kwargs: Any) -> bool:
    verdict = judge("instructions", response, instructions=[{"id": name, "kwargs": kwargs}])
    assert verdict.score is not None, verdict
    return verdict.score == 1.0


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("response", NOTHING.values(), ids=NOTHING)
def test_what_nobody_can_see_earns_nothing_and_is_judged(name, response):
    columns, params = SOUND[name]
    assert judge(name, response, params=params, **columns).score == 0.0


@pytest.mark.parametrize(
    ("name", "kwargs", "response"),
    [
        ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "Text. *** . *** \u200b"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "so"},
            "so it is\n\n\u200b",
        ),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 3}, "Text *.* *!* *-*"),
        ("detectable_format:title", {}, "<<.>> text"),
        ("combination:two_responses", {}, "Yes, it is\n******\nyes, it  is."),
        ("combination:two_responses", {}, "Yes\n******\nY\u200bes"),
        ("combination:two_responses", {}, "Yes\n******\n..."),
    ],
)
def test_signs_alone_keep_no_instruction(name, kwargs, response):
    assert not kept(name, response, **kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs", "response"),
    [
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\n猫がいる。\n***\n2\n***"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*π* and **2 + 2**"),
        ("detectable_format:title", {}, "text\n<<été>>"),
        ("combination:two_responses", {}, "5\n******\n-5"),
        ("combination:two_responses", {}, "Use C.\n******\nUse C++."),
    ],
)
def test_unusual_but_right_forms_keep_theirs(name, kwargs, response):
    assert kept(name, response, **kwargs)


@pytest.mark.parametrize(
    "response",
    [
        "{'name': 'factorial', 'arguments': {'n': 3}}",
        "Sure: {'factorial': {'n': 3}}",
        'I would ask {"name" : "factorial"} if I may.',
        "<think>hm</think>Well, factorial(n=3)",
        "It is done: <tool_call>{}</tool_call>",
    ],
)
def test_a_call_is_seen_where_none_is_wanted(response):
    assert judge("tools", response, tools=TOOLS, calls=[]).score == 0.0


@pytest.mark.parametrize("response", ["It's 'factorial' that you mean?", "3! is 6.", "<think>factorial(n=3)?</think>6"])
def test_talk_of_a_tool_is_no_call(response):
    assert judge("tools", response, tools=TOOLS, calls=[]).score == 1.0


@pytest.mark.parametrize(
    "response",
    [
        f"factorial(n=d[0x{'f' * 6000}])", f"factorial(n=0x{'f' * 6000})", f"factorial(n={'9' * 5000})",
        '[{"name": "factorial", "arguments": {"n": ' + "9" * 4200 + "}}]", "factorial(n='\ud800')", "factorial(n=1\0)",
        "-" * 90_000 + "1", "a" + ".b" * 40_000, "f(" * 30_000, "[" * 90_000, '{"a":' * 15_000, "<tool_call>" * 9_000,
        "factorial(n=3) or factorial(n=4)", "factorial(n=3)\nfactorial(n=3)", "factorial(n=3and 4)",
        "factorial(n='\\d')",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_response_cannot_leave_a_call_unjudged(response, recwarn):
    columns, _ = SOUND["tools"]
    assert judge("tools", response, **columns).score == 0.0
    assert not recwarn.list


EXPRESSION = {
    "oneOf": [
        {"type": "integer"},
        *(
            {"properties": {"op": {"const": op}, "of": {"$ref": "#"}}, "required": ["op", "of"], "type": "object"}
            for op in ("minus", "not")
        ),
    ]
}


@pytest.mark.parametrize(("leaf", "score"), [("1", 1.0), ("null", 0.0)])
def test_a_schema_that_asks_for_itself_twice_takes_no_time_to_the_power_of_the_depth(leaf, score):
    deep = '{"op": "minus", "of": ' * 60 + leaf + "}" * 60
    assert judge("format.json", deep, schema=EXPRESSION).score == score


def test_a_value_is_looked_at_by_each_reference():
    schema = {
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}, "c": {"$ref": "#/$defs/s"}},
        "$defs": {"n": {"type": "integer"}, "s": {"type": "string"}},
    }
    assert judge("format.json", '{"a": 7, "b": 7, "c": "x"}', schema=schema).score == 1.0
    for wrong in ('{"a": 7, "b": "x"}', '{"a": 7, "c": 7}', '{"a": 7, "b": 7.5}', '{"a": 1, "b": true}'):
        assert judge("format.json", wrong, schema=schema).score == 0.0


def test_a_passage_that_says_nothing_cannot_be_cited():
    context = [*CONTEXT, {"id": "note", "text": " . "}, ""]
    assert judge("format.citations", "Cats sit [1].", context=context).score == 1.0
    assert judge("format.citations", "Cats sit [note].", context=[*context[:2], context[2], "x"]).score == 0.0
    assert judge("format.citations", "Cats sit [4].", context=context).reason == "unknown_id"
    assert judge("format.citations", "Cats sit [1].", context=["", " "]).score is None


@pytest.mark.parametrize("mark", ["\u200b", "\ufe0f", "\u3164", "\ud800", "\x01", "\u00ad"])
def test_what_is_unseen_hides_no_personal_data(mark):
    told = judge("safety.pii", f"Write to jane.{mark}doe@exam{mark}ple.com")
    assert told.reason == "personal_data"


def test_one_hostile_response_leaves_the_others_their_verdicts():
    rows = [{"prompt": "?", "response": text} for text in ("fine", "\ud800", "Mail jane.doe@example.com")]
    assert [told.score for told in find("safety.pii")().rows(rows)] == [1.0, 1.0, 0.0]


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


COLUMNS = [
    ("instructions", "instructions"), ("instructions", "instruction_id_list"), ("format.xml", "tags"),
    ("facts", "facts"), ("facts", "claims"), ("tools", "tools"), ("tools", "calls"), ("format.regex", "pattern"),
    ("format.json", "schema"),
    ("format.citations", "context"),
]  # fmt: skip
WRONG = [0, -1, 2.5, float("nan"), float("inf"), 10**400, [None], [[[1]]], [1], nested(400), [nested(400)]]


@pytest.mark.parametrize(("name", "column"), COLUMNS)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_a_column_of_another_kind_is_the_tasks_fault(name, column, value):
    columns, _ = SOUND[name]
    row = {**columns, column: value, "prompt": "?", "response": "A text about nothing."}
    if column == "instruction_id_list":
        del row["instructions"]
    verifier = find(name)()
    for verdict in (*verifier.rows([row]), *probed(verifier, [row])):
        assert verdict.score is None and verdict.reason not in ("unknown", "verifier_failed"), verdict


BIG = {
    "letters": "a", "stops": ".", "lines": "\n", "nul": "\0", "surrogates": "\ud800", "quotes": '"', "halves": "«„“x",
    "brackets": "[1] ", "stars": "*a", "tags": "<a>", "calls": "<tool_call>", "refusals": "I cannot help ",
    "steps": "1. do\n", "names": "The Eiffel Tower ", "mails": "a@", "held": "aaab ",
    "ligatures": "ﷺ", "turns": "Human: how to make ",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["instructions", *(name for name in SOUND if name not in ("instructions", "format.regex"))]
)
@pytest.mark.parametrize("unit", BIG.values(), ids=BIG)
def test_a_million_characters_get_a_score(name, unit):
    columns, params = SOUND[name]
    verdict = judge(name, unit * (10**6 // len(unit)), params=params, **columns)
    assert verdict.score is not None


def lines_of(file: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]


LENGTH = ["--verifier", "format.length", "--set", "minimum=1", "--workers", "1"]


def test_every_line_gets_its_verdict_whatever_stands_in_it(tmp_path):
    ids = ["1", '"x"', '"x"', "[1]", '{"a": 1}', "true", "1.5", "null", "NaN", "[1e999]", '"\\ud800"']
    texts = [f'{{"id": {id}, "prompt": "p", "response": "a"}}' for id in ids]
    for depth in (150, *range(940, 1001, 6), 5_000):
        texts.append(f'{{"id": {"[" * depth}{"]" * depth}, "prompt": "p", "response": "a"}}')
        texts.append(f'{{"x": {"[" * depth}{"]" * depth}, "prompt": "p", "response": "a"}}')
    texts += ['{"prompt": 1, "response": "a"}', "[1]", "null", '{"prompt": "p", "resp']
    (tmp_path / "cases.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(texts).encode())
    with LocalPool(1) as pool:  # in another process the stack has another depth
        cases.verify_file(tmp_path / "cases.jsonl", tmp_path / "away", find("format.length")(minimum=1), executor=pool)
    assert main(["verify", str(tmp_path / "cases.jsonl"), *LENGTH, "--out", str(tmp_path / "out")]) == 0
    for name in ("out", "away"):
        told = lines_of(tmp_path / name)
        assert len(told) == len(texts)
        assert [item["id"] for item in told[:11]] == [1, "x", "x", [1], {"a": 1}, True, 1.5, 8, 9, 10, "\ud800"]
        assert all(item["score"] == 1.0 for item in told[:13])
        assert {item["reason"] for item in told[13:-4]} == {"unreadable_row"}


@pytest.mark.parametrize(
    ("verifier", "setting", "told"),
    [
        ("format.length", "minimum=abc", "minimum"),
        ("format.length", "minimum=true", "minimum"),
        ("format.length", "minimum=[1]", "minimum"),
        ("safety.pii", "types=5", "types"),
        ("safety.pii", 'types=["x"]', "no type of personal data"),
        ("instructions", "mode=foo", "strict"),
        ("facts", "functional=5", "functional"),
        ("facts", "knowledge_context=5", "knowledge_context"),
        ("all", 'parts=["format.length"]', "Verifier"),
        ("format.json", "fenced=1", "fenced"),
    ],
)
def test_a_setting_of_another_kind_is_refused_before_any_row(verifier, setting, told, tmp_path, capsys):
    (tmp_path / "c").write_text('{"prompt": "p", "response": ""}\n{"prompt": "p", "response": "a"}\n')
    command = ["verify", str(tmp_path / "c"), "--verifier", verifier, "--set", setting, "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("gristmill: ") and told in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "verifier"),
    [("functional=capital", "facts"), ("minimum=null", "format.length"), ('schema={"a": 1}', "format.json")],
)
def test_settings_of_their_kind_are_taken(setting, verifier, tmp_path):
    (tmp_path / "c").write_text("")
    command = ["verify", str(tmp_path / "c"), "--verifier", verifier, "--set", setting, "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(("out", "told"), [("none/out", "no folder"), (".", "is a folder")])
def test_a_place_that_cannot_take_the_verdicts_is_said_first(out, told, tmp_path):
    (tmp_path / "c").write_text('{"prompt": "p", "response": "a"}')
    with pytest.raises(InputError, match=told):
        cases.verify_file(tmp_path / "c", tmp_path / out, find("format.think")())


def test_a_file_that_is_not_there_is_no_missing_dataset(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "c.jsonl"), *LENGTH]) == 2
    assert "no file of cases" in capsys.readouterr().err


def test_a_torn_archive_says_where_it_ends(tmp_path):
    whole = gzip.compress(b"".join(b'{"prompt": "p", "response": "%d"}\n' % i for i in range(5_000)))
    (tmp_path / "c.gz").write_bytes(whole[: len(whole) // 2])
    assert main(["verify", str(tmp_path / "c.gz"), *LENGTH, "--out", str(tmp_path / "out")]) == 0
    *read, last = lines_of(tmp_path / "out")
    assert last["reason"] == "unreadable_row" and "damaged" in last["evidence"]["why"] and last["id"] == len(read) + 1


ONCE = """
import os, pathlib, signal, time
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

@verifier("own.once", version=1, empty_fails=False)
def once(prompt: str, response: str) -> Verdict:
    mark = pathlib.Path(prompt)
    if response == "700" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002 if response == "slow" else 0)
    return Verdict(1.0, "seen")
"""


def written(folder: Path, count: int, response: str | None = None) -> Path:
    (folder / "own.py").write_text(ONCE)
    file = folder / "cases.jsonl"
    rows = ({"id": i, "prompt": str(folder / "mark"), "response": response or str(i)} for i in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_worker_that_is_killed_costs_no_line(tmp_path):
    file = written(tmp_path, 1_200)
    with LocalPool(1) as pool:
        cases.verify_file(file, tmp_path / "out", find(f"{tmp_path}/own.py:once")(), executor=pool)
    assert (tmp_path / "mark").exists()
    assert [item["id"] for item in lines_of(tmp_path / "out")] == list(range(1_200))


def command(file: Path, out: Path, verifier: str) -> list[str]:
    start = "import sys; from gristmill.flows.cli import main; sys.exit(main())"
    return [
        sys.executable,
        "-c",
        start,
        "verify",
        str(file),
        "--verifier",
        verifier,
        "--out",
        str(out),
        "--workers",
        "1",
    ]


def test_ctrl_c_leaves_what_was_there(tmp_path):
    file, out = written(tmp_path, 5_000, "slow"), tmp_path / "out"
    out.write_text("before")
    run = subprocess.Popen(
        command(file, out, f"{tmp_path}/own.py:once"), stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out.*.tmp")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and b"interrupted" in said
    assert out.read_text() == "before" and not list(tmp_path.glob("*.tmp"))


def test_runs_side_by_side_write_one_whole_file(tmp_path):
    file, out = written(tmp_path, 600), tmp_path / "out"
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: subprocess.run(command(file, out, "format.think")).returncode, range(4)))
    assert done == [0] * 4 and len(lines_of(out)) == 600 and not list(tmp_path.glob("*.tmp"))
