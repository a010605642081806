"""How good one response is: a grade per principle, and their weighted mean.

The law: a score rests on all principles; where one could not be graded there is none. A response that is empty, or
written to sway the judge (see fences.py), is 0 without being asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.judge.asking import ask, known_way, point_request, weigh
from gristmill.verifiers.judge.constitution import Principle
from gristmill.verifiers.judge.engine import Conversation, Engine
from gristmill.verifiers.judge.fences import attack
from gristmill.verifiers.verdict import Verdict


def grade(
    engine: Engine,
    answers: Sequence[tuple[str, str, Sequence[Principle]]],
    by: str = "letters",
    scale: int = 5,
) -> list[Verdict]:
    """Grade (prompt, response, principles): each principle from 1 to `scale`, mapped to 0 .. 1, then their mean by
    weight. By log-probabilities a grade is the expected one. Raises InputError for a scale outside 2 .. 9."""
    known_way(by)
    if not 2 <= scale <= 9:
        raise InputError(f"a scale has 2 to 9 grades, one digit each; not {scale}")
    told = [_plainly(prompt, response) for prompt, response, _ in answers]
    places = [(i, item) for i, (_, _, rubric) in enumerate(answers) if told[i] is None for item in rubric]
    conversations = [point_request(item, answers[i][0], answers[i][1], scale, by) for i, item in places]
    grades: dict[int, dict[str, float]] = {i: {} for i, _ in places}
    troubles: dict[int, str] = {}
    for (i, item), (value, trouble) in zip(places, _grades(engine, conversations, by, scale), strict=True):
        if value is None:
            troubles.setdefault(i, trouble or "unreadable")
        else:
            grades[i][item.name] = value
    return [
        verdict if verdict is not None else _verdict(answers[i][2], grades[i], troubles.get(i), scale)
        for i, verdict in enumerate(told)
    ]


def _plainly(prompt: str, response: str) -> Verdict | None:
    if not response.strip():
        return Verdict(0.0, "empty")
    hostile = attack(response, prompt)
    return Verdict(0.0, "attack", {"attack": hostile}) if hostile else None


def _grades(
    engine: Engine, conversations: Sequence[Conversation], by: str, scale: int
) -> list[tuple[float | None, str | None]]:
    digits = [str(n) for n in range(1, scale + 1)]
    if by == "logprobs":
        return [
            (None if row is None else math.fsum(n * share for n, share in enumerate(row, 1)), trouble)
            for row, trouble in weigh(engine, conversations, digits)
        ]
    return [
        (None if reply.choice is None else float(reply.choice), reply.trouble)
        for reply in ask(engine, conversations, digits, by)
    ]


def _verdict(rubric: Sequence[Principle], grades: dict[str, float], trouble: str | None, scale: int) -> Verdict:
    evidence = {"grades": {name: round(value, 4) for name, value in grades.items()}, "scale": scale}
    if trouble is not None:
        return Verdict(None, trouble, evidence)
    total = math.fsum(item.weight for item in rubric)
    score = math.fsum(item.weight * (grades[item.name] - 1) / (scale - 1) for item in rubric) / total
    return Verdict(min(1.0, max(0.0, score)), "graded", evidence)
