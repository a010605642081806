"""The column `tests` in its shapes, read into one: code, assertions, calls or programs over standard input.

    {"code": ..., "entry_point": ...}                                    HumanEval: the code defines check(candidate)
    {"assertions": [...], "setup": ..., "entry_point": ...}              MBPP; the last two may be missing
    {"cases": [{"stdin": ..., "expected": ...}, ...]}                    programs
    {"cases": [{"args": [...], "expected": ...}, ...], "entry_point": ...}     calls
    {"inputs": [...], "outputs": [...], "fn_name": ...}                  APPS, LiveCodeBench; without fn_name programs

Each may be a JSON string and may hold `hidden`, tests of any shape that count and are not shown. The law: JSON is all
that is read, so data can never be code that runs in the grader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


class BadTests(ValueError):
    """A column `tests` that cannot be read; says why."""


@dataclass(frozen=True)
class Case:
    """One input and what is expected of it: `stdin` for a program, else `args` of a call. `expected` are alternatives,
    any of which will do."""

    stdin: str | None
    args: tuple[Any, ...]
    expected: tuple[Any, ...]


@dataclass(frozen=True)
class Tests:
    """Tests of one row. `units` are the test code or the assertions; `implied`: LeetCode's imports, and tuples count
    as lists, as in APPS and LiveCodeBench."""

    kind: Literal["code", "assertions", "calls", "programs"]
    entry: str | None = None
    units: tuple[str, ...] = ()
    setup: str = ""
    cases: tuple[Case, ...] = ()
    implied: bool = False
    hidden: Tests | None = None


def read(tests: Any) -> Tests:
    """Read the column. Raises BadTests, saying what is wrong."""
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise BadTests(f"tests are no JSON: {error}") from None
    if not isinstance(tests, Mapping):
        raise BadTests(f"tests are a {type(tests).__name__}, not an object")
    shown = {key: value for key, value in tests.items() if value is not None}
    hidden = shown.pop("hidden", None)
    made = _read(shown)
    return made if hidden is None else Tests(**{**made.__dict__, "hidden": read(hidden)})


def _read(tests: Mapping[str, Any]) -> Tests:
    entry = tests.get("entry_point", tests.get("fn_name"))
    if not isinstance(entry, str | None):
        raise BadTests("the entry point is no string")
    if "code" in tests:
        if entry is None:
            raise BadTests("tests of code need an entry_point")
        return Tests("code", entry, (_text(tests, "code"),))
    if "assertions" in tests:
        units = _list(tests, "assertions")
        if not all(isinstance(unit, str) for unit in units):
            raise BadTests("an assertion is no string")
        return Tests("assertions", entry, tuple(units), _text(tests, "setup") if "setup" in tests else "")
    if "cases" in tests:
        return _cases([_case(case) for case in _list(tests, "cases")], entry, False)
    if "inputs" in tests and "outputs" in tests:
        inputs, outputs = _list(tests, "inputs"), _list(tests, "outputs")
        if len(inputs) != len(outputs):
            raise BadTests(f"{len(inputs)} inputs and {len(outputs)} outputs")
        made = _program if entry is None else _call
        return _cases([made(given, told) for given, told in zip(inputs, outputs, strict=True)], entry, True)
    raise BadTests(f"no known shape: {', '.join(map(str, list(tests)[:9]))}")


def _cases(cases: list[Case], entry: str | None, implied: bool) -> Tests:
    kinds = {case.stdin is None for case in cases}
    if len(kinds) != 1:
        raise BadTests("cases of one row are all of stdin or all of args")
    return Tests("calls" if kinds == {True} else "programs", entry, (), "", tuple(cases), implied)


def _case(case: Any) -> Case:
    if (
        not isinstance(case, Mapping)
        or "expected" not in case
        or (case.get("stdin") is None) == (case.get("args") is None)
    ):
        raise BadTests("a case has expected and either stdin or args")
    if case.get("stdin") is not None:
        return _program(case["stdin"], case["expected"])
    return Case(None, tuple(_list(case, "args")), (case["expected"],))


def _program(given: Any, told: Any) -> Case:
    """Texts; a list of lines is as good (APPS has both)."""
    texts = ["\n".join(item) if isinstance(item, list) and all(isinstance(x, str) for x in item) else item
             for item in (given, told)]  # fmt: skip
    if not all(isinstance(text, str) for text in texts):
        raise BadTests("stdin and its expected output are texts")
    return Case(texts[0], (), (texts[1],))


def _call(given: Any, told: Any) -> Case:
    """LiveCodeBench: a line of JSON per argument and JSON; APPS: a list of arguments and a value or a list of one."""
    try:
        args = [json.loads(line) for line in given.splitlines() if line.strip()] if isinstance(given, str) else given
        expected: tuple[Any, ...] = (json.loads(told),) if isinstance(told, str) and isinstance(given, str) else (told,)
    except ValueError as error:
        raise BadTests(f"an input or output of a call is no JSON: {error}") from None
    if not isinstance(args, list):
        raise BadTests("the input of a call is no list of arguments")
    if not isinstance(given, str) and isinstance(told, list) and len(told) == 1:
        expected = (told, told[0])
    return Case(None, tuple(args), expected)


def _text(tests: Mapping[str, Any], key: str) -> str:
    if not isinstance(tests[key], str):
        raise BadTests(f"{key} is no string")
    return tests[key]


def _list(tests: Mapping[str, Any], key: str) -> list[Any]:
    found = tests[key]
    if not isinstance(found, list | tuple) or (not found and key != "args"):
        raise BadTests(f"{key} is no list with anything in it")
    return list(found)
