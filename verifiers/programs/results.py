"""What came of the tests of one row, and the verdict it makes.

The laws: a pass needs every test to have passed and at least one to have run; what is not the response's doing (tests
that are broken, a sandbox that is lost) has no score. Evidence is small, and shows nothing of hidden tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gristmill.verifiers.programs.attacks import ATTACKS, looks_like
from gristmill.verifiers.verdict import Verdict

#: How many tests evidence lists; those that did not pass come first.
LISTED = 20
#: Longest text in evidence, in characters.
LONGEST = 200


class Unjudged(Exception):
    """No fault of the response's: reason and details of a verdict without a score."""

    def __init__(self, reason: str, **detail: Any) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Test:
    """One test: `passed` is None where it was not run; `shown` is what evidence may say of it."""

    index: int
    passed: bool | None
    reason: str = "passed"
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """All tests of a row. `reason` is what kept them from being run to their end, "" where nothing did."""

    tests: tuple[Test, ...]
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether everything was run and passed."""
        return not self.reason and bool(self.tests) and all(test.passed for test in self.tests)

    @property
    def outline(self) -> tuple[Any, ...]:
        """What two runs of one program must share."""
        return (self.reason, *((test.index, test.passed) for test in self.tests))


def verdict(shown: Result, hidden: Result | None, code: str, partial: bool) -> Verdict:
    """The verdict over the visible and the hidden tests; `partial` gives the share that passed."""
    every = [*shown.tests, *(() if hidden is None else hidden.tests)]
    passed = shown.passed and (hidden is None or hidden.passed)
    done = sum(test.passed is True for test in every)
    reason = _reason(shown, hidden)
    evidence: dict[str, Any] = {"passed": done, "of": len(every), **shown.detail, "tests": _listed(shown.tests)}
    if hidden is not None:
        evidence["hidden"] = "passed" if hidden.passed else "failed"
    if not passed:
        seen = [test.shown["attack"] for test in shown.tests if "attack" in test.shown]
        said = " ".join(
            str(told["error"]) for told in (shown.detail, *(t.shown for t in shown.tests)) if "error" in told
        )
        attack = seen[0] if seen else looks_like(code, reason, said)
        if attack is not None:
            evidence |= {"attack": attack, "attack_name": ATTACKS[attack]}
    share = done / len(every) if partial and done < len(every) else 0.0
    return Verdict(1.0 if passed else share, reason, evidence)


def flaky(first: Result, other: Result) -> Verdict:
    """The verdict over a program whose runs disagree."""
    differing = [a.index for a, b in zip(first.tests, other.tests, strict=False) if a.passed != b.passed]
    return Verdict(0.0, "flaky", {"tests": differing[:LISTED], "attack": 34, "attack_name": ATTACKS[34]})


def cut(value: Any) -> str:
    """A text for evidence."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # a whole number of too many digits
        text = f"<{type(value).__name__}>"
    text = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair could not be written to a file


def _reason(shown: Result, hidden: Result | None) -> str:
    if not shown.passed:
        return shown.reason or "failed"
    if hidden is not None and not hidden.passed:
        return "hidden_failed"
    return "passed"


def _listed(tests: tuple[Test, ...]) -> list[dict[str, Any]]:
    chosen = sorted(tests, key=lambda test: (test.passed is True, test.index))[:LISTED]
    return [
        {"index": test.index, "passed": test.passed, "reason": test.reason, **test.shown}
        for test in sorted(chosen, key=lambda test: test.index)
    ]
