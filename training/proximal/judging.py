"""What responses are worth: every scorer's word on each, and their weighted sum.

The laws: a response is judged when all scorers have judged it, else it has no score at all, because a sum with a part
missing is another reward; a scorer that fails judges nothing; a run of iterations without a judgement ends with the
scorer's own reason instead of going on for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from gristmill.dataops.dataset import InputError
from gristmill.training.proximal.pieces import Sequences, pieces, values
from gristmill.training.proximal.settings import REWARD, PPOSpec
from gristmill.training.scoring import Score, Scoring, open_scorer

PATIENCE = 3  # iterations in a row without one judged response


class Judge(NamedTuple):
    """Who scores, by name, and with what weight."""

    name: str
    weight: float
    score: Scoring


def open_judges(spec: PPOSpec) -> list[Judge]:
    """The scorers of a spec. Raises InputError for one that cannot be made."""
    return [Judge(scorer.name, scorer.weight, open_scorer(scorer)) for scorer in spec.scorers]


def judge(
    judges: Sequence[Judge], rows: Sequence[Mapping[str, Any]], responses: Sequence[str]
) -> list[dict[str, Score]]:
    """Each response's scores by name."""
    found = {one.name: one.score(rows, responses) for one in judges}
    return [{name: scores[i] for name, scores in found.items()} for i in range(len(responses))]


@torch.no_grad()
def rewarded(model: torch.nn.ModuleDict, sequences: Sequences, most: int, device: torch.device) -> list[Score]:
    """A reward model's scores: what its head says at the last token of each response."""
    rows = np.arange(len(sequences.responses))
    found = np.zeros(len(rows), dtype=np.float64)
    for piece in pieces(sequences, rows, most, device):
        found[piece.rows] = values(model, piece, piece.last).double().cpu().numpy()
    return [Score(float(s), REWARD) if np.isfinite(s) else Score(None, "score_not_finite") for s in found]


def combined(scores: Mapping[str, Score], weights: Mapping[str, float]) -> float | None:
    """The weighted sum; None where one of them is None."""
    total = 0.0
    for name, one in scores.items():
        if one.score is None:
            return None
        total += weights[name] * one.score
    return total


def weights_of(spec: PPOSpec) -> dict[str, float]:
    """By the names that scores go by."""
    found = {scorer.name: scorer.weight for scorer in spec.scorers}
    return found if spec.reward is None else found | {REWARD: spec.reward.weight}


def give_up(scores: Sequence[Mapping[str, Score]]) -> InputError:
    """The end of a run whose responses nobody can judge, with the reasons of the last iteration."""
    reasons = sorted({f"{name}: {s.reason}" for row in scores for name, s in row.items() if s.score is None})
    return InputError(
        f"no response of {PATIENCE} iterations in a row could be judged ({'; '.join(reasons[:3])}): "
        "put the scorer right; the state is kept and the same spec goes on from there"
    )
