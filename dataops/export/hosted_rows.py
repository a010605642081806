"""A row as a conversation: what the columns of a dataset say, in one shape, or the reason why it cannot be said.

A message is what chat APIs have: role, content, tool_calls, tool_call_id, name, weight. Keys that are null are not
there, since a column of structs has every key in every row; so are nulls inside the arguments of a call and inside a
function's definition where these are structs (as JSON text both stay what they are). `messages` and `tools` may be
JSON text; `prompt`, `completion`, `chosen` and `rejected` may be the text of one message. Calls and results without
ids are matched in order. Nothing else is guessed: other roles and keys refuse the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from gristmill.dataops.export.hosted_forms import Stage

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGE_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name", "weight"}

#: Columns that a row is read from. Of an rft row all others that are asked for are the grader's.
COLUMNS = ("messages", "tools", "prompt", "completion", "chosen", "rejected")


class Refused(Exception):
    """Why a row cannot be written: a reason, what shows it, and the number beside its limit where there is one."""

    def __init__(
        self, reason: str, evidence: str = "", value: float | None = None, threshold: float | None = None
    ) -> None:
        super().__init__(f"{reason}: {evidence}")
        self.reason, self.evidence, self.value, self.threshold = reason, evidence, value, threshold


@dataclass(frozen=True)
class Example:
    """One line to be: a conversation (for dpo and rft the prompt), its functions, two answers, the grader's fields."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    outputs: tuple[Message, Message] | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read(row: Mapping[str, Any], stage: Stage, fields: Sequence[str] = ()) -> Example:
    """The example that a row holds. Raises Refused."""
    tools = _tools(row.get("tools"))
    if stage == "sft":
        return Example(_conversation(row), tools)
    if stage == "dpo":
        prompt, chosen, rejected = _pair(row)
        messages = _unweighted(_messages(prompt))
        return Example(messages, tools, (_answer(chosen, len(messages)), _answer(rejected, len(messages))))
    grader = {name: _json_value(row.get(name), name) for name in fields if row.get(name) is not None}
    if not grader:
        raise Refused("no_grader_field", ", ".join(fields))
    return Example(_unweighted(_messages(_prompt(row))), tools, fields=grader)


def loads(text: str, reason: str, evidence: str = "") -> Any:
    """JSON text as its value, without NaN and Infinity, which JSON does not have. Raises Refused."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(reason, evidence or text[:80]) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _conversation(row: Mapping[str, Any]) -> list[Message]:
    if row.get("messages") is not None:
        return _messages(_prompt(row))
    if row.get("completion") is None:
        raise Refused("no_messages")
    return _messages([*_prompt(row), *_spoken(row["completion"], "assistant")])


def _prompt(row: Mapping[str, Any]) -> list[Any]:
    """`messages`, which may be JSON text, or else `prompt`, which may be what the user says."""
    if row.get("messages") is not None:
        value = row["messages"]
        return _listed(loads(value, "bad_messages") if isinstance(value, str) else value)
    if row.get("prompt") is None:
        raise Refused("no_messages")
    return _spoken(row["prompt"], "user")


def _spoken(value: Any, role: str) -> list[Any]:
    return [{"role": role, "content": value}] if isinstance(value, str) else _listed(value)


def _pair(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Prompt, chosen and rejected; two whole conversations without a prompt share it as their common beginning."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if chosen is None or rejected is None:
        raise Refused("no_pair")
    if row.get("prompt") is not None or row.get("messages") is not None:
        return _prompt(row), chosen, rejected
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise Refused("no_messages", "text without a prompt")
    first, second = _listed(chosen), _listed(rejected)
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    return first[:shared], first[shared:], second[shared:]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, list):
        raise Refused("bad_messages", type(value).__name__)
    return value


def _answer(value: Any, number: int) -> Message:
    """One assistant message, which comes after `number` others: all that any of the services trains on."""
    messages = _messages(_spoken(value, "assistant"), number)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Refused("output_not_one_message", " ".join(message["role"] for message in messages), len(messages), 1)
    return _unweighted(messages)[0]


def _unweighted(messages: list[Message]) -> list[Message]:
    """Without weights, which have a meaning where the messages are what is trained, and nowhere else."""
    return [{name: value for name, value in message.items() if name != "weight"} for message in messages]


def _messages(values: list[Any], start: int = 0) -> list[Message]:
    if not values:
        raise Refused("no_messages")
    return _matched([_message(item, number) for number, item in enumerate(values, start)], start)


def _message(value: Any, number: int) -> Message:
    if not isinstance(value, Mapping):
        raise Refused("bad_messages", f"message {number} is {type(value).__name__}")
    there = {name: item for name, item in value.items() if item is not None and not (name == "tool_calls" and not item)}
    unknown = sorted(set(there) - MESSAGE_KEYS)
    if unknown:
        raise Refused("unknown_key", f"message {number}: {', '.join(unknown)}")
    role = there.get("role")
    if role not in ROLES:
        raise Refused("unknown_role", f"message {number}: {role}")
    message: Message = {"role": role}
    if "content" in there:
        message["content"] = _content(there["content"], number)
    if "tool_calls" in there:
        if role != "assistant":
            raise Refused("misplaced_key", f"message {number}: tool_calls of {role}")
        calls = there["tool_calls"]
        calls = _listed(loads(calls, "bad_call") if isinstance(calls, str) else calls)
        message["tool_calls"] = [_call(call, number) for call in calls]
    elif "content" not in message or not (role == "tool" or message["content"].strip()):
        raise Refused("empty_content", f"message {number} of {role}")
    for name in ("name", "tool_call_id"):
        if name in there:
            if not isinstance(there[name], str) or (name == "tool_call_id" and role != "tool"):
                raise Refused("misplaced_key", f"message {number}: {name} of {role}")
            message[name] = there[name]
    return message if "weight" not in there else _weighted(message, there["weight"], number)


def _content(value: Any, number: int) -> str:
    """Text; a single part of text is that text."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        part = {name: item for name, item in value[0].items() if item is not None}
        value = part["text"] if set(part) == {"type", "text"} and part["type"] == "text" else value
    if not isinstance(value, str):
        raise Refused("content_not_text", f"message {number}")
    return value


def _weighted(message: Message, weight: Any, number: int) -> Message:
    if isinstance(weight, bool) or weight not in (0, 1) or (message["role"] != "assistant" and weight != 0):
        raise Refused("bad_weight", f"message {number} of {message['role']}: {weight}")
    return {**message, "weight": int(weight)} if message["role"] == "assistant" else message


def _call(value: Any, number: int) -> dict[str, Any]:
    """A call as chat APIs have it; {name, arguments} alone is understood."""
    function = value.get("function") or value if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or value.get("type") not in (None, "function"):
        raise Refused("bad_call", f"message {number}")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str):
        raise Refused("bad_call", f"message {number}: no name")
    if isinstance(arguments, Mapping):
        arguments = json.dumps(_without_null(_json_value(arguments, name)), ensure_ascii=False)
    if not isinstance(arguments, str) or not isinstance(loads(arguments, "bad_arguments", name), dict):
        raise Refused("bad_arguments", f"message {number}: {name}")
    made: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if value.get("id") is None else {"id": str(value["id"]), **made}


def _matched(messages: list[Message], start: int) -> list[Message]:
    """Every call with an id, every result with the id of a call just made, every call answered before others speak."""
    waiting: dict[str, str] = {}
    seen: set[str] = set()
    for number, message in enumerate(messages, start):
        if message["role"] != "tool":
            if waiting:
                raise Refused("call_unanswered", f"message {number} comes before the result of {next(iter(waiting))}")
            for position, call in enumerate(message.get("tool_calls", ())):
                call["id"] = call.get("id", f"call_{number}_{position}")
                if call["id"] in seen:
                    raise Refused("call_id_twice", call["id"])
                seen.add(call["id"])
                waiting[call["id"]] = call["function"]["name"]
            continue
        message["tool_call_id"] = id = message.get("tool_call_id") or next(iter(waiting), "")
        if id not in waiting or message.get("name", waiting[id]) != waiting[id]:
            raise Refused("tool_without_call", f"message {number}: {id or 'no call before it'}")
        message["name"] = waiting.pop(id)
    return messages


def _tools(value: Any) -> list[dict[str, Any]]:
    """Functions as chat APIs have them; a definition alone is understood."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    value = loads(value, "bad_tool") if isinstance(value, str) else _without_null(value)
    tools = []
    for tool in _listed(value):
        if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
            raise Refused("bad_tool", str(tool)[:80])
        function = tool.get("function") or {name: item for name, item in tool.items() if name != "type"}
        if not isinstance(function, Mapping):
            raise Refused("bad_tool", str(tool)[:80])
        definition = dict(_json_value(function, "tools"))
        if isinstance(definition.get("parameters"), str):
            definition["parameters"] = loads(definition["parameters"], "bad_tool")
        tools.append({"type": "function", "function": definition})
    return tools


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _json_value(value: Any, name: str) -> Any:
    """The value, where JSON can hold it. Raises Refused."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise Refused("field_not_json", name) from None
    return value
