"""The symbolic stage: whether two mathematical texts say the same, told within a time limit.

The idea: a text is read into a tree by a parser of our own (latex.py, grammar.py, phrases.py), and two trees are
compared by exact and high-precision values (values.py) and by what kind of statement they are (statements.py: sets,
equations, tuples, ...; the policies stand there). All of it runs in killable workers (workers.py), within bounds
(bounds.py), so hostile texts cost at most the time limit.
The laws: no text makes these functions raise; "cannot be said" is None, never False; the outcome does not depend on
what was asked before. Not covered: units, money, percentages, words, multiple choice (verify.py and its ladder),
integrals, limits, determinants, infinite sums, piecewise functions.
"""

from __future__ import annotations

from gristmill.verifiers.maths.algebra.latex import LONGEST
from gristmill.verifiers.maths.algebra.workers import Lost, pool

HANDLER = "gristmill.verifiers.maths.algebra.service:handle"


def outcome(gold: str, answer: str, *, seconds: float = 5.0) -> str:
    """`equal`, `different`, or why neither can be said: `gold_unreadable` or `answer_unreadable`, `..._too_large`,
    `..._undefined` (no value: 1/0), `undecided`, `timeout`, `failed` (out of memory or stack).

    `seconds` is wall time from when a worker is free.
    """
    return _asked([gold, answer], seconds)


def equivalent(gold: str, answer: str, *, seconds: float = 5.0) -> bool | None:
    """Whether an answer says the same as the gold; None where that cannot be said (see `outcome`)."""
    return {"equal": True, "different": False}.get(outcome(gold, answer, seconds=seconds))


def readable(text: str, *, seconds: float = 5.0) -> bool:
    """Whether a text is mathematics that can be read, with a value within bounds (no `1/0`, no `9^{9^{9^9}}`)."""
    return _asked([text], seconds) == "readable"


def _asked(texts: list[str], seconds: float) -> str:
    for side, text in zip(("gold", "answer"), texts, strict=False):
        if len(text) > LONGEST:
            return f"{side}_too_large"
    try:
        return pool(HANDLER).call(texts, seconds=seconds)
    except Lost as lost:
        return "timeout" if lost.timeout else "failed"
