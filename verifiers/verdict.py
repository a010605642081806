"""Verdicts: what a verifier or a judge says of one response. A score, or `None` for "could not judge", with a reason.

The law kept here: what was not judged never counts. An outage, a time-out or a broken test is `None`, never 0, and
`summarise` leaves it out of the mean and says how many there were. Not covered here: any verifier.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """`score` from 0 (wrong) to 1 (right) or None, `reason` a short name for it, `evidence` what it rests on.

    Raises ValueError for a score outside [0, 1] (or NaN), an empty reason, or evidence that is no JSON.
    """

    score: float | None
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score is {self.score!r}; it lies in [0, 1], or is None where nothing could be judged")
        if not self.reason:
            raise ValueError("a verdict has a reason")
        try:
            json.dumps(self.evidence, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"evidence of {self.reason!r} is not JSON: {error}") from None

    @property
    def judged(self) -> bool:
        """Whether there is a score."""
        return self.score is not None


@dataclass(frozen=True)
class Summary:
    """Verdicts added up: the mean over those with a score (NaN without any), how many had none, and all reasons."""

    rows: int
    unjudged: int
    mean: float
    reasons: Mapping[str, int]


def summarise(verdicts: Iterable[Verdict]) -> Summary:
    """Add verdicts up; what was not judged counts as itself, not as 0."""
    told = list(verdicts)
    scores = [verdict.score for verdict in told if verdict.score is not None]
    mean = math.fsum(scores) / len(scores) if scores else math.nan
    return Summary(len(told), len(told) - len(scores), mean, Counter(verdict.reason for verdict in told))
