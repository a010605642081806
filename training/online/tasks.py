"""Tasks to practise on: rows with a `prompt` of messages, and whatever columns their scorers need.

The laws: a prompt that leaves no room for the answer is left out and counted, never cut; a row without a prompt, or
whose prompt the template refuses, is named; prompts are rendered as engines render them, so that a message cannot write
the template's special tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.engines.prompts import Prompts

Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class Tasks:
    """The tasks of a dataset that fit: all their columns, their conversations, and the token ids of their prompts.
    `too_long` were left out."""

    dataset: Dataset
    table: pa.Table
    conversations: list[Conversation]
    prompts: list[list[int]]
    too_long: int

    @property
    def name(self) -> str:
        """What it is called in statistics."""
        return f"{self.dataset.name}:{self.dataset.digest[:12]}"

    def row(self, number: int) -> dict[str, Any]:
        """All columns of one task."""
        return self.table.slice(number, 1).to_pylist()[0]


def open_tasks(dataset: Dataset, tokenizer: Any, room: int) -> Tasks:
    """The tasks whose prompts have at most `room` tokens. Raises InputError for no tasks, where none fits, and
    for one whose prompt cannot be rendered."""
    where = f"{dataset.name} at {dataset.path}"
    if dataset.base.kind != "rows":
        raise InputError(f"{where} is of kind {dataset.base.kind!r}; tasks are 'rows'")
    if not dataset.rows:
        raise InputError(f"{where} has no tasks")
    names = dataset.schema().names
    if missing := [name for name in ("id", "prompt") if name not in names]:
        raise InputError(f"{where} has no column {missing[0]!r} (it has {', '.join(names)}): a task has id and prompt")
    dataset.base.check_files()
    table = pa.concat_tables([shard.read(None) for shard in dataset.shards()])
    conversations, prompts = _rendered(tokenizer, table, where)
    fits = [n for n, ids in enumerate(prompts) if len(ids) <= room]
    if not fits:
        raise InputError(
            f"{where}: none of {len(prompts):,} prompts has at most {room:,} tokens, which is what the model's window "
            "leaves beside max_tokens: lower max_tokens, or shorten the prompts"
        )
    return Tasks(
        dataset,
        table.take(pa.array(fits, pa.int64())),
        [conversations[n] for n in fits],
        [prompts[n] for n in fits],
        len(prompts) - len(fits),
    )


def _rendered(tokenizer: Any, table: pa.Table, where: str) -> tuple[list[Conversation], list[list[int]]]:
    """The prompts as the template takes them, and their token ids up to where the answer begins."""
    from jinja2 import TemplateError

    prompts = Prompts(tokenizer.name_or_path)  # the folder that it was loaded from
    taken, texts = [], []
    for number, conversation in enumerate(_conversations(table, where)):
        try:
            texts.append(prompts.text(conversation))
        except TemplateError as error:
            name = table["id"][number].as_py().hex()
            raise InputError(
                f"{where}: row {number} (id {name}): the chat template refuses its messages: {error}"
            ) from None
        taken.append(prompts.messages(conversation))
    return taken, prompts.encode(texts)


def _conversations(table: pa.Table, where: str) -> list[Conversation]:
    kind = table.schema.field("prompt").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    fields = {kind.value_type.field(n).name for n in range(kind.value_type.num_fields)} if lists else set()
    if not {"role", "content"} <= fields:
        raise InputError(f"{where}: prompt is {kind}; a list of messages {{role, content}} is wanted")
    lengths = pc.fill_null(pc.list_value_length(table["prompt"]), 0)
    empty = pc.indices_nonzero(pc.equal(lengths, 0))
    conversations = [
        [{"role": turn["role"], "content": turn["content"]} for turn in turns or []]
        for turns in table["prompt"].to_pylist()
    ]
    bad = next((n for n, turns in enumerate(conversations) if any(None in turn.values() for turn in turns)), None)
    number = empty[0].as_py() if len(empty) else bad
    if number is not None:
        name = table["id"][number].as_py()
        raise InputError(f"{where}: row {number} (id {name.hex()}) has no prompt, or a message without role or content")
    return conversations
