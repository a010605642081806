"""Programs over standard input: one fresh run per case, whose standard output is the answer.

The law kept here: a case passes when the program ends by itself with exit code 0 and has printed what was expected,
all of it and nothing else (compare.py). After a run that used up its time or memory the cases left are not run.
Other languages are command lines: {"file": "m.cpp", "compile": ["g++", "m.cpp", "-o", "m"], "run": ["./m"]}, with
"memory" in bytes where their address space must be larger than the sandbox's own limit.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.programs.compare import lines, same_output
from gristmill.verifiers.programs.relay import ENDED, Candidate, Ended, Program, ending, within
from gristmill.verifiers.programs.results import Result, Test, Unjudged, cut
from gristmill.verifiers.programs.shapes import Case, Tests
from gristmill.verifiers.programs.wire import dumps
from gristmill.verifiers.sandbox.limits import Outcome
from gristmill.verifiers.sandbox.pool import Sandbox

#: The exit code by which the shell line of another language says that compiling failed.
NOT_COMPILED = 97


def check_language(language: Any) -> None:
    """Raises InputError for what is neither "python" nor a command line."""
    known = {"file", "compile", "run", "memory"}
    if language == "python":
        return
    if not isinstance(language, Mapping) or language.keys() - known or not {"file", "run"} <= language.keys():
        raise InputError(
            f"the language {language!r} is neither python nor a mapping with file, run, compile and memory"
        )


def scripts(
    box: Sandbox, program: Program, tests: Tests, tolerance: float, language: str | Mapping[str, Any]
) -> Result:
    """Run all cases. Raises Unjudged where the sandbox was lost."""
    done: list[Test] = []
    for index, case in enumerate(tests.cases):
        assert case.stdin is not None
        stdin = case.stdin.encode("utf-8", "surrogatepass")
        try:
            if isinstance(language, str):
                outcome = _python(box, program, stdin)
            else:
                outcome = _command(box, program, stdin, language)
        except Ended as early:
            left = [Test(n, None, "not_run") for n in range(index, len(tests.cases))]
            return Result((*done, *left), early.reason, early.detail)
        if outcome.status == "lost":
            raise Unjudged("sandbox_lost")
        if outcome.status in ("timeout", "cpu", "memory", "output", "killed"):
            done.append(Test(index, False, ENDED[outcome.status], {"stdin": cut(case.stdin)}))
            left = [Test(n, None, "not_run") for n in range(index + 1, len(tests.cases))]
            return Result((*done, *left), ENDED[outcome.status], ending(outcome))
        done.append(_compared(index, case, outcome, tolerance))
    return Result(tuple(done))


def _python(box: Sandbox, program: Program, stdin: bytes) -> Outcome:
    run = box.start("script", limits=within(box.limits, program.seconds, program.seconds), stdin=stdin)
    try:
        setup = {"code": program.code, "seed": program.seed}
        told = Candidate(run, program.seconds).ask(dumps(setup))
        if told != b'{"ready":null}':
            raise Ended("no_code")
        return run.finish()
    finally:
        run.finish(kill=True)


def _command(box: Sandbox, program: Program, stdin: bytes, language: Mapping[str, Any]) -> Outcome:
    """Compile and run in one sandbox; what the compiler says is not the program's output."""
    line = f"exec {shlex.join(language['run'])}"
    if language.get("compile"):
        line = f"{shlex.join(language['compile'])} >/dev/null 2>&1 </dev/null || exit {NOT_COMPILED}; {line}"
    limits = replace(
        box.limits,
        wall=program.seconds,
        cpu=max(1.0, program.seconds),
        memory=language.get("memory", box.limits.memory),
    )
    files = {language["file"]: program.code.encode("utf-8", "surrogatepass")}
    outcome = box.command(["/bin/sh", "-c", line], files=files, stdin=stdin, limits=limits)
    if outcome.status == "exited" and outcome.code == NOT_COMPILED:
        raise Ended("not_compiled")
    return outcome


def _compared(index: int, case: Case, outcome: Outcome, tolerance: float) -> Test:
    want = case.expected[0]
    try:
        got = outcome.stdout.decode("utf-8")
    except UnicodeDecodeError:
        return Test(index, False, "not_utf8", {"stdin": cut(case.stdin)})
    shown = {"stdin": cut(case.stdin), "got": cut(got), "expected": cut(want)}
    if (outcome.status, outcome.code) != ("exited", 0):
        return Test(index, False, "crashed", shown | ending(outcome))
    if same_output(got, want, tolerance):
        return Test(index, True)
    attack = _trick(got, want)
    return Test(index, False, "different", shown if attack is None else shown | {"attack": attack})


def _trick(got: str, want: str) -> int | None:
    """The attack that a wrong output looks like: a part of the lines, one loosely equal, or one with odd characters."""
    mine, theirs = lines(want), lines(got)
    if theirs and len(theirs) < len(mine) and mine[: len(theirs)] == theirs:
        return 16
    if [line.lower() for line in mine] == [line.lower() for line in theirs] or same_output(got, want, 1e-5):
        return 17
    odd = any(not (char.isprintable() or char == "\n") for char in got)
    return 18 if odd or (len(theirs) > len(mine) and mine[0] in theirs) else None
