"""Scores from outside: how a training step asks a verifier, a judge or a reward model without importing one.

A spec names a factory as "module:function" and its settings; the factory gives a function that scores responses. A flow
fills in which (flows/scoring.py has verifiers and judges), so training needs what it names and nothing else.

The laws: None is "could not judge" and never becomes a number; a scorer that fails is a response not judged, with the
error as the reason; a scorer that answers for other rows than it was asked about is a mistake and stops the step.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gristmill.dataops.dataset import InputError
from gristmill.training.spec import check_fields


class Score(NamedTuple):
    """Of one response: None where it could not be judged. `answer` is what the response was taken to answer, for
    majorities; None where a scorer knows no such thing."""

    score: float | None
    reason: str
    answer: str | None = None


Rows = Sequence[Mapping[str, Any]]
Scoring = Callable[[Rows, Sequence[str]], list[Score]]


@dataclass(frozen=True)
class Scorer:
    """Who scores: the name its scores go by, a factory "module:function", the factory's keyword arguments, and the
    weight of its scores where there are several."""

    name: str
    call: str
    settings: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "scorer")
        if not self.name or not all(self.call.partition(":")):
            raise InputError(f"scorer: {self.name!r} calls {self.call!r}; give a name and MODULE:FUNCTION")


def open_scorer(scorer: Scorer) -> Scoring:
    """The function of a scorer: (task rows, their responses) to one Score each, in order. Raises InputError where it
    cannot be found or made, and from a call where the number of scores is not that of the responses, or one is no
    number."""
    module, _, function = scorer.call.partition(":")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"scorer {scorer.name}: {scorer.call} cannot be found: {error}") from None
    try:
        score = factory(**scorer.settings)
    except TypeError as error:
        raise InputError(f"scorer {scorer.name}: {scorer.call} does not take its settings: {error}") from None
    except (InputError, OSError):
        raise
    except Exception as error:  # the named boundary: it is not ours
        told = f"{type(error).__name__}: {error}"
        raise InputError(f"scorer {scorer.name}: {scorer.call} cannot be made: {told}") from error

    def scored(rows: Rows, responses: Sequence[str]) -> list[Score]:
        if len(rows) != len(responses):
            raise ValueError(f"{len(rows)} rows, {len(responses)} responses")
        if not rows:
            return []
        try:
            found = list(score(rows, responses))
        except InputError:
            raise
        except Exception as error:  # the named boundary: whatever fails in there is no score
            return [Score(None, f"scorer_failed: {type(error).__name__}: {error}"[:500])] * len(rows)
        if len(found) != len(rows):
            raise InputError(f"scorer {scorer.name} gave {len(found)} scores for {len(rows)} responses")
        try:
            return [_sound(item) for item in found]
        except (TypeError, ValueError):
            raise InputError(f"scorer {scorer.name} gave {found[0]!r:.100}; a Score, or a number, is wanted") from None

    return scored


def _sound(item: Any) -> Score:
    """A score that can be counted with; what is no finite number is not judged."""
    score, reason, *rest = item if isinstance(item, tuple) else (item, "")
    if score is None:
        return Score(None, str(reason), *rest)
    number = float(score)
    return Score(number, str(reason), *rest) if math.isfinite(number) else Score(None, "score_not_finite", *rest)
