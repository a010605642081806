"""Conversations as columns: one row per message, and the texts that everything else about a chat is measured on.

Chats are nested (a list of messages) and what cleans text is not. `turns` lays a frame's messages end to end, and the
op "sft.texts" gives each conversation the columns that the text ops of this project already read:

    text        all that is said by anybody, thoughts and tool calls too: language, decontamination, near-duplicates
    prompt      what the user says, all turns: near-duplicates of prompts, verifiers
    response    what the assistant says, all turns, without thoughts and calls: verifiers, perplexity

The law: the texts follow from the messages alone, whatever columns of these names were there, and `messages` stays as
it was. Not covered: system messages are in `text` only, for one system message in every row would make all rows alike.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.chat.messages import MESSAGE
from gristmill.dataops.dataset import InputError
from gristmill.dataops.op import op

_FIELDS = {field.name: field.dtype for field in MESSAGE.fields}
_ADDED = ("text", "prompt", "response")


@op("sft.texts", version=1)
def texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `text`, `prompt` and `response` (String, "" where nobody says anything), turns parted by an empty line, and
    `turns`, how many the assistant has (UInt32).

    What a row had under these names (a distilled one its response, a task its prompt) stands in the dataset before.
    Raises InputError without a column `messages`.
    """
    said = turns(frame).with_columns(
        all=pl.concat_str("reasoning_content", "content", "tool_calls", separator="\n", ignore_nulls=True)
    )
    asks, answers = pl.col("role") == "user", pl.col("role") == "assistant"
    by_row = said.group_by("row", maintain_order=True).agg(
        text=_joined(pl.col("all")),
        prompt=_joined(pl.col("content").filter(asks)),
        response=_joined(pl.col("content").filter(answers)),
        turns=answers.sum().cast(pl.UInt32),
    )
    found = frame.select(row=pl.int_range(pl.len(), dtype=pl.UInt32)).join(
        by_row, on="row", how="left", maintain_order="left"
    )
    return frame.with_columns(found.select(pl.col(_ADDED).fill_null(""), pl.col("turns").fill_null(0)))


def turns(frame: pl.DataFrame) -> pl.DataFrame:
    """The messages of a frame, one after the other: `row` in the frame and `at` in its conversation (UInt32, from 0),
    and the fields of MESSAGE, null where messages lack one; a null message is all nulls. Raises InputError."""
    if "messages" not in frame.columns or not isinstance(frame.schema["messages"], pl.List):
        raise InputError(f"there is no column `messages` with lists of messages; there are: {', '.join(frame.columns)}")
    numbered = frame.select(row=pl.int_range(pl.len(), dtype=pl.UInt32), messages="messages")
    there = numbered.filter(pl.col("messages").list.len() > 0)
    long = there.explode("messages").with_columns(at=pl.int_range(pl.len(), dtype=pl.UInt32).over("row"))
    kind = long.schema["messages"]
    have = {field.name: field.dtype for field in kind.fields} if isinstance(kind, pl.Struct) else {}
    columns = [
        pl.col("messages").struct.field(name).cast(dtype).alias(name)
        if name in have and have[name] != pl.Null
        else pl.lit(None, dtype).alias(name)
        for name, dtype in _FIELDS.items()
    ]
    return long.select("row", "at", *columns)


def answers(frame: pl.DataFrame) -> pl.DataFrame:
    """What the assistant says, turn by turn: `row`, `at`, `content`; without turns that say nothing."""
    said = turns(frame).filter(pl.col("role") == "assistant", pl.col("content").str.contains(r"\S"))
    return said.select("row", "at", "content")


def _joined(said: pl.Expr) -> pl.Expr:
    return said.filter(said != "").str.join("\n\n")
