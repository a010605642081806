"""Between the candidate and its tests: the grader's side of both conversations.

The law kept here: the grader passes frames on, and accepts from the candidate only an answer to the question it has
just asked, told by a nonce drawn for it; a candidate that is asked and does not answer has failed, for whatever reason.
What its frames hold is read where they are compared, as plain data (wire.py), never run.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gristmill.verifiers.programs.compare import equal
from gristmill.verifiers.programs.literals import Call, Unclear
from gristmill.verifiers.programs.results import Result, Test, Unjudged, cut
from gristmill.verifiers.programs.shapes import Tests
from gristmill.verifiers.programs.wire import Malformed, Unfit, decode, dumps, encode, loads
from gristmill.verifiers.sandbox.limits import Limits, Outcome
from gristmill.verifiers.sandbox.pool import Sandbox
from gristmill.verifiers.sandbox.run import Run

#: How a run that stopped answering ended, in a verdict's words.
ENDED = {
    "exited": "exited", "signalled": "crashed", "timeout": "timeout", "cpu": "timeout", "memory": "memory",
    "output": "output_limit", "killed": "timeout",
}  # fmt: skip


#: Share of their time that tests must have been silent for, at its end, to be stuck by themselves; else it is the
#: candidate that keeps them asking, by an iterator without end.
SILENT = 0.25


@dataclass(frozen=True)
class Program:
    """A response's code with what it is run with: the prompt, the seed of `random`, seconds for all its answers."""

    code: str
    prompt: str
    seed: int
    seconds: float


class Ended(Exception):
    """The candidate will not answer any more: reason and details of a failure."""

    def __init__(self, reason: str, **detail: Any) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Candidate:
    """The conversation with one candidate; it has so many seconds for all its answers together."""

    def __init__(self, run: Run, seconds: float) -> None:
        self._run, self._left = run, seconds
        self._asked: list[str] = []

    def ask(self, question: bytes, then: list[dict[str, Any]] | None = None) -> bytes:
        """Its answer, without the nonce; `then` are questions that are sent along, for `answers`. Raises Ended, or
        Unjudged where the sandbox was lost."""
        nonce = secrets.token_hex(8).encode()
        began = time.monotonic()
        self._run.send(nonce + question)
        if then:
            self._asked = [secrets.token_hex(8) for _ in then]
            self._run.send(b"0" * 16 + dumps({"each": list(zip(self._asked, then, strict=True))}))
        self._left -= time.monotonic() - began
        return self._answer(nonce)

    def answers(self) -> Iterator[dict[str, Any]]:
        """The answers to what was sent along, in order, each under a nonce of its own. Raises as `ask`."""
        for nonce in self._asked:
            yield _object(self._answer(nonce.encode()))

    def _answer(self, nonce: bytes) -> bytes:
        began = time.monotonic()
        frame = self._run.receive(self._left)
        self._left -= time.monotonic() - began
        if frame is None:
            outcome = self._run.finish(kill=self._left <= 0)
            if outcome.status == "lost":
                raise Unjudged("sandbox_lost")
            raise Ended(ENDED[outcome.status], **ending(outcome))
        if frame[:16] != nonce:
            raise Ended("forged_frame")
        return frame[16:]


@functools.cache
def within(limits: Limits, wall: float, cpu: float) -> Limits:
    """The sandbox's own limits with these seconds; a program has at least one second of processor time."""
    return replace(limits, wall=wall, cpu=max(1.0, cpu))


def ending(outcome: Outcome) -> dict[str, Any]:
    """What evidence says of how a run ended."""
    told: dict[str, Any] = {} if outcome.code is None else {"code": outcome.code}
    lines = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
    return told | ({"stderr": cut(lines[-1])} if lines else {})


@contextlib.contextmanager
def candidate(
    box: Sandbox, program: Program, tests: Tests, asked: list[dict[str, Any]] | None = None
) -> Iterator[Candidate]:
    """A candidate that has loaded, with questions that were sent along. Raises Ended where it does not load."""
    run = box.start("candidate", limits=within(box.limits, 2 * program.seconds + 1, program.seconds))
    try:
        talk = Candidate(run, program.seconds)
        setup = {"code": program.code, "prompt": program.prompt, "entry": tests.entry, "implied": tests.implied}
        told = _object(talk.ask(dumps(setup | {"seed": program.seed}), asked))
        if "ready" not in told:
            known = told.get("failed") in ("no_code", "no_entry_point", "failed_to_load")
            raise Ended(told["failed"] if known else "malformed_answer", **_error(told))
        yield talk
    finally:
        run.finish(kill=True)


def judge(box: Sandbox, program: Program, tests: Tests) -> Result:
    """Code or assertions: relay what the tests ask until they are done. Raises Unjudged."""
    # They must outlive a candidate that stays until its own limit.
    run = box.start("tests", limits=within(box.limits, 4 * program.seconds + 10, program.seconds))
    try:
        run.send(dumps({
            "units": list(tests.units), "setup": tests.setup, "prompt": program.prompt, "entry": tests.entry,
            "listed": tests.kind == "assertions",
        }))  # fmt: skip
        try:
            with candidate(box, program, tests) as talk:
                ended, told = _relay(talk, run, program.seconds)
        except Ended as early:
            count = len(tests.units) if tests.kind == "assertions" else 1
            return Result(tuple(Test(i, None, "not_run") for i in range(count)), early.reason, early.detail)
    finally:
        run.finish(kill=True)
    return _result(told, ended)


def _relay(talk: Candidate, run: Run, seconds: float) -> tuple[Ended | None, dict[str, Any]]:
    """Pass questions and answers until the tests tell what came of them; they have as many seconds as the candidate."""
    ended: Ended | None = None
    left, asked = seconds, False
    while True:
        began = time.monotonic()
        frame = run.receive(left)
        silent = time.monotonic() - began
        left -= silent
        if frame is None:
            outcome = run.finish(kill=left <= 0)
            if outcome.status == "lost":
                raise Unjudged("sandbox_lost")
            if asked and left <= 0 and silent < SILENT * seconds:
                raise Ended("timeout", error="the tests were still asking")
            raise Unjudged("broken_tests", error=f"the tests ended by themselves: {outcome.status}", **ending(outcome))
        if frame[:1] == b".":
            return ended, _object(frame[1:])
        asked = True
        if ended is None:
            try:
                run.send(talk.ask(frame[1:]) or b"{}")
                continue
            except Ended as early:
                ended = early
        run.send(b"")


def _result(told: dict[str, Any], ended: Ended | None) -> Result:
    if "broken" in told:
        raise Unjudged("broken_tests", error=told["broken"])
    if told["malformed"] is not None and ended is None:
        ended = Ended("malformed_answer", error=cut(told["malformed"]))
    tests = []
    for index, passes, failed, got, source in told["results"]:
        if failed is not None:
            reason, said = (
                ("different", {"got": cut(got)}) if failed == "assertion" else ("error", {"error": cut(failed)})
            )
            tests.append(Test(index, False, reason, {"test": cut(source), **said}))
        else:
            tests.append(Test(index, True) if passes else Test(index, None, "not_run"))
    if ended is not None:
        return Result(tuple(tests), ended.reason, ended.detail)
    if told["error"] is not None:
        return Result(tuple(tests), "failed", {"error": cut(told["error"])})
    if not told["calls"] and not any(test.passed is False for test in tests):
        raise Unjudged("broken_tests", error="the tests ask nothing of the response")
    if not any(test.passed is not None for test in tests):
        return Result(tuple(tests), "no_assertion_ran")
    # An assertion in a branch that was not taken says nothing; one that was never reached was told above.
    return Result(tuple(test for test in tests if test.passed is not None))


def calls(box: Sandbox, program: Program, tests: Tests, tolerance: float) -> Result:
    """Cases of arguments: ask for each value and compare it here, by the rules of compare.py. Raises Unjudged."""
    asked = [_question(None, case.args, {}) for case in tests.cases]

    def right(index: int, got: Any) -> bool:
        return any(equal(got, want, tolerance, tests.implied) for want in tests.cases[index].expected)

    def about(index: int) -> dict[str, Any]:
        case = tests.cases[index]
        return {"args": cut(list(case.args)), "expected": cut(case.expected[0])}

    return _each(box, program, tests, asked, right, about)


def literals(box: Sandbox, program: Program, tests: Tests, told: list[Call]) -> Result:
    """Assertions that are calls on literals: ask for each value and compare it here, as Python does. Raises Unclear."""
    asked = [_question(call.name, call.args, call.named) for call in told]

    def right(index: int, got: Any) -> bool:
        call = told[index]
        if call.how == "is":
            return got is call.expected
        if call.how in ("true", "false"):
            if isinstance(got, _Thing):
                raise Unclear
            return bool(got) is (call.how == "true")
        try:
            return bool(got == call.expected)
        except (ArithmeticError, RecursionError):  # a signalling NaN is equal to nothing
            return False

    return _each(box, program, tests, asked, right, lambda index: {"test": cut(told[index].source)})


def _each(
    box: Sandbox,
    program: Program,
    tests: Tests,
    asked: list[dict[str, Any]],
    right: Callable[[int, Any], bool],
    about: Callable[[int], dict[str, Any]],
) -> Result:
    """Ask a candidate for values, and have each compared as it comes; `about` is what evidence says of a test."""
    done: list[Test] = []
    try:
        with candidate(box, program, tests, asked) as talk:
            for index, told in enumerate(talk.answers()):
                if "ok" not in told:
                    done.append(Test(index, False, "error", about(index) | _error(told)))
                    continue
                got = _value(told["ok"])
                passed = right(index, got)
                shown = {} if passed else about(index) | {"got": cut(got)}
                done.append(Test(index, passed, "passed" if passed else "different", shown))
    except Ended as early:
        left = [Test(index, None, "not_run") for index in range(len(done), len(asked))]
        return Result((*done, *left), early.reason, early.detail)
    return Result(tuple(done))


def _question(on: str | None, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """A call as it is sent. Raises Unjudged for arguments that nest too deep."""
    try:
        by_name = {name: encode(arg, _no_handle) for name, arg in named.items()}
        return {"op": "call", "on": on, "args": [encode(arg, _no_handle) for arg in args], "named": by_name}
    except Unfit as error:
        raise Unjudged("unreadable_tests", error=str(error)) from None


class _Thing:
    """What stayed with the candidate where a value was due; equal to nothing that is expected."""

    def __repr__(self) -> str:
        return "<no plain data>"


def _no_handle(value: Any) -> list[Any]:
    raise Unfit(f"an argument is a {type(value).__name__}")


def _value(encoded: Any) -> Any:
    try:
        return decode(encoded, lambda handle: _Thing())
    except Malformed as error:
        raise Ended("malformed_answer", error=cut(str(error))) from None


def _object(frame: bytes) -> dict[str, Any]:
    try:
        told = loads(frame)
    except Malformed as error:
        raise Ended("malformed_answer", error=cut(str(error))) from None
    if not isinstance(told, dict):
        raise Ended("malformed_answer")
    return told


def _error(told: dict[str, Any]) -> dict[str, Any]:
    return {"error": cut(f"{told.get('name')}: {told.get('text')}")} if "name" in told else {}
