"""An example as the JSON object that a service reads. What goes in is what `hosted_check.check` has passed.

Nothing is lost: a weight of 1, the name of a function beside its result, `strict` where only OpenAI knows it, and a
system message under its other name (`developer`) say nothing that the line does not say. Mistral's call ids must be
nine letters and digits, so others are replaced, the same way in call and result.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from gristmill.dataops.export.hosted_forms import Form
from gristmill.dataops.export.hosted_rows import Example, Message, Refused, loads

SYSTEM = ("system", "developer")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def shape(example: Example, form: Form) -> dict[str, Any]:
    """The line. Raises Refused where the grader's fields do not fit."""
    if form.shape == "gemini":
        return _gemini(example, form)
    if form.shape == "converse":
        return _converse(example)
    conversation: dict[str, Any] = {"messages": [_chat(message, form) for message in example.messages]}
    if example.tools:
        conversation["tools"] = [_function(tool, form) for tool in example.tools]
    if form.stage == "sft":
        return conversation
    if example.outputs is not None:
        chosen, rejected = ([_chat(message, form)] for message in example.outputs)
        return {"input": conversation, "preferred_output": chosen, "non_preferred_output": rejected}
    return {**conversation, **_graded(example, form)}


def line(example: Example, form: Form) -> bytes:
    """The line as UTF-8 with its newline; characters that some readers take for an end of line are escaped."""
    text = json.dumps(shape(example, form), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "\u0085\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")  # they can only stand inside a string
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        raise Refused("not_unicode", "half of a surrogate pair") from None


def _chat(message: Message, form: Form) -> Message:
    made: Message = {"role": form.system_role if message["role"] in SYSTEM else message["role"]}
    if "content" in message and (form.content_with_calls or "tool_calls" not in message):
        made["content"] = message["content"]
    if "tool_calls" in message:
        made["tool_calls"] = [{**call, "id": _id(call["id"], form)} for call in message["tool_calls"]]
    if message["role"] == "tool":
        made["tool_call_id"] = _id(message["tool_call_id"], form)
    elif "name" in message:
        made["name"] = message["name"]
    if form.weights and "weight" in message:
        made["weight"] = message["weight"]
    return made


def _id(id: str, form: Form) -> str:
    if form.call_id is None or re.fullmatch(form.call_id, id) is not None:
        return id
    number = int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return "".join(_DIGITS[number // 62**place % 62] for place in range(9))


def _function(tool: dict[str, Any], form: Form) -> dict[str, Any]:
    function = {name: value for name, value in tool["function"].items() if name != "strict" or form.strict_tools}
    full = {"description": "", "parameters": {}} if form.tools_full else {}
    return {**tool, "function": {**function, **{name: function.get(name, value) for name, value in full.items()}}}


def _graded(example: Example, form: Form) -> dict[str, Any]:
    """The grader's fields; the only one, or the one called `gold`, takes the name that the service asks for."""
    fields = example.fields
    if form.answer is None or form.answer in fields:
        return fields
    name = "gold" if "gold" in fields else next(iter(fields))
    if name != "gold" and len(fields) > 1:
        raise Refused("no_grader_field", f"{form.answer} or gold; there are {', '.join(fields)}")
    return {form.answer: fields[name], **{other: value for other, value in fields.items() if other != name}}


def _gemini(example: Example, form: Form) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if example.messages[0]["role"] in SYSTEM:
        system = "system_instruction" if form.stage == "dpo" else "systemInstruction"  # as the two pages have it
        made[system] = {"parts": [{"text": example.messages[0]["content"]}]}
    contents: list[dict[str, Any]] = []
    for before, message in zip([None, *example.messages], example.messages, strict=False):
        if message["role"] in SYSTEM:
            continue
        content = _content(message)
        if before is not None and before["role"] == message["role"] == "tool":
            contents[-1]["parts"] += content["parts"]  # the results of one turn's calls are one turn
        else:
            contents.append(content)
    made["contents"] = contents
    if example.tools:
        functions = [_function(tool, form)["function"] for tool in example.tools]
        made["tools"] = [{"functionDeclarations": functions}]
    if example.outputs is not None:
        scored = zip((1, 0), example.outputs, strict=True)
        made["completions"] = [{"score": score, "completion": _content(output)} for score, output in scored]
    if form.stage == "rft":
        made["references"] = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
            for name, value in example.fields.items()
        }
    return made


def _content(message: Message) -> dict[str, Any]:
    if message["role"] == "tool":
        result = {"name": message["name"], "response": {"output": message["content"]}}
        return {"role": "user", "parts": [{"functionResponse": result}]}
    parts: list[dict[str, Any]] = [{"text": message["content"]}] if message.get("content", "").strip() else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = loads(function["arguments"], "bad_arguments")
        parts.append({"functionCall": {"name": function["name"], "args": arguments}})
    return {"role": "model" if message["role"] == "assistant" else "user", "parts": parts}


def _converse(example: Example) -> dict[str, Any]:
    made: dict[str, Any] = {"schemaVersion": "bedrock-conversation-2024"}
    messages = example.messages
    if messages[0]["role"] in SYSTEM:
        made["system"] = [{"text": messages[0]["content"]}]
        messages = messages[1:]
    made["messages"] = [{"role": message["role"], "content": [{"text": message["content"]}]} for message in messages]
    return made
