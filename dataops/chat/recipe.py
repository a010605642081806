"""From files to what training reads, in named steps: each a dataset that stands by itself and is taken where it stands.

    sft     <name>-messages, <name>-encoded, <name>    packed rows with targets
    pairs   <name>-read, <name>                        prompts with a chosen and a rejected reply
    thumbs  <name>-read, <name>                        prompts with a reply and a label
    tasks   <name>                                     prompts with what their scorer needs

The law: rows too long for `max_tokens` are in the ledger; none is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from gristmill.dataops.chat.encode import encode_chats, encode_pairs, encode_thumbs
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.chat.template import for_chat
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.pack import best_fit, check_seq_len
from gristmill.dataops.store import Store


def chat(store: Store, tokenizer: Dataset, template: str | None = None, *, name: str = "chat") -> Dataset:
    """The chat tokenizer of a tokenizer dataset; for `template` see `for_chat`."""
    return store.build(name, for_chat(tokenizer, template), [tokenizer])


def speaker(store: Store, reference: str, template: str | None = None) -> Dataset:
    """The chat tokenizer that a reference means: itself; that of a model; or <name>-chat, made here of a tokenizer, or
    of the tokenizer of a model that does not chat yet, and `template` (see `for_chat`). Raises InputError for other
    datasets, for a model whose tokenizer is not in the store, and for a template where there is one already."""
    given = store.get(reference)
    stats = given.manifest["stats"]
    plain = "eod_token" in stats
    if given.kind != "checkpoint" or not (plain or stats.get("tokenizer")):
        raise InputError(
            f"{reference} is of kind {given.kind} and no tokenizer: name a tokenizer, a chat tokenizer or a model"
        )
    if plain:
        return chat(store, given, template, name=f"{given.name}-chat")
    if stats.get("template") is None:
        own = _standing(store, reference, lambda item: item.digest == stats["tokenizer"])
        return chat(store, own, template, name=f"{own.name}-chat")
    if template is not None:
        raise InputError(
            f"{reference} speaks template {stats['template'][:12]} already: leave the template out, or name a tokenizer"
        )
    if {"vocab_size", "eod"} <= stats.keys():
        return given
    alike = {name: stats[name] for name in ("tokenizer", "template")}  # of a model trained here

    def same(item: Dataset) -> bool:
        known: dict[str, Any] = item.manifest["stats"]
        return item.kind == "checkpoint" and alike.items() <= known.items() and {"vocab_size", "eod"} <= known.keys()

    return _standing(store, reference, same)


def _standing(store: Store, reference: str, is_it: Callable[[Dataset], bool]) -> Dataset:
    found = next((item for item in store.all() if is_it(item)), None)
    if found is None:
        raise InputError(f"the tokenizer of {reference} is not under {store.root}: name one that is")
    return found


def sft(
    store: Store,
    paths: Sequence[str],
    chat: Dataset,
    *,
    seq_len: int,
    loss: Literal["assistant", "completion"] = "assistant",
    format: str | None = None,
    name: str = "sft",
) -> Dataset:
    """Conversations packed into rows of `seq_len` tokens, with targets; `format` is what the files have them in, None
    for what is detected (see `read_files`)."""
    check_seq_len(seq_len)
    read = read_files(store, f"{name}-messages", paths, "messages", format=format)
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
