"""The seam between judges and whatever generates text, and the one shipped fake.

An engine is anything with these attributes and two methods; it is described over built-in types alone, so that an
engine fits by its shape and imports nothing from here. `name` and `version` together must say which weights answer and
how: they are part of a judge's identity.

The law: an engine that could not answer says so (None, NaN or an OSError) and never makes an answer up. Not covered:
engines of the real world, which are `gristmill.training.engines`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gristmill.verifiers.judge.fences import seats

Conversation = Sequence[Mapping[str, str]]


class Engine(Protocol):
    """Turns conversations (messages of `role` and `content`) into replies."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def version(self) -> str:
        """Changes whenever its answers may change."""

    @property
    def structured(self) -> bool:
        """Whether a reply is sure to be one of `choices`."""

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[str | None]:
        """One reply each, in order; None where there is none for this one. An outage raises OSError."""

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]] | None:
        """The log-probability (nats) of each choice as the reply, per conversation; a row of NaN where there is no
        answer for this one; None for an engine that cannot. An outage raises OSError."""


@dataclass(frozen=True)
class Fake:
    """An engine without a model, for tests and for trying things out: the same request, the same answer.

    It gives each candidate that it is shown the number `likes(text)`, and picks the larger (C for a tie within
    `tie_within`; without candidates to choose from, the choice nearest to the number). A share `first` of requests,
    drawn by a hash of the request, goes to the first seat whatever sits there. `says` replaces the reply by a text of
    your own, of the conversation and the choices. `outages` raises OSError; `silent` of requests get no answer.
    `certainty` scales its log-probabilities; None says that it has none.
    """

    likes: Callable[[str], float] = len
    first: float = 0.0
    tie_within: float = 0.0
    silent: float = 0.0
    says: Callable[[Conversation, Sequence[str] | None], str | None] | None = None
    outages: bool = False
    structured: bool = True
    certainty: float | None = 1.0
    name: str = "fake"
    version: str = "1"

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[str | None]:
        """See Engine. `max_tokens`, `temperature`, `seed` and `schema` change nothing."""
        self._up()
        return [self._reply(conversation, choices) for conversation in conversations]

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]] | None:
        """See Engine."""
        self._up()
        if self.certainty is None:
            return None
        return [
            [math.nan] * len(choices) if self._drawn(conversation, "silent", self.silent) else _log_softmax(weights)
            for conversation in conversations
            for weights in [[self.certainty * weight for weight in self._weights(conversation, choices)]]
        ]

    def _up(self) -> None:
        if self.outages:
            raise ConnectionError("the fake engine is out of service")

    def _reply(self, conversation: Conversation, choices: Sequence[str] | None) -> str | None:
        if self._drawn(conversation, "silent", self.silent):
            return None
        if self.says is not None:
            return self.says(conversation, choices)
        told = choices or ("A", "B", "C")
        weights = self._weights(conversation, told)
        if "C" in told and len(seats(conversation)) == 2 and abs(weights[0] - weights[1]) <= self.tie_within:
            return "C"
        return told[max(range(len(told)), key=lambda i: weights[i])]

    def _weights(self, conversation: Conversation, choices: Sequence[str]) -> list[float]:
        texts = seats(conversation)
        likes = [float(self.likes(text)) for text in texts]
        if len(texts) == 2:
            if self._drawn(conversation, "first", self.first):
                return [1.0, *(0.0 for _ in choices[1:])]
            return [*likes, *(-math.inf for _ in choices[2:])][: len(choices)]
        return [-abs(float(choice) - likes[0]) for choice in choices]

    def _drawn(self, conversation: Conversation, what: str, share: float) -> bool:
        data = repr((what, [dict(message) for message in conversation])).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") < share * 2**64


def _log_softmax(weights: Sequence[float]) -> list[float]:
    top = max(weights)
    total = top + math.log(math.fsum(math.exp(weight - top) for weight in weights))
    return [weight - total if weight > -math.inf else -1e9 for weight in weights]
