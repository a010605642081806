"""From files to what training reads, in named steps: each a dataset that stands by itself and is taken where it stands.

    sft     <name>-messages, <name>-encoded, <name>    packed rows with targets
    pairs   <name>-read, <name>                        prompts with a chosen and a rejected reply
    thumbs  <name>-read, <name>                        prompts with a reply and a label
    tasks   <name>                                     prompts with what their scorer needs

The law: rows too long for `max_tokens` are in the ledger; none is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gristmill.dataops.chat.encode import encode_chats, encode_pairs, encode_thumbs
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.chat.template import for_chat
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.pack import best_fit, check_seq_len
from gristmill.dataops.store import Store


def chat(store: Store, tokenizer: Dataset, template: str | None = None, *, name: str = "chat") -> Dataset:
    """The chat tokenizer of a tokenizer dataset; for `template` see `for_chat`."""
    return store.build(name, for_chat(tokenizer, template), [tokenizer])


def sft(
    store: Store,
    paths: Sequence[str],
    chat: Dataset,
    *,
    seq_len: int,
    loss: Literal["assistant", "completion"] = "assistant",
    name: str = "sft",
) -> Dataset:
    """Conversations packed into rows of `seq_len` tokens, with targets."""
    check_seq_len(seq_len)
    read = read_files(store, f"{name}-messages", paths, "messages")
    encoded = store.build(f"{name}-encoded", encode_chats(chat, max_tokens=seq_len, loss=loss), [read])
    stats = chat.manifest["stats"]
    identity = {key: stats[key] for key in ("tokenizer", "template", "vocab_size", "eod")}
    return store.build(name, best_fit(seq_len=seq_len, **identity), [encoded])


def pairs(store: Store, paths: Sequence[str], chat: Dataset, *, max_tokens: int, name: str = "pairs") -> Dataset:
    """Preference pairs, encoded."""
    read = read_files(store, f"{name}-read", paths, "pairs")
    return store.build(name, encode_pairs(chat, max_tokens=max_tokens), [read])


def thumbs(store: Store, paths: Sequence[str], chat: Dataset, *, max_tokens: int, name: str = "thumbs") -> Dataset:
    """Judged replies, encoded."""
    read = read_files(store, f"{name}-read", paths, "thumbs")
    return store.build(name, encode_thumbs(chat, max_tokens=max_tokens), [read])


def tasks(store: Store, paths: Sequence[str], *, name: str = "tasks") -> Dataset:
    """Tasks for training with a scorer: not encoded, since the model at training does that."""
    return read_files(store, name, paths, "tasks")
