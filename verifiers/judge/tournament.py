"""Best of N: every response meets every other, in both orders; its score is the mean of its preferences.

N responses take N (N - 1) requests. The laws: equal responses are one entrant and share its score; a response of whose
meetings fewer than half could be judged has none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.judge.constitution import Constitution, shipped
from gristmill.verifiers.judge.engine import Engine
from gristmill.verifiers.judge.pairs import compare
from gristmill.verifiers.verdict import Verdict


@dataclass(frozen=True)
class Ranking:
    """Per response its score (None: could not be judged); `order` holds their positions, best first, those without a
    score last; of `matches` meetings of unequal responses, in `flips` the orders disagreed and `unjudged` had no
    verdict, for the `reasons` given."""

    scores: tuple[float | None, ...]
    order: tuple[int, ...]
    matches: int
    flips: int
    unjudged: int
    reasons: tuple[str, ...]

    @property
    def best(self) -> int | None:
        """The position of the best response, the first of equals; None where nothing could be judged."""
        return self.order[0] if self.order and self.scores[self.order[0]] is not None else None


def rank(
    engine: Engine, prompt: str, responses: Sequence[str], constitution: Constitution | None = None, by: str = "letters"
) -> Ranking:
    """Rank the responses to one prompt."""
    return rank_many(engine, [(prompt, tuple(responses))], constitution, by)[0]


def rank_many(
    engine: Engine,
    groups: Sequence[tuple[str, tuple[str, ...]]],
    constitution: Constitution | None = None,
    by: str = "letters",
) -> list[Ranking]:
    """Rank groups of (prompt, responses), all meetings in one go. Raises InputError for a group of fewer than two."""
    for prompt, responses in groups:
        if len(responses) < 2:
            raise InputError(f"{len(responses)} response to {prompt[:80]!r}: best of N takes two or more")
    meetings = [
        (prompt, first, second)
        for prompt, responses in groups
        for first, second in itertools.combinations(dict.fromkeys(responses), 2)
    ]
    judged = iter(compare(engine, constitution or shipped(), meetings, by))
    return [_ranking(responses, judged) for _, responses in groups]


def _ranking(responses: tuple[str, ...], judged: Iterator[Verdict]) -> Ranking:
    entrants = list(dict.fromkeys(responses))
    if len(entrants) == 1:
        return Ranking((0.5,) * len(responses), tuple(range(len(responses))), 0, 0, 0, ())
    taken: dict[str, list[float]] = {text: [] for text in entrants}
    verdicts: list[Verdict] = []
    for first, second in itertools.combinations(entrants, 2):
        verdict = next(judged)
        verdicts.append(verdict)
        if verdict.score is not None:
            taken[first].append(verdict.score)
            taken[second].append(1.0 - verdict.score)
    enough = (len(entrants) - 1) / 2
    scores = [math.fsum(taken[t]) / len(taken[t]) if taken[t] and len(taken[t]) >= enough else None for t in responses]
    known = [-1.0 if score is None else score for score in scores]
    order = sorted(range(len(responses)), key=known.__getitem__, reverse=True)
    unjudged = [verdict.reason for verdict in verdicts if verdict.score is None]
    flips = sum(verdict.reason == "order_disagrees" for verdict in verdicts)
    return Ranking(tuple(scores), tuple(order), len(verdicts), flips, len(unjudged), tuple(sorted(set(unjudged))))
