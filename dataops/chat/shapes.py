"""The shapes of chat data: which columns a row of a file must have, and the row that is made of it.

    messages   messages [, tools] [, source] [, licence]        a conversation to learn from
    pairs      prompt, chosen, rejected [, margin] [, tools]    two replies, the first preferred
    thumbs     prompt, response, label [, tools]                a reply, liked or not
    tasks      prompt, and whatever a scorer needs              to be answered in training

A prompt or a reply may be a text: it becomes one message. Other columns are left out, but those of tasks, which keep
all: numbers, texts and truth values as such, everything else, and columns of several kinds, as JSON text; an `id` as
`given_id`. The law: a value of another type than the shape wants is never changed into it; its row is dropped. The one
thing that is: arguments of a call that are JSON text, as OpenAI's API has them, become the object that they spell.

Conversations keep what a row says of itself: its `source`, its `licence`, and as `ids` what it calls itself.
Conversations in other formats are read by `formats`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from gristmill.dataops.chat.messages import MESSAGE, MESSAGES, Fault

#: Prompts of tasks, which verifiers and judges read: text alone.
PROMPT = pl.List(pl.Struct({"role": pl.String(), "content": pl.String()}))
Row = Mapping[str, Any]
_IDS = ("id", "conversation_id", "message_tree_id", "question_id", "prompt_id", "uuid", "idx")
_SOURCES = ("source", "dataset", "dataset_name", "task_name", "task")
_LICENCES = ("licence", "license")
_FIELDS = tuple(field.name for field in MESSAGE.fields)
#: Per-message weights of training data elsewhere; only 1 means what the loss here does.
_WEIGHTS = ("weight", "loss_weight")


@dataclass(frozen=True)
class Shape:
    """`columns` of a made row, and what makes it, raising Fault. Shapes that are `open` keep all other columns."""

    columns: Mapping[str, pl.DataType]
    make: Callable[[Row], dict[str, Any]]
    open: bool = False


def _messages(row: Row) -> dict[str, Any]:
    return {"messages": messages(row, "messages"), "tools": json_text(row.get("tools"), "tools", list), **about(row)}


def about(row: Row, *ids: Any) -> dict[str, Any]:
    """`source`, `licence` and `ids` of a row: what it says of itself, and the ids given."""
    names = ([row[name] for name in _IDS if row.get(name) is not None])[:1]
    known = [str(id) for id in (*names, *ids) if isinstance(id, (str, int)) and not isinstance(id, bool)]
    source, licence = (
        next((row[name] for name in found if isinstance(row.get(name), str) and row[name].strip()), None)
        for found in (_SOURCES, _LICENCES)
    )
    return {"source": source, "licence": licence, "ids": list(dict.fromkeys(known))}


def _pairs(row: Row) -> dict[str, Any]:
    made = {"prompt": messages(row, "prompt", "user")}
    made |= {name: messages(row, name, "assistant") for name in ("chosen", "rejected")}
    margin = row.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, (int, float))):
        raise Fault("wrong_type", f"margin is {_kind(margin)}, not a number")
    return made | {"margin": margin, "tools": json_text(row.get("tools"), "tools", list)}


def _thumbs(row: Row) -> dict[str, Any]:
    made = {"prompt": messages(row, "prompt", "user"), "response": messages(row, "response", "assistant")}
    label = present(row, "label")
    if label not in (True, False):  # 1 and 0 too
        raise Fault("wrong_type", f"label is {_kind(label)}, not true or false")
    return made | {"label": bool(label), "tools": json_text(row.get("tools"), "tools", list)}


def _tasks(row: Row) -> dict[str, Any]:
    found = messages(row, "prompt", "user")
    for number, message in enumerate(found, 1):
        extra = [name for name in _FIELDS[2:] if message[name] is not None]
        if extra:
            raise Fault("wrong_type", f"message {number} of the prompt has {', '.join(extra)}; a task's are text alone")
    return {"prompt": [{"role": message["role"], "content": message["content"]} for message in found]}


_TOOLS = {"tools": pl.String()}
_ABOUT = {"source": pl.String(), "licence": pl.String(), "ids": pl.List(pl.String())}
SHAPES = {
    "messages": Shape({"messages": MESSAGES, **_TOOLS, **_ABOUT}, _messages),
    "pairs": Shape(
        {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, "margin": pl.Float64(), **_TOOLS}, _pairs
    ),
    "thumbs": Shape({"prompt": MESSAGES, "response": MESSAGES, "label": pl.Boolean(), **_TOOLS}, _thumbs),
    "tasks": Shape({"prompt": PROMPT}, _tasks, open=True),
}


def messages(row: Row, column: str, role: str | None = None) -> list[dict[str, Any]]:
    """The messages of a column; a text is one of `role`, where one is given."""
    value = present(row, column)
    if isinstance(value, str) and role is not None:
        return [dict.fromkeys(_FIELDS) | {"role": role, "content": value}]
    if not isinstance(value, list):
        wanted = "a list of messages" if role is None else "a text or a list of messages"
        raise Fault("wrong_type", f"{column} is {_kind(value)}, not {wanted}")
    return [_message(item, f"message {number} of {column}") for number, item in enumerate(value, 1)]


def _message(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault("wrong_type", f"{name} is {_kind(value)}, not an object")
    made = dict.fromkeys(_FIELDS)
    made["role"] = text(present(value, "role", f" of {name}"), f"role of {name}")
    for field in ("tool_call_id", "name", "reasoning_content"):
        if value.get(field) is not None:
            made[field] = text(value[field], f"{field} of {name}")
    if value.get("function_call") is not None:
        raise Fault("wrong_type", f"{name} has a function_call, the form before tool_calls: write it as one of those")
    made["tool_calls"] = _calls(json_text(value.get("tool_calls"), f"tool_calls of {name}", list), name)
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, name) for part in content)
    if content is None and made["tool_calls"] is None:
        raise Fault("missing_column", f"no content of {name}")
    made["content"] = None if content is None else text(content, f"content of {name}")
    for field in _WEIGHTS:
        if made["role"] == "assistant" and value.get(field) not in (None, 1):
            raise Fault("weighted", f"{field} of {name} is {value[field]!r}: weights of turns are not covered")
    return made


def _calls(value: str | None, name: str) -> str | None:
    """Calls with their arguments as objects."""
    if value is None or '"arguments": "' not in value:
        return value
    calls = json.loads(value)
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            arguments = json_text(function["arguments"] or "{}", f"arguments of a call of {name}", dict)
            function["arguments"] = {} if arguments is None else json.loads(arguments)
    return json.dumps(calls, ensure_ascii=False)


def _part(value: Any, name: str) -> str:
    """The text of one part of a content that is a list of parts; LLaMA-Factory's keep it as `value`."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind != "text":
        raise Fault("wrong_type", f"{name} has a part of type {kind!r}; only text is covered")
    return text(value.get("text", value.get("value")), f"a part of {name}")


def present(row: Row, name: str, where: str = "") -> Any:
    value = row.get(name)
    if value is None:
        raise Fault("missing_column", f"no {name}{where}; there is {', '.join(map(str, row)) or 'nothing'}")
    return value


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Fault("wrong_type", f"{name} is {_kind(value)}, not a text")
    return value


def json_text(value: Any, name: str, kind: type) -> str | None:
    """JSON text of a value that is, or is written as JSON of, this kind; None for none, or an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Fault("wrong_type", f"{name} is a text that is no JSON: {error}") from None
    if value is not None and not isinstance(value, kind):
        raise Fault("wrong_type", f"{name} is {_kind(value)}, not a {kind.__name__}")
    return json.dumps(value, ensure_ascii=False) if value else None


def kind_of(value: Any) -> pl.DataType | None:
    """The column type that holds a value of JSON as it is: None where that is JSON text."""
    if isinstance(value, bool):
        return pl.Boolean()
    if isinstance(value, int):
        return pl.Int64() if -(1 << 63) <= value < 1 << 63 else None
    return pl.Float64() if isinstance(value, float) else pl.String() if isinstance(value, str) else None


def joint(kinds: set[pl.DataType | None]) -> tuple[pl.DataType, bool]:
    """(the type of a column with values of these kinds, whether they are written as JSON text)."""
    if len(kinds) == 1 and None not in kinds:
        return next(kind for kind in kinds if kind is not None), False
    if kinds == {pl.Int64(), pl.Float64()}:
        return pl.Float64(), False
    return pl.String(), True


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")
