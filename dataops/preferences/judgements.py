"""Judgements: one person's word about the replies to one prompt, in one row whatever it was asked as.

    pairwise   two replies; `value` [strength, 0] or [0, strength], [0, 0] is a tie
    ranking    two or more; `value` the ranks, 1 the best, equal ranks are ties
    rating     one or more; `value` the scores, of one `aspect` (null: of the whole)
    thumbs     one reply; `value` [1] or [0]
    edit       a reply and what a person made of it; `value` [0, 1]

`value` has a number per reply in the order in which they were shown, null for a reply without one; the whole is null
where the rater gave no judgement. The law: what was not judged stays null and counts nowhere. `item` is a hash of what
was judged and of the name that its source has for it, whatever the order of the replies, so that raters who saw them
swapped judged the same item. `replies` names each reply by its content: equal names are equal replies.

Not covered: spans inside a reply, and values that are no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from gristmill.dataops.chat.messages import MESSAGE, MESSAGES, Fault
from gristmill.dataops.dataset import InputError
from gristmill.dataops.identity import canonical_json, row_id

KINDS = ("pairwise", "ranking", "rating", "thumbs", "edit")
#: `at` is when it was said, in UTC; `source` and `line` are the file and the row in it, from 1.
JUDGEMENT: dict[str, pl.DataType] = {
    "id": pl.Binary(),
    "item": pl.Binary(),
    "prompt": MESSAGES,
    "responses": MESSAGES,
    "replies": pl.List(pl.Binary()),
    "rater": pl.String(),
    "kind": pl.String(),
    "aspect": pl.String(),
    "value": pl.List(pl.Float64()),
    "at": pl.Datetime("us", "UTC"),
    "tools": pl.String(),
    "source": pl.String(),
    "line": pl.UInt32(),
}
#: What pairs and agreement are made of; texts are looked up at the end.
NUMBERS = ("id", "item", "replies", "rater", "kind", "aspect", "value", "at")
_MESSAGES = pa.large_list(pa.struct([(field.name, pa.large_string()) for field in MESSAGE.fields]))
_LARGEST = 1e15  # of a value: whole numbers up to it are exact
_MOST = 64  # replies of one judgement: pairs grow with their square


def judgement(
    prompt: Sequence[Mapping[str, Any]],
    responses: Sequence[Mapping[str, Any]],
    kind: str,
    value: Sequence[float | None] | None,
    *,
    rater: str | None = None,
    aspect: str | None = None,
    at: Any = None,
    tools: str | None = None,
    given: str = "",
) -> dict[str, Any]:
    """The columns of a judgement but for `id`, `source` and `line`. `given` is the source's own name for the item.

    Messages as chat/shapes.py makes them. Raises Fault: "wrong_type" for a value, a time or a kind that is none,
    "no_replies" for fewer replies than the kind wants.
    """
    if kind not in KINDS:
        raise Fault("wrong_type", f"kind is {kind!r}; there are: {', '.join(KINDS)}")
    least, most = {"thumbs": (1, 1), "rating": (1, _MOST), "ranking": (2, _MOST)}.get(kind, (2, 2))
    if not least <= len(responses) <= most:
        raise Fault("no_replies", f"{len(responses)} replies; a {kind} is of {least} to {most}")
    replies = [reply_name(message) for message in responses]
    return {
        "item": item_name(prompt, replies, given),
        "prompt": list(prompt),
        "responses": list(responses),
        "replies": replies,
        "rater": rater,
        "kind": kind,
        "aspect": aspect,
        "value": None if value is None else _checked(value, kind, len(responses)),
        "at": _time(at),
        "tools": tools,
    }


def reply_name(message: Mapping[str, Any]) -> bytes:
    """16 bytes of a reply's content; space around it does not count."""
    said = {name: value for name, value in message.items() if value is not None}
    return row_id("reply", canonical_json({**said, "content": (said.get("content") or "").strip()}))


def item_name(prompt: Sequence[Mapping[str, Any]], replies: Sequence[bytes], given: str = "") -> bytes:
    """16 bytes of a prompt and the replies to it in any order, and of the name that the source gives the item."""
    said = [{name: value for name, value in message.items() if value is not None} for message in prompt]
    return row_id("item", given, canonical_json(said), *sorted(replies))


def frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Judgements as a frame; columns that a row lacks are null."""
    return pl.DataFrame({name: _column([row.get(name) for row in rows], kind) for name, kind in JUDGEMENT.items()})


def _column(values: list[Any], kind: pl.DataType) -> pl.Series:
    """A column; lists of messages by way of Arrow, which takes them several times as fast."""
    if kind != MESSAGES:
        return pl.Series(values, dtype=kind)
    return pl.Series(pl.from_arrow(pa.array(values, type=_MESSAGES))).cast(kind)


def check_columns(names: Sequence[str], where: str) -> None:
    """Raises InputError for rows that are no judgements."""
    missing = [name for name in NUMBERS if name not in names]
    if missing:
        raise InputError(
            f"{where} has no column {', '.join(missing)}: it holds no judgements; read them from files first"
        )


def _checked(value: Sequence[float | None], kind: str, count: int) -> list[float | None] | None:
    """The numbers of a value; None where there is none in it. Raises Fault."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise Fault("wrong_type", f"value is {value!r}, not a list of numbers")
    if len(value) != count:
        raise Fault("wrong_type", f"value has {len(value)} numbers for {count} replies")
    numbers: list[float | None] = []
    for number in value:
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise Fault("wrong_type", f"value has {number!r}, which is no number")
        if number is not None and not -_LARGEST <= number <= _LARGEST:
            raise Fault("wrong_type", f"value has {str(number)[:40]}; a number is from -1e15 to 1e15")
        numbers.append(None if number is None else float(number))
    there = [number for number in numbers if number is not None]
    if not there:
        return None
    if kind in ("pairwise", "edit") and (len(there) != 2 or min(there) != 0):
        raise Fault("wrong_type", f"value of a {kind} is {numbers}; one reply has 0, the other how much better it is")
    if kind == "thumbs" and there[0] not in (0, 1):
        raise Fault("wrong_type", f"value of a thumb is {there[0]:g}, neither 1 nor 0")
    if kind == "ranking" and min(there) < 1:
        raise Fault("wrong_type", f"a rank is {min(there):g}; the best is 1")
    return numbers


def _time(value: Any) -> datetime | None:
    """ISO 8601 or seconds since 1970; a time without a zone is UTC. Raises Fault."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Fault("wrong_type", f"time {value!r} is not in ISO 8601") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            raise Fault("wrong_type", f"time {value!r} is outside what seconds since 1970 can say") from None
    if not isinstance(value, datetime):
        raise Fault("wrong_type", f"time is a {type(value).__name__}, not ISO 8601 nor seconds")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
