"""Who is asked about conversations, so that the best can be chosen: a language model, or a scorer.

    choice = Choice(1_000, "ifd")
    numbers = by_model(store, "model@promoted", chat, choice, name="sft")      # perplexities and IFD, or embeddings
    numbers = by_scores(store, by_json(store, "judge.json"), name="sft")
    sft_set(store, chats, chat, choice=choice, numbers=numbers)

A model reads <name>-legible, the conversations encoded for it. <name>-described is what it finds of them (see
training/describe.py), <name>-numbered the conversations with that beside them; for a choice by IFD only those whose
instruction is of help.

The law: which model, and with which template it read, is in the manifests. Not covered: several models at once.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from gristmill.dataops.chat.encode import encode_chats
from gristmill.dataops.chat.recipe import speaker
from gristmill.dataops.dataset import Dataset, InputError, is_remote
from gristmill.dataops.executor import InProcess
from gristmill.dataops.op import Op
from gristmill.dataops.sft.beside import numbers, score
from gristmill.dataops.sft.build import Choice, Numbers
from gristmill.dataops.sft.scores import ifd, within
from gristmill.dataops.store import Store
from gristmill.flows.sets.scored import By
from gristmill.flows.train import named, train

MADE = ("perplexity", "perplexity_given_prompt", "ifd", "embedding")
#: Tokens of a conversation for a model that does not say how many it can read.
_LONGEST = 1 << 20


def by_model(store: Store, reference: str, chat: Dataset, choice: Choice, *, name: str) -> Numbers:
    """A model that reads the conversations by its own template; one that has none, by that of `chat`, if it is of its
    tokenizer. Raises InputError for what is no model here."""
    model = store.get(reference)
    if model.kind != "checkpoint" or is_remote(model.path) or not Path(model.file("config.json")).is_file():
        raise InputError(f"{reference} holds no model that can read conversations here: name a checkpoint")
    stats = model.manifest["stats"]
    like = stats.get("template") is None and stats.get("tokenizer") == chat.manifest["stats"]["tokenizer"]
    own = chat if like else speaker(store, reference)
    window = json.loads(Path(model.file("config.json")).read_text()).get("max_position_embeddings") or _LONGEST
    vectors = choice.goes[1] == "embedding"
    columns = ["perplexity", "perplexity_given_prompt", *(["embedding"] if vectors else [])]
    adding: list[Op] = [numbers(columns=columns), ifd()]
    if choice.goes[1] == "ifd":
        adding.append(within(column="ifd", max_score=1.0))

    def add(chats: Dataset) -> Dataset:
        legible = store.build(f"{name}-legible", encode_chats(own, max_tokens=window), [chats])
        if not legible.rows:
            raise InputError(f"{name}: {model.name} can read none of {chats.rows:,} conversations: see {legible.name}")
        spec = {"data": named(legible), "model": named(model), "embedding": vectors, "name": f"{name}-described"}
        if own.digest != model.digest:
            spec["tokenizer"] = named(own)
        described = Dataset.load(train("describe", store, spec)["path"])
        return store.build(f"{name}-numbered", adding, [chats, described, legible])

    return Numbers(MADE if vectors else MADE[:-1], add)


def by_scores(store: Store, by: By, *, name: str) -> Numbers:
    """Whoever scores responses: each conversation's last answer gets a `score`."""

    def add(chats: Dataset) -> Dataset:
        # A copy, so that it moves the tags of the same run.
        own = dataclasses.replace(store, executor=store.executor if by.spread else InProcess())
        adding = score(scorer=dict(by.identity), scoring_context=by.scoring)
        return own.build(f"{name}-numbered", adding, [chats])

    return Numbers(("score",), add)
