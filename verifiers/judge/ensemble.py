"""Several judges as one: other engines, other constitutions, other ways of asking.

    panel = ensemble([pairwise(one), pairwise(two), pairwise(one, strict)], quorum=2)

The score is the mean of those that judged; the evidence holds each score and their `spread` (largest less smallest).
The laws: a judge that could not judge has no vote, and fewer votes than the quorum are no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier, verifier


def ensemble(judges: Sequence[Verifier], *, quorum: int | None = None) -> Verifier:
    """The verifier `judge.ensemble`. Without a `quorum`, more than half of the judges make one. Raises InputError for
    no judges, or a quorum that can never or always be met."""
    wanted = len(judges) // 2 + 1 if quorum is None else quorum
    if not judges or not 1 <= wanted <= len(judges):
        raise InputError(f"{len(judges)} judges with a quorum of {wanted}: it lies between 1 and the number of judges")
    return _together(parts=list(judges), quorum=wanted)


@verifier("judge.ensemble", version=1)
def _together(rows: Sequence[Row], *, parts: Sequence[Verifier], quorum: int) -> list[Verdict]:
    told = [judge.rows(rows) for judge in parts]
    return [_vote([verdicts[i] for verdicts in told], quorum) for i in range(len(rows))]


def _vote(verdicts: Sequence[Verdict], quorum: int) -> Verdict:
    scores = [verdict.score for verdict in verdicts]
    votes = [score for score in scores if score is not None]
    evidence = {"scores": scores, "reasons": [verdict.reason for verdict in verdicts], "quorum": quorum}
    if len(votes) < quorum:
        return Verdict(None, "no_quorum", evidence)
    spread = max(votes) - min(votes)
    mean = min(1.0, math.fsum(votes) / len(votes))
    split = min(votes) < 0.5 < max(votes)
    attacks = [verdict.evidence["attack"] for verdict in verdicts if "attack" in verdict.evidence]
    seen = {"attack": attacks[0]} if attacks else {}
    return Verdict(mean, "judges_disagree" if split else "judges_agree", {**evidence, "spread": spread, **seen})
