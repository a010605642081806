"""Conversations as the formats of preference sets write them, as messages: a text, role and content, from and value, or
one transcript with "Human:" and "Assistant:".

The law: a role that is not known is no role here; a prompt ends where its replies begin, and all replies of one
judgement are to the same prompt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import messages

Row = Mapping[str, Any]
Messages = list[dict[str, Any]]
#: ShareGPT's names of roles (FastChat, LLaMA-Factory).
_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "assistant": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")


@dataclass(frozen=True)
class Given:
    """What a reader is told beside the rows: `rater` where rows name none, the `fields` of prompt and replies where an
    export has names of its own, and the `items` that rows refer to."""

    rater: str | None = None
    fields: tuple[str, ...] = ()
    items: Mapping[Any, Row] = field(default_factory=dict)


def conversation(value: Any, name: str, role: str = "user") -> Messages:
    """Messages of a text (one of `role`) or of a list. Raises Fault."""
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list):
        value = [_message(item) for item in value]
    return messages({name: value}, name, role)


def reply(value: Any, name: str) -> dict[str, Any]:
    """The one message of a reply. Raises Fault."""
    found = conversation(value, name, "assistant")
    if len(found) != 1 or found[0]["role"] != "assistant":
        raise Fault("bad_roles", f"{name} is of {', '.join(item['role'] for item in found)}, and not of one assistant")
    return found[0]


def replied(value: Any, name: str) -> tuple[Messages, dict[str, Any]]:
    """(what came before, the reply) of a conversation that ends with its reply. Raises Fault."""
    found = conversation(value, name, "assistant")
    if not found:
        raise Fault("empty", f"{name} has no message")
    return found[:-1], reply(found[-1:], name)


def transcript(value: Any, name: str) -> Messages:
    """Messages of a transcript as HH-RLHF has it: blank line, "Human:" or "Assistant:". Raises Fault."""
    if not isinstance(value, str):
        raise Fault("missing_column" if value is None else "wrong_type", f"{name} is no transcript")
    parts = _TURN.split(value)
    if parts[0].strip() or len(parts) < 3:
        raise Fault("wrong_type", f'{name} does not begin with "Human:" or "Assistant:"')
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return conversation([{"role": roles[who], "content": said.strip()} for who, said in turns], name)


def shared(prompts: Sequence[Messages]) -> Messages:
    """The one prompt of several replies. Raises Fault where they differ."""
    if any(prompt != prompts[0] for prompt in prompts[1:]):
        raise Fault("different_prompts", "the replies are not to the same prompt")
    return prompts[0]


def asked(row: Row, names: Sequence[str] = ()) -> Messages:
    """The prompt of a row, in the first of the columns that there is, under a `system` text. Raises Fault."""
    known = names or ("prompt", "conversations", "messages", "instruction", "question", "query")
    name = next((name for name in known if row.get(name) is not None), None)
    if name is None:
        raise Fault("missing_column", f"no {' or '.join(known)}; there is {', '.join(map(str, row)) or 'nothing'}")
    value = row[name]
    if name == "instruction" and isinstance(value, str) and isinstance(row.get("input"), str) and row["input"].strip():
        value = f"{value}\n\n{row['input']}"
    found = conversation(value, name)
    system = row.get("system")
    if isinstance(system, str) and system.strip() and found and found[0]["role"] != "system":
        found = conversation(system, "system", "system") + found
    return found


def first(row: Row, *names: str) -> Any:
    """The first value that is not null of these columns."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    """A list of objects, empty for null. Raises Fault."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Fault("wrong_type", f"{name} is no list of objects")
    return value


def number(value: Any, name: str) -> float:
    """A finite number, or a text that is one. Raises Fault."""
    try:
        found = None if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        found = None
    if found is None or not math.isfinite(found):
        raise Fault("wrong_type", f"{name} is {str(value)[:60]!r}, not a number")
    return found


def _message(item: Any) -> Any:
    """A message with `role` and `content`, of one with `from` and `value`."""
    if not isinstance(item, Mapping) or "from" not in item or "role" in item:
        return item
    role = _SPEAKERS.get(str(item["from"]).lower())
    if role is None:
        raise Fault("bad_roles", f"a message is from {item['from']!r}; known are {', '.join(_SPEAKERS)}")
    return {**{name: value for name, value in item.items() if name not in ("from", "value")}, "role": role} | {
        "content": item.get("value")
    }
