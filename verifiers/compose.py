"""Verifiers made of verifiers: all, any, weighted, gated.

The law: a part that could not judge never counts as wrong. "all" is 0 as soon as one part is 0, whatever else could not
be judged, and "any" 1 as soon as one is 1; otherwise a part without a score leaves the whole without one. Parts are
asked in the order given and only about rows that they can still change, so that the cheap and strict ones go first: the
evidence lists the parts that were asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier, verifier

Asked = list[tuple[Verifier, Verdict]]


@verifier("all", version=1, empty_fails=False)
def all_of(rows: Sequence[Row], *, parts: Sequence[Verifier]) -> list[Verdict]:
    """The least score of the parts."""
    return [_least(asked) for asked in _ask(rows, parts, lambda verdict: verdict.score == 0.0)]


@verifier("any", version=1, empty_fails=False)
def any_of(rows: Sequence[Row], *, parts: Sequence[Verifier]) -> list[Verdict]:
    """The greatest score of the parts."""
    return [_greatest(asked) for asked in _ask(rows, parts, lambda verdict: verdict.score == 1.0)]


@verifier("weighted", version=1, empty_fails=False)
def weighted(rows: Sequence[Row], *, parts: Sequence[Verifier], weights: Sequence[float]) -> list[Verdict]:
    """The mean of the parts by weight. Raises InputError unless each has a weight, none below 0 and not all 0."""
    if len(weights) != len(parts) or min(weights, default=0.0) < 0 or sum(weights) <= 0:
        raise InputError(f"{len(parts)} parts need as many weights, none below 0 and not all 0; got {list(weights)}")
    told = []
    for asked in _ask(rows, parts, lambda verdict: False):
        lacking = [(part, said) for (part, said), w in zip(asked, weights, strict=True) if said.score is None and w > 0]
        if lacking:
            told.append(_verdict(None, _named(*lacking[0]), asked))
            continue
        total = sum(w * (said.score or 0.0) for (_, said), w in zip(asked, weights, strict=True))
        told.append(_verdict(min(1.0, total / sum(weights)), "weighted", asked))
    return told


@verifier("gated", version=1, empty_fails=False)
def gated(rows: Sequence[Row], *, parts: Sequence[Verifier]) -> list[Verdict]:
    """The score of the last part where every part before it (the gates: a format, a length) scores 1; else 0.

    Raises InputError where there is no gate.
    """
    if len(parts) < 2:
        raise InputError("a gated verifier has at least one gate before the part that scores")
    gates = len(parts) - 1
    told = []
    for asked in _ask(rows, parts, lambda verdict: verdict.score != 1.0):
        part, said = asked[-1]
        shut = len(asked) <= gates and said.score is not None
        told.append(_verdict(0.0 if shut else said.score, _named(part, said), asked))
    return told


def _ask(rows: Sequence[Row], parts: Sequence[Verifier], settles: Callable[[Verdict], bool]) -> list[Asked]:
    """What each part said of each row, until one settles it."""
    asked: list[Asked] = [[] for _ in rows]
    left = list(range(len(rows)))
    for part in parts:
        verdicts = part.rows([rows[i] for i in left])
        for i, verdict in zip(left, verdicts, strict=True):
            asked[i].append((part, verdict))
        left = [i for i, verdict in zip(left, verdicts, strict=True) if not settles(verdict)]
    return asked


def _least(asked: Asked) -> Verdict:
    return _by(asked, lambda scores: scores[0] == 0.0, 0)


def _greatest(asked: Asked) -> Verdict:
    return _by(asked, lambda scores: scores[-1] == 1.0, -1)


def _by(asked: Asked, settled: Callable[[list[float]], bool], end: int) -> Verdict:
    judged = sorted(
        ((said.score, i) for i, (_, said) in enumerate(asked) if said.score is not None), key=lambda x: x[0]
    )
    lacking = [(part, said) for part, said in asked if said.score is None]
    if judged and (not lacking or settled([score for score, _ in judged])):
        score, i = judged[end]
        return _verdict(score, _named(*asked[i]), asked)
    return _verdict(None, _named(*lacking[0]) if lacking else "no_parts", asked)


def _named(part: Verifier, said: Verdict) -> str:
    return f"{part.name}:{said.reason}"


def _verdict(score: float | None, reason: str, asked: Asked) -> Verdict:
    parts: list[dict[str, Any]] = [
        {"name": part.name, "score": said.score, "reason": said.reason, "evidence": dict(said.evidence)}
        for part, said in asked
    ]
    return Verdict(score, reason, {"parts": parts})
