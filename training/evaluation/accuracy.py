"""Right and wrong over several responses to each prompt: pass@k, maj@k, the mean score.

A prompt is a run of scores, one per response, None where it could not be judged. The laws: None is neither right nor
wrong, a prompt is measured by its judged responses alone and left out where there are too few; neither the order of
prompts nor that of responses matters. Not covered: responses drawn in another way than independently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Scores = Sequence[float | None]


def pass_at(n: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    """The chance that one of k responses, drawn from n without replacement, is among the c that are right; NaN where
    n < k. float64 as n and c.

    1 - C(n - c, k) / C(n, k), the unbiased estimator of Chen et al. 2021 (equation 1), as a product so that nothing
    overflows: 1 - prod over i in 0 .. k - 1 of (n - c - i) / (n - i).
    """
    n, c = np.asarray(n, dtype=np.float64), np.asarray(c, dtype=np.float64)
    wrong = np.ones(np.broadcast(n, c).shape)
    for i in range(k):
        wrong = wrong * np.clip(n - c - i, 0, None) / np.maximum(n - i, 1)
    return np.where(n >= k, 1 - wrong, np.nan)


def pass_rates(prompts: Sequence[Scores], right: float, k: int) -> np.ndarray:
    """pass@k of each prompt; NaN where fewer than k responses were judged. Right is a score from `right` on."""
    judged = [[score for score in scores if score is not None] for scores in prompts]
    n = np.array([len(scores) for scores in judged])
    c = np.array([sum(score >= right for score in scores) for scores in judged])
    return pass_at(n, c, k)


def majorities(prompts: Sequence[tuple[Scores, Sequence[str | None]]], right: float) -> np.ndarray:
    """Whether each prompt's most frequent answer is right (Wang et al. 2023, self-consistency): 1 or 0, the mean where
    several are equally frequent; NaN where none of the leading answers was judged.

    An answer is None where a response gives none; it then votes for nothing. An answer's own score is the share of its
    judged responses that are right.
    """
    found = np.full(len(prompts), math.nan)
    for place, (scores, answers) in enumerate(prompts):
        votes: dict[str, list[float | None]] = {}
        for score, answer in zip(scores, answers, strict=True):
            if answer is not None:
                votes.setdefault(answer, []).append(score)
        most = max(map(len, votes.values()), default=0)
        leading = [[score >= right for score in v if score is not None] for v in votes.values() if len(v) == most]
        if leading and all(leading):
            found[place] = math.fsum(sum(v) / len(v) for v in leading) / len(leading)
        elif not votes and any(score is not None for score in scores):
            found[place] = 0.0  # judged, and no answer among them
    return found


def mean_scores(prompts: Sequence[Scores]) -> np.ndarray:
    """The mean judged score of each prompt; NaN without one."""
    judged = ([score for score in scores if score is not None] for scores in prompts)
    return np.array([math.fsum(sorted(scores)) / len(scores) if scores else math.nan for scores in judged])
