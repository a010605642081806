"""HumanEval and MBPP: the solutions of the data sets pass, and mutants of them fail where the tests can tell."""

from __future__ import annotations

import ast
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from realdata import real

from gristmill.verifiers.programs.literals import calls_of
from gristmill.verifiers.programs.relay import Program, judge, literals
from gristmill.verifiers.programs.shapes import read
from gristmill.verifiers.programs.verify import LIMITS, guest, programs, reference
from gristmill.verifiers.sandbox.pool import shared
from gristmill.verifiers.verdict import summarise

FLIPPED = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


def humaneval() -> list[dict[str, Any]]:
    with gzip.open(real("verify/HumanEval.jsonl.gz"), "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [row | {"tests": {"code": row["test"], "entry_point": row["entry_point"]}} for row in rows]


def mbpp() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in real("verify/mbpp.jsonl").read_text().splitlines()]
    tests = [{"assertions": row["test_list"], "setup": row["test_setup_code"]} for row in rows]
    return [row | {"prompt": row["text"], "tests": told} for row, told in zip(rows, tests, strict=True)]


def solved(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"response": reference(row)} for row in rows]


def flipped(code: str) -> Iterator[str]:
    """The code with one comparison turned into its opposite, one after the other."""
    for index, node in enumerate(ast.walk(ast.parse(code))):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in FLIPPED:
            tree = ast.parse(code)
            changed = list(ast.walk(tree))[index]
            assert isinstance(changed, ast.Compare)
            changed.ops[0] = FLIPPED[type(changed.ops[0])]()
            yield ast.unparse(tree)


def dropped(code: str) -> str:
    """The code without its last line that holds anything: mostly the `return`."""
    lines = code.rstrip().splitlines()
    return "\n".join(lines[:-1]) + "\n"


def test_the_solutions_of_humaneval_pass():
    told = summarise(programs().rows(solved(humaneval())))
    assert (told.rows, told.unjudged, told.mean) == (164, 0, 1.0)


def test_the_solutions_of_mbpp_pass():
    told = summarise(programs().rows(solved(mbpp())[::3]))
    assert (told.rows, told.unjudged, told.mean) == (325, 0, 1.0)


def test_assertions_read_as_data_and_run_as_code_give_one_verdict():
    box, told = shared(guest(), limits=LIMITS), Counter[bool]()
    whole = [row | {"response": row["prompt"] + row["response"]} for row in solved(humaneval())[::4]]
    for row in whole + solved(mbpp())[::40]:
        tests, code = read(row["tests"]), row["response"]
        asked = calls_of(tests)
        for response in (code, dropped(code), *list(flipped(code))[:1]) if asked is not None else ():
            program = Program(response, row["prompt"], 0, 2.0)
            one, other = literals(box, program, tests, asked), judge(box, program, tests)
            assert (one.passed, one.reason) == (other.passed, other.reason)
            assert one.reason or one.outline == other.outline
            told[one.passed] += 1
    assert min(told.values()) > 20


@pytest.mark.parametrize(
    ("assertion", "code"),
    [
        ("assert f(1)", "def f(x): return x"), ("assert f(1)", "def f(x): return 0"),
        ("assert f(1)", "def f(x): return f"),
        ("assert not f(1)", "def f(x): return []"),
        ("assert not f(1)", "def f(x): return type('N', (), {'__len__': lambda s: 0})()"),
        ("assert f(1) is True", "def f(x): return 1"), ("assert f(1) is None", "def f(x): pass"),
        ("assert f(0) == True", "def f(x): return 1.0"),
        ("assert f(2 * 3) == [1 + 1.5, 'a' + 'b']", "def f(x): return [2.5, 'ab']"),
        ("assert f(a=1) == {1}, f(2)", "def f(a): return {a}"),
        ("assert f(1) == (1, 2)", "def f(x): return [1, 2]"),
        ("assert f(1) == 3", "from collections import namedtuple\ndef f(x): return 3"),
        ("assert f(1) == (1, 2)", "from collections import *\nP = namedtuple('P', 'x y')\ndef f(x): return P(x, 2)"),
        ("assert f(1) == 1", "def f(x): return __import__('decimal').Decimal('sNaN')"),
        ("assert copy(1) == 1", "def copy(x): return x"),
        ("assert g(1) == 1", "def f(x): return 1"), ("assert f(1) == 1", "def f(x): raise ValueError"),
        ("assert f(1) == 1", "import os\nos._exit(0)"),
    ],
)  # fmt: skip
def test_forms_of_literal_assertions_are_judged_as_by_python(assertion, code):
    names: dict[str, Any] = {}
    try:
        assert "_exit" not in code
        exec(f"{code}\n{assertion}", names)
        right = 1.0
    except Exception:
        right = 0.0
    assert calls_of(read({"assertions": [assertion]})) is not None
    assert programs()("", code, tests={"assertions": [assertion]}).score == right
    assert programs()("", code, tests={"assertions": ["x = 1\n" + assertion]}).score == right


def test_a_solution_to_another_task_does_not_pass():
    rows = solved(humaneval())
    others = [row | {"response": other["response"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    told = summarise(programs(timeout=3).rows(others))
    assert (told.unjudged, told.mean) == (0, 0.0)


def test_solutions_without_their_last_line_fail():
    rows = [row | {"response": dropped(row["response"])} for row in solved(humaneval())]
    told = summarise(programs(timeout=2).rows(rows))
    assert told.unjudged == 0
    assert told.mean == 0.0


def test_flipped_comparisons_fail_where_the_tests_can_tell():
    rows = [
        row | {"response": code}
        for row in solved(humaneval())[::2]
        for code in list(flipped(row["prompt"] + row["response"]))[:1]
    ]
    told = summarise(programs(timeout=1).rows(rows))
    assert told.rows > 40
    assert told.unjudged == 0
    assert told.mean < 0.1
