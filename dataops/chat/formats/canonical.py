"""What the formats share: turns, and a conversation out of them in the shape that chats are kept in.

The law: a row of a file becomes conversations or a fault, never something between: a role that is not known, a turn
without a text and turns in an order that no dialogue has are faults. What of a row is no turn of any conversation, the
other branches of a tree, is counted as lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.dataops.chat.messages import MESSAGE, Fault, check
from gristmill.dataops.chat.shapes import Row, about

_FIELDS = tuple(field.name for field in MESSAGE.fields)
#: Who may speak behind whom. Calls are answered before the conversation goes on.
_BEHIND = {
    "user": ("assistant",),
    "assistant": ("user",),
    "calls": ("tool",),
    "tool": ("tool", "assistant"),
}


@dataclass(frozen=True)
class Lost:
    """Of a row that is kept: `lost` of its `unit` that are in none of its conversations."""

    reason: str
    evidence: str
    lost: int
    unit: str = "message"


#: What a format makes of a row: conversations, faults in the place of some of them, and what is lost.
Made = Sequence["dict[str, Any] | Fault | Lost"]


def turn(role: str, content: str | None, **fields: Any) -> dict[str, Any]:
    """One message."""
    return dict.fromkeys(_FIELDS) | {"role": role, "content": content, **fields}


def call(name: str, arguments: Any) -> dict[str, Any]:
    """One call of a tool."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def talk(turns: Sequence[Mapping[str, Any]], row: Row, *ids: Any, tools: str | None = None) -> dict[str, Any]:
    """A conversation; `tools` is JSON text, `ids` are those beside the row's own. Raises Fault: "empty", "bad_roles",
    and "no_targets" where no assistant speaks."""
    check([{**turn, "content": turn["content"] or ""} for turn in turns])
    speakers = [_speaker(turn) for turn in turns if turn["role"] not in ("system", "developer")]
    for number, (first, second) in enumerate(zip(speakers, speakers[1:], strict=False), 2):
        role = "assistant" if second == "calls" else second
        if role not in _BEHIND[first]:
            shown = "assistant, who calls a tool" if first == "calls" else first
            raise Fault("bad_roles", f"turn {number} is of {role}, behind {shown}")
    if not {"assistant", "calls"} & {*speakers}:
        raise Fault("no_targets", "no turn of an assistant")
    return {"messages": list(turns), "tools": tools, **about(row, *ids)}


def _speaker(turn: Mapping[str, Any]) -> str:
    return "calls" if turn["role"] == "assistant" and turn["tool_calls"] else turn["role"]


def words(row: Row, name: str, optional: bool = False) -> str:
    """The text of a column; "" for one that is optional and missing or null. Raises Fault."""
    value = row.get(name)
    if value is None:
        if optional:
            return ""
        raise Fault("missing_column", f"no {name}; there is {', '.join(map(str, row)) or 'nothing'}")
    if not isinstance(value, str):
        raise Fault("wrong_type", f"{name} is a {type(value).__name__}, not a text")
    return value


def asked(*parts: str) -> str:
    """What a user says where a format keeps a task and the text that it is about apart: each on lines of its own."""
    return "\n".join(part for part in parts if part.strip())


def as_tools(value: Any) -> str | None:
    """Tools as OpenAI writes them; a bare function is put in one. JSON text, or None for none. Raises Fault."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Fault("wrong_type", f"tools is a text that is no JSON: {error}") from None
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise Fault("wrong_type", "tools is no list of objects")
    whole = [tool if "function" in tool else {"type": "function", "function": tool} for tool in value]
    return json.dumps(whole, ensure_ascii=False)
