"""Preferences for tests: pairs and thumbs over tinychat's words, in which replies of even words are the better ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tinychat import PLAIN

from gristmill.dataops.dataset import Dataset, publish_rows, row_id
from gristmill.training.checkpoint import building

FIRST = 6  # the number of the first word in tinychat's vocabulary
LISTS = pa.list_(pa.uint32())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Threads only cost at this size, and a lot where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def replies(count: int, *, seed: int = 0, words: int = 32, longest: int = 6, start: int = 0) -> list[tuple]:
    """(prompt, chosen, rejected) as token ids: a chosen reply has even words only, a rejected one odd words. The prompt
    says its number in base `words`, so prompts of other ranges of `start` are other prompts."""
    rng = np.random.default_rng([seed, start])
    out = []
    for number in range(start, start + count):
        digits = [number // words % words, number % words]
        prompt = [1, 4, *(FIRST + digit for digit in digits), 2, 1, 5]
        chosen, rejected = (
            [*(FIRST + 2 * rng.integers(words // 2, size=rng.integers(2, longest + 1)) + odd), 2] for odd in (0, 1)
        )
        out.append((prompt, [int(t) for t in chosen], [int(t) for t in rejected]))
    return out


def pairs(
    root: Path, chat: Dataset, found: list[tuple], *, margins: list[float | None] | None = None, name: str = "pairs",
    params: dict[str, Any] | None = None,
) -> Dataset:  # fmt: skip
    """(prompt, chosen, rejected) as a dataset like that of pairs.encode."""
    prompts, chosen, rejected = zip(*found, strict=True)
    lengths = [len(p) + max(len(c), len(r)) for p, c, r in found]
    margins = [None] * len(found) if margins is None else margins
    columns = {
        "prompt_ids": pa.array(prompts, LISTS), "chosen_ids": pa.array(chosen, LISTS),
        "rejected_ids": pa.array(rejected, LISTS), "margin": pa.array(margins, pa.float64()),
        "n_tokens": pa.array(lengths, pa.uint32()),
    }  # fmt: skip
    return _rows(root, chat, name, "pairs.encode", columns, params)


def thumbs(root: Path, chat: Dataset, found: list[tuple], *, name: str = "thumbs") -> Dataset:
    """Of every triple the chosen reply, liked, or the rejected one, disliked, by turns."""
    rows = [(p, r, False) if k % 2 else (p, c, True) for k, (p, c, r) in enumerate(found)]
    prompts, completions, labels = zip(*rows, strict=True)
    columns = {
        "prompt_ids": pa.array(prompts, LISTS), "completion_ids": pa.array(completions, LISTS),
        "label": pa.array(labels, pa.bool_()),
        "n_tokens": pa.array([len(p) + len(c) for p, c, _ in rows], pa.uint32()),
    }  # fmt: skip
    return _rows(root, chat, name, "thumbs.encode", columns, None)


def _rows(root: Path, chat: Dataset, name: str, op: str, columns: dict[str, pa.Array], params: Any) -> Dataset:
    ids = [row_id(name, str(n), str(p)) for n, p in enumerate(columns["prompt_ids"].to_pylist())]
    table = pa.table({"id": pa.array(ids, pa.binary(16)), **columns})
    stats = chat.manifest["stats"]
    told = {"tokenizer": PLAIN, "template": stats["template"], "vocab_size": stats["vocab_size"]} | (params or {})
    rows = {key: str(value.to_pylist()) for key, value in columns.items()}
    ops = [{"name": op, "version": 1, "params": told | {"rows": rows}}]
    with building(root, name) as folder:
        return publish_rows(root, name, folder, [table], ops=ops, inputs=[], made={})
