"""Judgements out of chat logs and out of files that hold judgements as they are.

A log is a conversation with thumbs: on the whole record, which judges the last reply, or on single messages, each of
which judges that reply behind what came before it. A message that says what it should have been is an edit. The law: a
reply nobody judged makes no judgement, and one that was judged makes one for each thumb and each edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.preferences.judgements import judgement
from gristmill.dataops.preferences.turns import (
    Given,
    Messages,
    Row,
    asked,
    conversation,
    first,
    objects,
    replied,
    reply,
)

Found = Iterator[dict[str, Any] | Fault]
_UP = ("up", "thumbs_up", "thumbsup", "like", "liked", "good", "positive", "true", "yes", "👍", "1")
_DOWN = ("down", "thumbs_down", "thumbsdown", "dislike", "disliked", "bad", "negative", "false", "no", "👎", "0", "-1")
_THUMB = ("label", "thumb", "thumbs", "feedback", "rating", "vote", "annotation")
_EDIT = ("edited", "edit", "correction", "corrected")
_RATER = ("rater", "user_id", "user", "annotator")
_AT = ("at", "created_at", "timestamp", "updated_at")


def thumbs(row: Row, given: Given) -> Found:
    """`messages` (or `conversations`, or `prompt` with `response` or `completion`) with a thumb: `label`, `thumb`,
    `feedback`, `rating` or `vote` (true and false, 1 and 0 or -1, "up" and "down"; an object may hold it as `rating`),
    on the record or on its messages; `edited` on a message is what a person made of it."""
    listed = first(row, "messages", "conversations")
    if listed is None or first(row, "response", "completion") is not None:
        prompt = asked(row)
        said = reply(first(row, "response", "completion"), "response")
        yield from _judged(row, prompt, said, row, given)
        return
    listed, found = objects(listed, "messages"), 0
    for number, item in enumerate(listed, 1):
        if _role(item) == "assistant" and first(item, *_THUMB, *_EDIT) is not None:
            found += 1
            prompt, said = replied([_bare(one) for one in listed[:number]], "messages")
            yield from _judged(item, prompt, said, row, given)
    if first(row, *_THUMB, *_EDIT) is not None or not found:
        prompt, said = replied([_bare(one) for one in listed], "messages")
        yield from _judged(row, prompt, said, row, given)


def judged(row: Row, given: Given) -> Found:
    """Judgements as they are: `prompt`, `responses`, `kind`, `value` (see judgements.py) and where it is known `rater`,
    `aspect`, `at`, `tools` and `item`, the name of what was judged."""
    replies = row.get("responses")
    if not isinstance(replies, list):
        raise Fault("missing_column", f"no list of responses; there is {', '.join(map(str, row))}")
    said = [reply(item, f"response {number}") for number, item in enumerate(replies, 1)]
    name = row.get("item")
    if name is not None and not isinstance(name, str | int):
        raise Fault("wrong_type", f"item is {name!r}, not a name")
    tools = row.get("tools")
    if tools is not None and not isinstance(tools, str):
        raise Fault("wrong_type", "tools is not JSON text")
    texts = {key: row.get(key) for key in ("rater", "aspect")}
    for key, text in texts.items():
        if text is not None and not isinstance(text, str | int):
            raise Fault("wrong_type", f"{key} is {text!r}, not a name")
    rater = given.rater if texts["rater"] is None else str(texts["rater"])
    aspect = None if texts["aspect"] is None else str(texts["aspect"])
    yield judgement(asked(row, ("prompt",)), said, row.get("kind") or "", row.get("value"), rater=rater, aspect=aspect,
                    at=row.get("at"), tools=tools, given="" if name is None else str(name))  # fmt: skip


def _judged(marked: Row, prompt: Messages, said: dict[str, Any], row: Row, given: Given) -> Found:
    """The thumb and the edit that a message or a record has."""
    rater = first(marked, *_RATER) or first(row, *_RATER)
    who = given.rater if rater is None or isinstance(rater, Mapping) else str(rater)
    common: dict[str, Any] = {"rater": who, "at": first(marked, *_AT) or first(row, *_AT)}
    name = first(row, "conversation_id", "chat_id", "id")
    common["given"] = "" if name is None else f"chat {name}"
    edited = first(marked, *_EDIT)
    if edited is not None:
        yield judgement(prompt, [said, reply(edited, "edited")], "edit", [0, 1], **common)
    thumb = first(marked, *_THUMB)
    if thumb is not None or edited is None:
        yield judgement(prompt, [said], "thumbs", _thumb(thumb), **common)


def _thumb(value: Any) -> list[float] | None:
    """[1] or [0]; None for no thumb, or one that was taken back. Raises Fault."""
    if isinstance(value, Mapping):
        value = first(value, "rating", "thumb", "value", "label")
    if value is None or value == "":
        return None
    spelled = str(value).strip().lower().removesuffix(".0")
    if spelled in _UP:
        return [1.0]
    if spelled in _DOWN:
        return [0.0]
    raise Fault("wrong_type", f"a thumb is {value!r}, neither up nor down")


def _role(item: Row) -> str:
    found = conversation([{**_bare(item), "content": item.get("content") or item.get("value") or "-"}], "messages")
    role = found[0]["role"]
    return role if isinstance(role, str) else ""


def _bare(item: Row) -> dict[str, Any]:
    """A message without what was said about it."""
    return {name: value for name, value in item.items() if name not in (*_THUMB, *_EDIT, *_RATER, *_AT)}
