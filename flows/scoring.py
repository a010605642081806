"""Verifiers and judges as training steps ask them: factories for `training/scoring.py`, named in a spec.

    {"name": "sums", "call": "gristmill.flows.scoring:verifier", "settings": {"verifier": "maths.numeric"}}

The law: what a verifier could not judge stays None, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.scoring import Score
from gristmill.verifiers.verifier import find


def verifier(verifier: str, **params: Any) -> Callable[[Sequence[Mapping[str, Any]], Sequence[str]], list[Score]]:
    """Scores by a verifier (its name, or FILE.py:FUNCTION) with these parameters. A row's `prompt` may be messages:
    the verifier sees the text of the last one. Raises InputError for an unknown verifier or parameter."""
    try:
        judge = find(verifier)(**params)
    except TypeError as error:
        raise InputError(f"{verifier}: {error}") from None

    def score(rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> list[Score]:
        asked = [
            {**row, "prompt": _text(row["prompt"]), "response": response}
            for row, response in zip(rows, responses, strict=True)
        ]
        return [Score(verdict.score, verdict.reason, _answer(verdict.evidence)) for verdict in judge.rows(asked)]

    return score


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _answer(evidence: Mapping[str, Any]) -> str | None:
    """What a response was taken to answer, where the verifier says it: equal answers are counted as one."""
    found = evidence.get("got", evidence.get("answer"))
    return None if found is None else str(found)
