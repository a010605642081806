"""Whether an example keeps the limits of a form: roles and their order, calls, functions, words, tokens.

The first limit that is broken refuses the row, with the value and the limit where both are numbers. Tokens are
counted with the tokenizer given; without one a row is within the limit where its UTF-8 bytes are, since a byte-level
token holds at least one, and otherwise nobody knows: it is written, and said to be unjudged. Not checked: whether
arguments fit the schema of their function, and anything that a service does not state.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema

from gristmill.dataops.export.hosted_forms import Form
from gristmill.dataops.export.hosted_rows import Example, Message, Refused

Count = Callable[[str], int]

#: What a chat template adds: the figures of OpenAI's cookbook (Chat_finetuning_data_prep), for want of each model's.
MESSAGE_TOKENS, NAME_TOKENS, REPLY_TOKENS = 3, 1, 3

#: The keywords of google-genai's `Schema`, as JSON has them.
GEMINI_KEYWORDS = {
    "additionalProperties", "defs", "ref", "anyOf", "default", "description", "enum", "example", "format", "items",
    "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum",
    "nullable", "pattern", "properties", "propertyOrdering", "required", "title", "type",
}  # fmt: skip


def check(example: Example, form: Form) -> None:
    """Raises Refused for the first limit that the example breaks; `tokens` is apart, since it costs the most."""
    _roles(example, form)
    _last(example, form)
    for tool in example.tools:
        _tool(tool, form)
    names = [tool["function"]["name"] for tool in example.tools]
    if example.tools and not form.tools:
        raise Refused("tools_not_supported", ", ".join(names)[:80])
    if len(set(names)) < len(names):
        raise Refused("tool_twice", next(name for name in names if names.count(name) > 1))
    if form.max_tools is not None and len(names) > form.max_tools:
        raise Refused("too_many_tools", "", len(names), form.max_tools)
    for number, message in enumerate([*example.messages, *(example.outputs or ())]):
        _message(message, number, form, set(names))
    if example.outputs is not None and _said(example.outputs[0]) == _said(example.outputs[1]):
        raise Refused("outputs_equal")


def tokens(example: Example, form: Form, count: Count | None = None) -> int | None:
    """Raises Refused where the example has more tokens than the form allows; a pair has those of its longer answer.

    Returns its bytes of text where nobody can say, None where it is within the limit or there is none.
    """
    if form.max_tokens is None:
        return None
    measure: Count = count if count is not None else _bytes
    total = sum(_size(message, measure) for message in example.messages) + REPLY_TOKENS
    total += max((_size(message, measure) for message in example.outputs or ()), default=0)
    total += measure(json.dumps(example.tools, ensure_ascii=False)) if example.tools else 0
    if total <= form.max_tokens:
        return None
    if count is None:
        return total
    raise Refused("too_many_tokens", "", total, form.max_tokens)


def _said(message: Message) -> Any:
    return message.get("content"), [call["function"] for call in message.get("tool_calls", ())]


def _roles(example: Example, form: Form) -> None:
    roles = ["system" if message["role"] == "developer" else message["role"] for message in example.messages]
    if form.system_first and "system" in roles[1:]:
        raise Refused("system_not_first", f"message {roles.index('system', 1)}")
    turns = roles[roles[:1] == ["system"] :]
    if form.starts_with_user and turns[:1] != ["user"]:
        raise Refused("first_role", f"{turns[0] if turns else 'nothing'} instead of user")
    if form.order == "free":
        return
    called = [bool(message.get("tool_calls")) for message in example.messages][len(roles) - len(turns) :]
    for before, now, calls in zip(turns, turns[1:], called, strict=False):
        wanted: tuple[str, ...]
        if before == "tool":
            wanted = ("tool", "assistant")
        elif form.order == "tools":
            continue
        else:
            wanted = ("tool",) if calls else ("user",) if before == "assistant" else ("assistant",)
        if now not in wanted:
            raise Refused("role_order", f"{now} after {before} instead of {' or '.join(wanted)}")


def _last(example: Example, form: Form) -> None:
    last = example.messages[-1]["role"]
    wanted = {"sft": ("assistant",), "rft": ("user",), "dpo": ("user", "tool") if form.tools else ("user",)}[form.stage]
    if last not in wanted:
        raise Refused("last_role", f"{last} instead of {' or '.join(wanted)}")
    if form.stage == "sft":
        spoken = [message for message in example.messages if message["role"] == "assistant"]
        untrained = [message for message in spoken if message.get("weight") == 0]
        if len(untrained) == len(spoken):
            raise Refused("nothing_trained", "every assistant message has the weight 0")
        if untrained and not form.weights:
            raise Refused("weight_not_supported", f"{len(untrained)} messages with the weight 0 would be trained")


def _message(message: Message, number: int, form: Form, names: set[str]) -> None:
    role, text = message["role"], message.get("content", "")
    if "name" in message and role != "tool" and not form.names:
        raise Refused("name_not_supported", f"message {number}")
    if form.reserved:
        word = next((word for word in form.reserved if word in text), None)
        if word is not None:
            raise Refused("reserved_word", f"message {number}: {word}")
    if role == "tool" or "tool_calls" in message:
        if not form.tools:
            raise Refused("tools_not_supported", f"message {number}")
        if role != "tool" and text.strip() and not form.content_with_calls:
            raise Refused("content_with_calls", f"message {number}")
    for call in message.get("tool_calls", ()):
        name = call["function"]["name"]
        if re.fullmatch(form.tool_name, name) is None:
            raise Refused("tool_name", name[:80])
        if form.tools_declared and name not in names:
            raise Refused("unknown_tool", name)


def _tool(tool: dict[str, Any], form: Form) -> None:
    function = tool["function"]
    name = function.get("name")
    if not isinstance(name, str) or re.fullmatch(form.tool_name, name) is None:
        raise Refused("tool_name", str(name)[:80])
    unknown = sorted(set(function) - {"name", "description", "parameters", "strict"})
    if unknown:
        raise Refused("unknown_key", f"function {name}: {', '.join(unknown)}")
    if not isinstance(function.get("description", ""), str) or not isinstance(function.get("strict", False), bool):
        raise Refused("bad_tool", name)
    problem = _schema_problem(json.dumps(function.get("parameters", {}), sort_keys=True), form.shape == "gemini")
    if problem is not None:
        raise Refused("bad_tool", f"{name}: {problem}")


@functools.lru_cache(maxsize=4096)
def _schema_problem(text: str, gemini: bool) -> str | None:
    """What is wrong with a function's parameters; a set of rows has few functions, so it is asked once for each."""
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return "parameters are not a schema"
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError) as error:
        return str(error).splitlines()[0][:80]
    if schema.get("type", "object") != "object":
        return "parameters are not an object"
    return _gemini_problem(schema) if gemini else None


def _gemini_problem(schema: Any) -> str | None:
    if not isinstance(schema, dict):
        return "a schema that is true or false"
    unknown = sorted(set(schema) - GEMINI_KEYWORDS)
    if unknown:
        return f"keywords that Gemini does not have: {', '.join(unknown)}"
    if isinstance(schema.get("type"), list):
        return "several types"
    if not all(isinstance(value, str) for value in schema.get("enum", ())):
        return "an enum of other than strings"
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    return next((problem for problem in map(_gemini_problem, inner) if problem is not None), None)


def _bytes(text: str) -> int:
    return len(text.encode())


def _size(message: Message, measure: Count) -> int:
    texts = [message.get("content", "")]
    for call in message.get("tool_calls", ()):
        texts += [call["function"]["name"], call["function"]["arguments"]]
    name = NAME_TOKENS + measure(message["name"]) if "name" in message else 0
    return MESSAGE_TOKENS + name + sum(measure(text) for text in texts)
