"""Which of two responses is better: always asked in both orders.

The laws: swapping the two turns the score s into 1 - s, whatever the engine does; what only one order says is a tie;
without both orders there is no score. A response that is empty, or written to sway the judge (see fences.py), loses
without being asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gristmill.verifiers.judge.asking import ask, known_way, pair_request, weigh
from gristmill.verifiers.judge.constitution import Constitution
from gristmill.verifiers.judge.engine import Conversation, Engine
from gristmill.verifiers.judge.fences import attack
from gristmill.verifiers.verdict import Verdict

#: (prompt, response, against)
Match = tuple[str, str, str]


def compare(engine: Engine, constitution: Constitution, matches: Sequence[Match], by: str = "letters") -> list[Verdict]:
    """The preference for the first response of each match: 1, 0 or 0.5; by log-probabilities anything between.

    The evidence's `orders` are the preference for it in the first seat, and in the second. Equal matches are asked
    once.
    """
    known_way(by)
    told: dict[Match, Verdict] = {match: verdict for match in matches if (verdict := _plainly(*match)) is not None}
    open_matches = [match for match in dict.fromkeys(matches) if match not in told]
    conversations: list[Conversation] = []
    for prompt, response, against in open_matches:
        conversations.append(pair_request(constitution, prompt, response, against, by))
        conversations.append(pair_request(constitution, prompt, against, response, by))
    answers = _answers(engine, conversations, by)
    for n, match in enumerate(open_matches):
        told[match] = _verdict(answers[2 * n], answers[2 * n + 1], soft=by == "logprobs")
    return [told[match] for match in matches]


def _plainly(prompt: str, response: str, against: str) -> Verdict | None:
    """What needs no judge: equal, empty and hostile texts."""
    if response == against:
        return Verdict(0.5, "identical")
    if not response.strip() or not against.strip():
        if not response.strip() and not against.strip():
            return Verdict(0.5, "both_empty")
        return Verdict(0.0, "empty") if not response.strip() else Verdict(1.0, "against_empty")
    hostile, other = attack(response, prompt), attack(against, prompt)
    if hostile and other:
        return Verdict(0.5, "both_attack", {"attack": hostile, "against": other})
    if hostile or other:
        return (
            Verdict(0.0, "attack", {"attack": hostile})
            if hostile
            else Verdict(1.0, "against_attack", {"against": other})
        )
    return None


def _answers(
    engine: Engine, conversations: Sequence[Conversation], by: str
) -> list[tuple[float | None, dict[str, Any]]]:
    """Per conversation the preference for the first seat, or None with the trouble."""
    if by == "logprobs":
        return [
            (None, {"trouble": trouble}) if row is None else (row[0], {})
            for row, trouble in weigh(engine, conversations, ("A", "B"))
        ]
    prefers = {"A": 1.0, "B": 0.0, "C": 0.5}
    return [
        (prefers[reply.choice], {})
        if reply.choice is not None
        else (None, {"trouble": reply.trouble} | ({"said": reply.said} if reply.said is not None else {}))
        for reply in ask(engine, conversations, ("A", "B", "C"), by)
    ]


def _verdict(
    as_first: tuple[float | None, dict[str, Any]], as_second: tuple[float | None, dict[str, Any]], soft: bool
) -> Verdict:
    one, two = as_first[0], None if as_second[0] is None else 1.0 - as_second[0]
    if one is None or two is None:
        why = as_first[1] or as_second[1]
        return Verdict(None, why["trouble"], {"orders": [one, two], **why})
    evidence = {"orders": [one, two]}
    disagree = (one - 0.5) * (two - 0.5) < 0 if soft else one != two
    score = min(1.0, max(0.0, (one + two) / 2)) if soft or not disagree else 0.5
    if disagree:
        return Verdict(score, "order_disagrees", evidence)
    return Verdict(score, "tie" if score == 0.5 else "preferred" if score > 0.5 else "not_preferred", evidence)
