"""Whether who was asked is gone, or could not judge what it was shown.

A verdict without a score is published and taken from there ever after: right for a response that nobody can read, wrong
for a judge whose server was down for a minute. The law: where who is asked was away, OSError rises before anything is
published, and the same command asks again. One row is enough where its own contents cannot be why; of what a hostile
response may do to itself (crash its verifier, lose its sandbox) all rows of a batch are needed. Not covered: a server
that answers, and answers nonsense.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: A score, its reason, and a verdict's evidence where there is one.
Told = tuple[float | None, str, Mapping[str, Any]]

_AWAY = ("engine_failed", "scorer_failed")
_FAILED = ("verifier_failed", "sandbox_lost")


def reached(who: str, told: Sequence[Told]) -> None:
    """Raises OSError where `who` was away as these were judged, a batch of them."""
    troubles = [list(_troubles(reason, evidence)) for score, reason, evidence in told if score is None]
    away = next((one for found in troubles for one in found if _away(*one)), None)
    if away is None and len(troubles) == len(told) and all(any(_is(one[0], _FAILED) for one in t) for t in troubles):
        away = next((one for found in troubles for one in found), None)
    if away is not None:
        why = away[0] + (f" ({away[1]})" if away[1] else "")
        raise OSError(f"{who} is gone: {why}. Put that right, then run the same again")


def _troubles(reason: str, evidence: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The reasons below a reason, of parts and of a gold answer that could not be judged, each with its error."""
    parts = [part for part in evidence.get("parts", ()) if part["score"] is None]
    for part in parts:
        yield from _troubles(part["reason"], part["evidence"])
    if isinstance(evidence.get("evidence"), Mapping) and isinstance(evidence.get("reason"), str):
        yield from _troubles(evidence["reason"], evidence["evidence"])
    elif not parts:
        yield reason, str(evidence.get("error", ""))


def _is(reason: str, names: Sequence[str]) -> bool:
    return any(word.strip() in names for word in reason.split(":"))


def _away(reason: str, error: str) -> bool:
    return _is(reason, _AWAY) or (_is(reason, ("verifier_failed",)) and _unreached(error or reason))


def _unreached(error: str) -> bool:
    """Whether an error that stands in words, "Type: what it said", is of a connection or of time."""
    kinds = (getattr(builtins, word.strip(), None) for word in error.split(":"))
    return any(isinstance(kind, type) and issubclass(kind, ConnectionError | TimeoutError) for kind in kinds)
