"""Dialogues as a list of turns, or as one text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gristmill.dataops.chat.formats.canonical import Made, as_tools, call, talk, turn, words
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import SHAPES, Row

#: Who speaks, as ShareGPT's exports and the sets in their form name them.
ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant", "model", "bot"), "assistant"),
    "system": "system",
    **dict.fromkeys(("function_call", "function-call", "tool_call"), "calls"),
    **dict.fromkeys(("observation", "function_response", "function-response", "tool_response", "tool"), "tool"),
}
_WEIGHTS = ("weight", "loss", "train")
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def messages(row: Row) -> Made:
    """OpenAI's: messages [, tools]. Taken as they are; who may speak when, the encoder says."""
    if row.get("functions") and not row.get("tools"):
        raise Fault("wrong_type", "functions is the form before tools: write it as those")
    return [SHAPES["messages"].make(row)]


def sharegpt(row: Row) -> Made:
    """ShareGPT: conversations of from and value (or role and content) [, system] [, tools]; see ROLES."""
    found = row["conversations"] if row.get("conversations") is not None else row.get("conversation")
    if not isinstance(found, list):
        raise Fault("missing_column", f"no list of conversations; there is {', '.join(map(str, row)) or 'nothing'}")
    turns = [turn("system", system)] if (system := words(row, "system", optional=True)).strip() else []
    turns += [_turn(item, f"turn {number}") for number, item in enumerate(found, 1)]
    return [talk(turns, row, tools=as_tools(row.get("tools")))]


def _turn(item: Any, name: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise Fault("wrong_type", f"{name} is a {type(item).__name__}, not an object")
    who, text = ("from", "value") if item.get("from") is not None else ("role", "content")
    try:
        said, content = words(item, who), words(item, text)
    except Fault as fault:
        raise Fault(fault.reason, f"{name}: {fault}") from None
    role = ROLES.get(said.strip().lower())
    if role is None:
        raise Fault("bad_roles", f"{name} is of {said!r}; known are {', '.join(ROLES)}")
    weight = next((key for key in _WEIGHTS if item.get(key) is not None and item[key] != 1), None)
    if role in ("assistant", "calls") and weight is not None:
        raise Fault("weighted", f"{weight} of {name} is {item[weight]!r}: weights of turns are not covered")
    if role != "calls":
        return turn(role, content)
    return turn("assistant", None, tool_calls=json.dumps(_calls(content, name), ensure_ascii=False))


def _calls(text: str, name: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Fault("wrong_type", f"{name}, a call, is no JSON: {error}") from None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in calls):
        raise Fault("wrong_type", f"{name}, a call, does not name a function")
    return [call(item["name"], item.get("arguments", {})) for item in calls]


def lima(row: Row) -> Made:
    """LIMA: conversations, texts by user and assistant in turns; UltraChat has them in data."""
    name = "conversations" if row.get("conversations") is not None else "data"
    return [talk(_alternating(row.get(name), name), row)]


def _alternating(found: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise Fault("wrong_type" if found is not None else "missing_column", f"{name} is no list of texts")
    return [turn("assistant" if at % 2 else "user", text) for at, text in enumerate(found)]


def hh(row: Row) -> Made:
    """Anthropic's transcripts: text, transcript, or the chosen side of a pair, as "\\n\\nHuman: ..." and
    "\\n\\nAssistant: ...". The white space around a turn is the transcript's."""
    name = next((name for name in ("text", "transcript", "chosen") if row.get(name) is not None), "text")
    before, *parts = _SPEAKER.split(words(row, name))
    if before.strip():
        raise Fault("bad_roles", f"{name} begins with {before.strip()[:40]!r}, and not with Human:")
    said = zip(parts[::2], parts[1::2], strict=True)
    return [talk([turn("user" if who == "Human" else "assistant", text.strip()) for who, text in said], row)]


def mt_bench(row: Row) -> Made:
    """MT-Bench: questions with the answers of their reference. Questions without one have nothing to learn from, and
    answers alone, in choices, no question."""
    if row.get("choices") is not None and row.get("turns") is None:
        raise Fault("no_prompt", "answers alone: their questions are in another file")
    questions, answers = _alternating(row.get("turns"), "turns"), row.get("reference")
    if answers is None:
        raise Fault("no_targets", f"{len(questions)} questions without a reference")
    if not isinstance(answers, list) or len(answers) != len(questions) or not all(isinstance(a, str) for a in answers):
        raise Fault("wrong_type", f"reference is no list of {len(questions)} texts")
    pairs = zip(questions, answers, strict=True)
    turns = [item for asked, said in pairs for item in (turn("user", asked["content"]), turn("assistant", said))]
    return [talk(turns, row)]
