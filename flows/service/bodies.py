"""What is sent to the service, and what it answers, as the OpenAPI page shows them.

The law: a field that is not known is refused, and so is a number where a text is asked for; nothing is guessed.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

MOST = 500  # judgements of one request
_Key = Annotated[str, Field(min_length=1, max_length=128, description="the client's own name for this judgement")]
_Said = Annotated[str | None, Field(max_length=10_000)]
_Time = Annotated[str | None, Field(max_length=200, description="the client's clock; kept, and decides nothing")]


class Body(BaseModel):
    """What is sent: no other fields, no other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Judgement(Body):
    """What a rater says of an item that they were shown. `value` is of the responses in the order shown: [2, 0] of a
    pair, [1] or [0] a thumb, ranks, {"aspect": [numbers]}, an edited text; null where they could not judge."""

    item: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[JsonValue, Field(examples=[[1, 0]])]
    comment: _Said = None
    client_at: _Time = None
    key: _Key | None = None


class KeyedJudgement(Judgement):
    """One of many: each has a key of its own."""

    key: _Key


class Judgements(Body):
    """Several judgements of one rater."""

    judgements: Annotated[list[KeyedJudgement], Field(min_length=1, max_length=MOST)]


class Thumbs(Body):
    """A response that an application gave, and whether its user liked it. Either `prompt` or `messages`."""

    response: str | dict[str, JsonValue]
    label: Annotated[bool, Field(description="true: the user liked it")]
    user: Annotated[str, Field(min_length=1, max_length=90, description="who judged, as the application calls them")]
    prompt: str | None = None
    messages: list[dict[str, JsonValue]] | None = None
    policy: Annotated[str | None, Field(max_length=200, description="the model that answered")] = None
    tools: Annotated[str | None, Field(description="JSON of the tools that the model was given")] = None
    comment: _Said = None
    client_at: _Time = None
    key: _Key | None = None


class Kept(BaseModel):
    """A judgement that is on the disk; `version` above 1 supersedes what the same rater said of the item before."""

    item: str
    version: int
    judged_at: Annotated[int, Field(description="the server's time, in milliseconds since 1970 UTC")]


class Fault(BaseModel):
    """Why not: one word for a program, a sentence for people."""

    error: str
    message: str


class Results(BaseModel):
    """For each judgement, in the order sent, what became of it."""

    results: list[Kept | Fault]


class Next(BaseModel):
    """An item to judge before the lease ends."""

    item: str
    kind: str
    prompt: list[dict[str, Any]]
    responses: list[dict[str, Any]]
    tools: str | None
    shown_at: int
    lease_until: int


class Queue(BaseModel):
    """How a queue stands: `waiting` judgements are in no batch yet, `due` says why one is to be closed."""

    queue: str
    kind: str
    items: int
    open: int
    judgements: int
    waiting: int
    batches: int
    threshold: int | None
    due: str | None


class Queues(BaseModel):
    """All queues; `closing` says why the last closing of a batch did not work."""

    queues: list[Queue]
    closing: str | None
