"""A task put to a model: its prompts, the responses, what scorers say of them, what the model itself says of them.

The laws: the same prompts are asked in whatever order and shards the rows stand, those with the lowest ids (which are
hashes) where there is a limit; a response that nobody judged keeps its reason and is never a 0; one row on which a
scorer fails takes no other with it. Not covered: turns after the first response.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.engines.prompts import Conversation, Prompts, Replying, as_messages
from gristmill.training.evaluation.likelihood import Reader, Sums, padded, read
from gristmill.training.evaluation.spec import Task
from gristmill.training.scoring import Score, Scoring

SCORED = 64  # responses scored at a time
BATCH_TOKENS = 4_096
TOO_LONG = "prompt_too_long"
_FAILED = "scorer_failed"

Tokens = list[list[list[int] | None]]  # by prompt and sample; None where there is no response


@dataclass(frozen=True)
class Asked:
    """Task rows (with `id` and `prompt`), their conversations, and the responses to each, in the order of the ids.
    `cut` says of each response whether `max_tokens` ended it; None where there is none, or the engine does not say."""

    rows: list[dict[str, Any]]
    conversations: list[Conversation]
    responses: list[list[str | None]]
    cut: list[list[bool | None]]


def read_task(task: Task, data: Dataset) -> tuple[list[dict[str, Any]], list[Conversation]]:
    """The rows that are asked and their conversations. Raises InputError naming the row that has no prompt."""
    if data.kind not in ("rows", "view") or data.base.kind != "rows":
        raise InputError(
            f"task {task.name}: {data.path} is a dataset of {data.base.kind}; a task is rows with a prompt"
        )
    if not data.rows:
        raise InputError(f"task {task.name}: {data.path} has no rows")
    schema = data.schema()
    if missing := [name for name in ("id", "prompt") if name not in schema.names]:
        raise InputError(
            f"task {task.name}: {data.path} has no column {missing[0]!r}; it has {', '.join(schema.names)}"
        )
    rows = [row for batch in data.batches(4_096) for row in batch.to_pylist()]
    rows = sorted(rows, key=lambda row: row["id"])[: task.limit]
    return rows, [as_messages(row["prompt"], f"task {task.name}: {data.path}, row {row['id'].hex()}") for row in rows]


def ask(task: Task, data: Dataset, engine: Replying, seed: int) -> Asked:
    """`samples` responses to each prompt, one seed per sample; None for a prompt that does not fit the model."""
    rows, conversations = read_task(task, data)
    asked = Asked(rows, conversations, [[] for _ in rows], [[] for _ in rows])
    for sample in range(task.samples):
        started = time.monotonic()
        replies = engine.replies(
            conversations, max_tokens=task.max_tokens, temperature=task.temperature, seed=seed + sample
        )
        for place, reply in enumerate(replies):
            asked.responses[place].append(None if reply is None else reply.text)
            known = reply is not None and reply.finish is not None
            asked.cut[place].append(reply.finish == "length" if known and reply is not None else None)
        took = time.monotonic() - started
        told = f"{task.name}: sample {sample + 1} of {task.samples}, {len(replies):,} responses in {took:.1f} s"
        print(told, file=sys.stderr, flush=True)
    return asked


def score(scoring: Scoring, rows: Sequence[Mapping[str, Any]], responses: Sequence[str | None]) -> list[Score]:
    """One score per response; where a scorer fails over many rows they are scored one by one."""
    found: list[Score] = [Score(None, TOO_LONG)] * len(rows)
    there = [(place, response) for place, response in enumerate(responses) if response is not None]
    for start in range(0, len(there), SCORED):
        part = there[start : start + SCORED]
        told = scoring([rows[place] for place, _ in part], [response for _, response in part])
        if len(part) > 1 and all(item.score is None and item.reason.startswith(_FAILED) for item in told):
            told = [scoring([rows[place]], [response])[0] for place, response in part]
        for (place, _), item in zip(part, told, strict=True):
            found[place] = item
    return found


def encoded(prompts: Prompts, asked: Asked) -> tuple[list[list[int]], Tokens]:
    """Token ids of the prompts as they are asked, and of the responses. A response's ids are those of its text, which a
    model may have written in other pieces."""
    rendered = prompts.encode([prompts.text(conversation) for conversation in asked.conversations])
    found: Tokens = []
    for responses in asked.responses:
        ids = iter(prompts.encode([response for response in responses if response is not None]))
        found.append([None if response is None else next(ids) for response in responses])
    return rendered, found


def ended(responses: Tokens, cut: Sequence[Sequence[bool | None]], end: int | None) -> Tokens:
    """With the token that ends a turn, which the model chose too, where a response was not cut."""
    return [
        [
            None if ids is None else ids if was_cut is not False or end is None else [*ids, end]
            for ids, was_cut in zip(*pair, strict=True)
        ]
        for pair in zip(responses, cut, strict=True)
    ]


def likelihoods(
    prompts: Sequence[list[int]], responses: Tokens, model: Reader, reference: Reader | None
) -> list[list[Sums | None]]:
    """What the model says of its own responses, each alone; None where there is none, or it has no tokens."""
    found: list[list[Sums | None]] = [[None] * len(samples) for samples in responses]
    places = [(i, j) for i, samples in enumerate(responses) for j, tokens in enumerate(samples) if tokens]
    lengths = {(i, j): len(prompts[i]) + len(responses[i][j] or []) for i, j in places}
    places.sort(key=lambda place: (-lengths[place], place))
    start = 0
    while start < len(places):
        rows = max(1, BATCH_TOKENS // lengths[places[start]])
        part = places[start : start + rows]
        batch = padded([prompts[i] for i, _ in part], [responses[i][j] or [] for i, j in part], 0)
        sums = read(model, *batch, reference)
        for row, (i, j) in enumerate(part):
            columns = {name: column[row : row + 1] for name, column in sums.columns.items()}
            found[i][j] = Sums(sums.targets[row : row + 1], columns)
        start += rows
    return found


def total(samples: Sequence[Sums | None], name: str | None) -> float:
    """A sum over the responses to one prompt; of the targets where no column is named."""
    there = [item for item in samples if item is not None]
    return float(np.sum([item.targets[0] if name is None else item.columns[name][0] for item in there]))
