"""Messages: what one is, and what is wrong with a conversation before any template sees it.

A message is a struct with `role` and `content`, and where it has them `tool_calls` (JSON text of a list),
`tool_call_id`, `name` and `reasoning_content`; other fields go to the template as they are. The law: a conversation
that the rules below refuse never reaches a template, whose own refusals come in every wording.

Not covered: images and sound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGE = pl.Struct(
    {name: pl.String() for name in ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content")}
)
MESSAGES = pl.List(MESSAGE)
_FIRST = ("system", "developer")


class Fault(ValueError):
    """Why a row cannot be used: the ledger's reason, and what was seen."""

    def __init__(self, reason: str, evidence: str) -> None:
        super().__init__(evidence)
        self.reason = reason


def read(found: Sequence[Mapping[str, Any] | None] | None) -> list[dict[str, Any]]:
    """The messages of a cell as templates take them: fields without a value left out, JSON parsed. Raises Fault."""
    messages = []
    for number, fields in enumerate(found or ()):
        if fields is None:
            raise Fault("empty", f"message {number + 1} is null")
        message = {name: value for name, value in fields.items() if value is not None}
        if "tool_calls" in message:
            message["tool_calls"] = parsed(message["tool_calls"], f"tool_calls of message {number + 1}")
        message.setdefault("content", "")
        messages.append(message)
    return messages


def parsed(value: Any, name: str) -> Any:
    """JSON text as what it says, anything else as it is. Raises Fault."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair can be written in JSON, not in a text
    except (ValueError, RecursionError) as error:
        raise Fault("unrenderable", f"{name} is no JSON text: {error}") from None
    return found


def check(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises Fault: "empty" for no messages, or a user or an assistant who says nothing; "bad_roles" for a role that is
    none, a system message behind others, and a conversation that neither system nor user begins."""
    if not messages:
        raise Fault("empty", "no messages")
    begun = False
    for number, message in enumerate(messages, 1):
        role = message.get("role")
        if role not in ROLES:
            raise Fault("bad_roles", f"message {number} is of {role!r}")
        if role in _FIRST:
            if begun:
                raise Fault("bad_roles", f"message {number} is of {role!r}, behind others")
            continue
        if not begun and role != "user":
            raise Fault("bad_roles", f"the first to speak is {role!r}")
        begun = True
        content = message["content"]
        said = content.strip() if isinstance(content, str) else content
        if role != "tool" and not said and not message.get("tool_calls"):
            raise Fault("empty", f"message {number}, of {role!r}, has no text")


def as_messages(value: Any, role: str) -> Any:
    """A text as one message of that role; a list as it is."""
    return [{"role": role, "content": value}] if isinstance(value, str) else value
