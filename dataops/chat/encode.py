"""Conversations, pairs and judged replies to token ids, with what the loss counts.

All three are rendered by one template and encoded by one tokenizer (`render`, `tokens`): a reply in a pair has the ids
that the same reply has as the last turn of a conversation, behind the same prompt. The law: a row is encoded whole or
is in the ledger with a reason; nothing is cut to fit.

Reasons: "too_long" (value: its tokens, threshold: `max_tokens`), "no_targets" (nobody to learn from), "bad_roles" and
"empty" (see `messages`), "equal" (both replies of a pair are the same), "unrenderable" (the template refuses it, or it
has JSON that is none), "unspellable" (a character has no entry in the vocabulary, which would write a special token for
it; byte-complete ones have no such). A template that cannot say which text is the assistant's is no row's fault:
InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.chat.messages import Fault, as_messages, check, parsed, read
from gristmill.dataops.chat.render import LOSSES, Text, Unrenderable
from gristmill.dataops.chat.tokens import Chat, Chunk, opened
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Op, Split, ledger, op

_EVIDENCE = 300  # characters of it in the ledger


def encode_chats(chat: Dataset, *, max_tokens: int, loss: Literal["assistant", "completion"] = "assistant") -> Op:
    """`chat.encode` for a chat tokenizer. Raises InputError for a loss or a length that cannot be."""
    if loss not in LOSSES:
        raise InputError(f"no loss {loss!r}; there are: {', '.join(LOSSES)}")
    return chat_encode(**_identity(chat, max_tokens), loss=loss)


def encode_pairs(chat: Dataset, *, max_tokens: int) -> Op:
    """`pairs.encode` for a chat tokenizer."""
    return pairs_encode(**_identity(chat, max_tokens))


def encode_thumbs(chat: Dataset, *, max_tokens: int) -> Op:
    """`thumbs.encode` for a chat tokenizer."""
    return thumbs_encode(**_identity(chat, max_tokens))


def _identity(chat: Dataset, max_tokens: int) -> dict[str, Any]:
    stats = chat.manifest["stats"]
    if chat.kind != "checkpoint" or stats.get("template") is None:
        raise InputError(f"{chat.name} at {chat.path} is no chat tokenizer: make one with a template first")
    if max_tokens < 2:
        raise InputError(f"max_tokens {max_tokens} holds no conversation: give 2 or more")
    names = ("tokenizer", "template", "vocab_size", "eod")
    return {name: stats[name] for name in names} | {"max_tokens": max_tokens, "folder_context": chat.file("")}


@op("chat.encode", version=2)
def chat_encode(
    frame: pl.DataFrame,
    *,
    tokenizer: str,
    template: str,
    vocab_size: int,
    eod: int,
    max_tokens: int,
    loss: Literal["assistant", "completion"] = "assistant",
    folder_context: str,
) -> Split:
    """`messages` (and `tools`, JSON) to `tokens`, `targets` (True where the loss counts) and `n_tokens`.

    Targets are what the assistant says, in all turns or ("completion") in the last, each with the token that ends it.
    """
    chat = opened(folder_context, tokenizer + template)

    def rendered(row: dict[str, Any], name: str) -> Text:
        messages, tools = _conversation(row, "messages")
        if all(message["role"] != "assistant" for message in messages):
            raise Fault("no_targets", "no message of an assistant")
        text = chat.template.conversation(messages, tools, loss=loss, row=name)
        if not text.targets:
            raise Fault("no_targets", "the template writes nothing of what the assistant says")
        return text

    texts, drops = _each(frame, ["messages", "tools"], rendered)
    chunks: list[Chunk] = []
    flags: list[bool] = []
    counts = []
    for text in texts:
        bounds = [0, *(place for span in text.targets for place in span), len(text.text)]
        spans = list(zip(bounds[:-1], bounds[1:], strict=True))
        chunks += [(text, start, stop) for start, stop in spans]
        flags += [number % 2 == 1 for number in range(len(spans))]
        counts.append(len(spans))
    ids, begins, spelled = chat.encode(chunks)
    firsts = np.cumsum([0, *counts])
    whole = np.diff(np.cumsum([0, *~spelled])[firsts]) == 0
    ends = begins[firsts]  # of rows, in the run of all ids
    targets = np.repeat(np.array(flags, dtype=bool), np.diff(begins))
    flat = ids.astype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    lengths = np.diff(ends)
    rows = (
        frame.select("id")
        .filter(pl.Series(~drops.gone))
        .with_columns(
            tokens=_lists(flat, ends), targets=_lists(targets, ends), n_tokens=pl.Series(lengths, dtype=pl.UInt32)
        )
    )
    return _fitting(frame, rows, whole, drops, max_tokens)


@op("pairs.encode", version=2)
def pairs_encode(
    frame: pl.DataFrame,
    *,
    tokenizer: str,
    template: str,
    vocab_size: int,
    eod: int,
    max_tokens: int,
    folder_context: str,
) -> Split:
    """`prompt`, `chosen`, `rejected` (texts, or lists of messages) and `margin` to `prompt_ids`, `chosen_ids`,
    `rejected_ids`, `margin` and `n_tokens`: the prompt's with the longer reply's.

    Prompts end with what begins an assistant's turn, replies with the token that ends it.
    """
    chat = opened(folder_context, tokenizer + template)

    def rendered(row: dict[str, Any], name: str) -> tuple[Text, Text]:
        prompt, tools = _conversation(row, "prompt")
        chosen, rejected = _reply(row["chosen"], "chosen"), _reply(row["rejected"], "rejected")
        if chosen == rejected:
            raise Fault("equal", "chosen and rejected are the same")
        first, second = (chat.template.reply(prompt, reply, tools, row=name) for reply in (chosen, rejected))
        if first.text == second.text:
            raise Fault("equal", "chosen and rejected are the same as the template writes them")
        return first, second

    texts, drops = _each(frame, ["prompt", "chosen", "rejected", "tools"], rendered)
    prompts = [first for first, _ in texts]
    columns, whole = _encoded(chat, prompts, {"chosen_ids": prompts, "rejected_ids": [second for _, second in texts]})
    kept = frame.filter(pl.Series(~drops.gone))
    longer = pl.max_horizontal(pl.col("chosen_ids").list.len(), pl.col("rejected_ids").list.len())
    rows = (
        kept.select("id")
        .with_columns(columns)
        .with_columns(
            margin=kept["margin"].cast(pl.Float64) if "margin" in frame.columns else pl.lit(None, pl.Float64),
            n_tokens=(pl.col("prompt_ids").list.len() + longer).cast(pl.UInt32),
        )
    )
    return _fitting(frame, rows, whole, drops, max_tokens)


@op("thumbs.encode", version=2)
def thumbs_encode(
    frame: pl.DataFrame,
    *,
    tokenizer: str,
    template: str,
    vocab_size: int,
    eod: int,
    max_tokens: int,
    folder_context: str,
) -> Split:
    """`prompt`, `response` (texts, or lists of messages) and `label` to `prompt_ids`, `completion_ids`, `label` and
    `n_tokens`, of both together. See `pairs.encode`."""
    chat = opened(folder_context, tokenizer + template)

    def rendered(row: dict[str, Any], name: str) -> Text:
        prompt, tools = _conversation(row, "prompt")
        if row["label"] is None:
            raise Fault("empty", "no label")
        return chat.template.reply(prompt, _reply(row["response"], "response"), tools, row=name)

    texts, drops = _each(frame, ["prompt", "response", "label", "tools"], rendered)
    kept = frame.filter(pl.Series(~drops.gone))
    columns, whole = _encoded(chat, texts, {"completion_ids": texts})
    rows = kept.select("id").with_columns(columns)
    rows = rows.with_columns(
        label=kept["label"].cast(pl.Boolean),
        n_tokens=(pl.col("prompt_ids").list.len() + pl.col("completion_ids").list.len()).cast(pl.UInt32),
    )
    return _fitting(frame, rows, whole, drops, max_tokens)


class _Drops:
    """Rows that are gone, by position, each with its reason."""

    def __init__(self, height: int) -> None:
        self.gone = np.zeros(height, dtype=bool)
        self.found: list[tuple[int, str, str]] = []

    def add(self, at: int, reason: str, evidence: str) -> None:
        self.gone[at] = True
        self.found.append((at, reason, evidence[:_EVIDENCE]))

    def ledger(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Their ledger rows."""
        places, reasons, evidence = (
            (list(column) for column in zip(*self.found, strict=True)) if self.found else ([],) * 3
        )
        rows = frame.select("id")[places].with_columns(
            reason=pl.Series(reasons, dtype=pl.String), evidence=pl.Series(evidence, dtype=pl.String)
        )
        return ledger(rows)


def _each(
    frame: pl.DataFrame, names: Sequence[str], render: Callable[[dict[str, Any], str], Any]
) -> tuple[list[Any], _Drops]:
    """What `render` makes of each row's columns, and the rows that it refuses."""
    missing = [name for name in names if name not in frame.columns and name != "tools"]
    if missing:
        raise InputError(f"the rows have no column {', '.join(missing)}; they have {', '.join(frame.columns)}")
    columns = {name: frame[name].to_list() for name in names if name in frame.columns}
    made, drops = [], _Drops(frame.height)
    for at, (id, *values) in enumerate(zip(frame["id"].to_list(), *columns.values(), strict=True)):
        try:
            made.append(render(dict(zip(columns, values, strict=True)), f"row {id.hex()}"))
        except Fault as fault:
            drops.add(at, fault.reason, str(fault))
        except Unrenderable as error:
            drops.add(at, "unrenderable", str(error))
    return made, drops


def _conversation(row: dict[str, Any], name: str) -> tuple[list[dict[str, Any]], Any]:
    """The messages of a column, checked, and the tools. A prompt must want an answer."""
    messages = read(as_messages(row[name], "user"))
    check(messages)
    if name == "prompt" and messages[-1]["role"] not in ("user", "tool"):
        raise Fault("bad_roles", f"the prompt ends with {messages[-1]['role']!r}")
    return messages, parsed(row.get("tools"), "tools") or None


def _reply(value: Any, name: str) -> dict[str, Any]:
    """The one message of a reply."""
    messages = read(as_messages(value, "assistant"))
    if len(messages) != 1 or messages[0].get("role") != "assistant":
        if not messages:
            raise Fault("empty", f"{name} has no message")
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise Fault("bad_roles", f"{name} is of {roles}, and not one message of an assistant")
    content = messages[0]["content"]
    if not content.strip() and not messages[0].get("tool_calls"):
        raise Fault("empty", f"{name} has no text")
    return messages[0]


def _encoded(
    chat: Chat, prompts: Sequence[Text], replies: dict[str, Sequence[Text]]
) -> tuple[list[pl.Series], np.ndarray]:
    """`prompt_ids` and the ids of each reply as columns; and which rows are spelled, bool[n]."""
    chunks: list[Chunk] = [(text, 0, text.targets[0][0]) for text in prompts]
    for texts in replies.values():
        chunks += [(text, *text.targets[0]) for text in texts]
    ids, bounds, spelled = chat.encode(chunks)
    columns = []
    for number, name in enumerate(["prompt_ids", *replies]):
        ends = bounds[number * len(prompts) : (number + 1) * len(prompts) + 1]
        columns.append(_lists(ids[ends[0] : ends[-1]], ends - ends[0]).alias(name))
    return columns, np.logical_and.reduce(spelled.reshape(1 + len(replies), len(prompts)))


def _lists(values: np.ndarray, ends: np.ndarray) -> pl.Series:
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(ends.astype(np.int64)), pa.array(values))))


def _fitting(frame: pl.DataFrame, rows: pl.DataFrame, whole: np.ndarray, drops: _Drops, max_tokens: int) -> Split:
    """The rows that are spelled `whole` and of at most `max_tokens`; the others go to the ledger with the rest."""
    spelled = pl.Series(whole)
    wild = ledger(rows.filter(~spelled).select("id"), reason="unspellable")
    rows = rows.filter(spelled)
    long = rows.filter(pl.col("n_tokens") > max_tokens)
    over = ledger(long.select("id", "n_tokens"), reason="too_long", value=pl.col("n_tokens"), threshold=max_tokens)
    return Split(rows.filter(pl.col("n_tokens") <= max_tokens), pl.concat([drops.ledger(frame), wild, over]))
