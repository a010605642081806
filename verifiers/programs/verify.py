"""Programs: does the code of a response pass its tests, run where it can reach neither them nor the grader.

    verify = programs()
    verify(prompt, response, tests={"assertions": ["assert add(2, 3) == 5"]}).score

The laws: the process that runs a response never holds a test, an expected value or a verdict; a pass needs every test;
arguments are copies, made anew for each call; what fails through no fault of the response (tests that are broken, a
sandbox that is lost twice) is not judged. The shapes of `tests` stand in shapes.py, the rules of equality in compare.py
(cases) and wire.py (assertions), what the sandbox keeps in docs/sandbox.md.

Not covered: tests that expect an argument changed in place; objects with operators of their own where a value is due;
third-party packages, unless the caller's own sandbox shows them; answers hard-coded from visible tests, where no hidden
ones are given.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.programs.extract import PYTHON, code_of
from gristmill.verifiers.programs.literals import Unclear, calls_of
from gristmill.verifiers.programs.relay import Program, calls, judge, literals
from gristmill.verifiers.programs.results import Result, Unjudged, flaky, verdict
from gristmill.verifiers.programs.scripts import check_language, scripts
from gristmill.verifiers.programs.shapes import BadTests, Tests, read
from gristmill.verifiers.sandbox.limits import Limits
from gristmill.verifiers.sandbox.pool import Sandbox, shared
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, verifier

#: What runs inside the sandbox, each after those it imports.
INSIDE = ("wire", "candidate", "handles", "assertions", "guest")

#: Limits of a run but for its seconds: one answer, or all that a program prints, may have 4 MiB.
LIMITS = Limits(output=4 << 20)

_BOOT = """
import sys, types
for name, text in TEXTS:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
run = module.run
"""


@functools.cache
def guest() -> Path:
    """One file that defines all modules of INSIDE under their own names; for `Sandbox(guest(), limits=LIMITS)`.

    It is a file in memory, there for this process and those that it forks.
    """
    package, here = __name__.rpartition(".")[0], Path(__file__).parent
    texts = [(f"{package}.{name}", (here / f"{name}.py").read_text()) for name in INSIDE]
    fd = os.memfd_create("programs")
    with open(fd, "w", closefd=False) as file:
        file.write(f"TEXTS = {texts!r}\n{_BOOT}")
    return Path(f"/proc/self/fd/{fd}")


def reference(row: Row) -> str | None:
    """The response that must pass: the column `reference`, else HumanEval's or MBPP's own solution."""
    for column in ("reference", "canonical_solution", "code"):
        if isinstance(row.get(column), str):
            return row[column]
    return None


@verifier("programs", version=1, needs=("tests",), reference=reference)
def programs(
    rows: Sequence[Row],
    *,
    timeout: float = 10.0,
    repeats: int = 1,
    partial: bool = False,
    float_tolerance: float = 0.0,
    language: str | Mapping[str, Any] = "python",
    sandbox_context: Sandbox | str | None = None,
) -> list[Verdict]:
    """Judge the last Python block of each response, else the whole text, by the row's `tests`.

    `timeout`: seconds of wall time for all answers to one row's tests, or for one case of standard input. `repeats`:
    that many runs, each with another seed, must agree. `partial`: the share of the tests that pass instead of 0.
    `float_tolerance` holds for cases, relative and absolute. `language`: python, or a command line (scripts.py) for
    cases of standard input. `sandbox_context`: a Sandbox(guest(), limits=LIMITS), or an isolation by name ("none"
    trusts every program); without it the process's own pool. Raises InputError for parameters out of range and where
    no isolation is to be had.
    """
    if not timeout > 0 or repeats < 1 or not float_tolerance >= 0:
        raise InputError("programs wants timeout > 0, repeats >= 1 and float_tolerance >= 0")
    check_language(language)
    if isinstance(sandbox_context, Sandbox):
        box = sandbox_context
    else:
        box = shared(guest(), limits=LIMITS, isolation=sandbox_context or "auto")

    def one(row: Row) -> Verdict:
        try:
            return _verdict(box, row, timeout, repeats, partial, float_tolerance, language)
        except BadTests as error:
            return Verdict(None, "unreadable_tests", {"error": str(error)[:200]})
        except Unjudged as reason:
            return Verdict(None, reason.reason, reason.detail)
        except InputError:
            raise
        except Exception as error:  # one row's trouble is not its neighbours'
            return Verdict(None, "verifier_failed", {"error": f"{type(error).__name__}: {error}"[:500]})

    if len(rows) == 1:
        return [one(rows[0])]
    with ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 2, thread_name_prefix="programs") as threads:
        return list(threads.map(one, rows))


def _verdict(
    box: Sandbox, row: Row, timeout: float, repeats: int, partial: bool, tolerance: float, language: Any
) -> Verdict:
    tests = read(row["tests"])
    code = code_of(row["response"], PYTHON if language == "python" else ())
    if code is None or not code.strip():
        return Verdict(0.0, "no_code", {})
    first: tuple[Result, Result | None] | None = None
    for seed in range(repeats):
        program = Program(code, row["prompt"], seed, timeout)
        shown = _twice(box, program, tests, tolerance, language)
        try:
            hidden = None if tests.hidden is None else _twice(box, program, tests.hidden, tolerance, language)
        except Unjudged as reason:
            raise Unjudged(reason.reason, hidden=True) from None
        if first is None:
            first = shown, hidden
        for one, other in zip(first, (shown, hidden), strict=True):
            if one is not None and other is not None and one.outline != other.outline:
                return flaky(one, other)
    assert first is not None
    return verdict(*first, code, partial)


def _twice(box: Sandbox, program: Program, tests: Tests, tolerance: float, language: Any) -> Result:
    """Run tests; once more where our own sandbox was lost on the way."""
    try:
        return _run(box, program, tests, tolerance, language)
    except Unjudged as reason:
        if reason.reason != "sandbox_lost":
            raise
    return _run(box, program, tests, tolerance, language)


def _run(box: Sandbox, program: Program, tests: Tests, tolerance: float, language: Any) -> Result:
    if tests.kind == "programs":
        return scripts(box, program, tests, tolerance, language)
    if language != "python":
        raise BadTests("tests of another language than Python are cases of stdin")
    if tests.kind == "calls":
        return calls(box, program, tests, tolerance)
    asked = calls_of(tests)
    if asked is None:
        return judge(box, program, tests)
    try:
        return literals(box, program, tests, asked)
    except Unclear:
        return judge(box, program, tests)
