"""Rollouts on disk: one table per iteration, written before it trains anything, published together at the end.

A table holds all that the update needs, to the bit, so that a run that was stopped in the middle of an update goes on
with the rollouts it had. The law: a table stands under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import torch

from gristmill.dataops.dataset import InputError, row_id
from gristmill.training.proximal.pieces import Sequences
from gristmill.training.proximal.settings import ROLLOUTS
from gristmill.training.scoring import Score

_FLOATS = pa.list_(pa.float32())
_IDS = pa.list_(pa.uint32())
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCORES = pa.list_(pa.struct([("name", pa.string()), ("score", pa.float64()), ("reason", pa.string())]))
SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("sources", pa.list_(pa.binary(16))),  # the task
        ("step", pa.int32()),  # the iteration, from 1
        ("number", pa.int64()),  # the response's number in the run, from 0: with the seed, its draws
        ("prompt", _MESSAGES),
        ("response", pa.string()),
        ("prompt_ids", _IDS),
        ("response_ids", _IDS),
        ("ended", pa.bool_()),  # by itself, or cut at max_new_tokens
        ("logprobs", _FLOATS),
        ("reference_logprobs", _FLOATS),
        ("values", _FLOATS),
        ("scores", _SCORES),
        ("score", pa.float64()),  # their weighted sum; null: not judged, and nothing was learned from it
        ("kl", pa.float32()),  # sum of logprobs - reference_logprobs
        ("advantages", _FLOATS),  # as trained on; null where not judged
    ]
)


@dataclass(frozen=True)
class Rollouts:
    """One iteration's responses. Padded arrays are float32 [responses, longest]; `scores` float64 [responses], NaN
    where not judged; `kinds` the scores by name."""

    tasks: list[dict[str, Any]]
    numbers: list[int]
    texts: list[str]
    sequences: Sequences
    ended: list[bool]
    logprobs: torch.Tensor
    reference: torch.Tensor
    values: torch.Tensor
    kinds: list[dict[str, Score]]
    scores: np.ndarray

    @property
    def judged(self) -> np.ndarray:
        """Rows that are trained on."""
        return np.flatnonzero(~np.isnan(self.scores))


def place(folder: Path, iteration: int) -> Path:
    """Where an iteration's table lies."""
    return folder / f"{iteration:06d}.arrow"


def write(folder: Path, iteration: int, rollouts: Rollouts, advantages: torch.Tensor | None) -> None:
    """Write an iteration's table over the one before it. `advantages` are [judged rows, longest]; None for none."""
    mask, judged = rollouts.sequences.mask(), rollouts.judged
    gained: list[Any] = [None] * len(mask)
    for i, row in enumerate(judged if advantages is not None else ()):
        assert advantages is not None
        gained[row] = advantages[i][mask[row]].numpy()
    tasks = [task["id"] for task in rollouts.tasks]
    columns = {
        "id": [row_id(ROLLOUTS, task, str(n)) for task, n in zip(tasks, rollouts.numbers, strict=True)],
        "sources": [[task] for task in tasks],
        "step": [iteration + 1] * len(tasks),
        "number": rollouts.numbers,
        "prompt": [[{k: m[k] for k in ("role", "content")} for m in task["prompt"]] for task in rollouts.tasks],
        "response": rollouts.texts,
        "prompt_ids": rollouts.sequences.prompts,
        "response_ids": rollouts.sequences.responses,
        "ended": rollouts.ended,
        "logprobs": _ragged(rollouts.logprobs, mask),
        "reference_logprobs": _ragged(rollouts.reference, mask),
        "values": _ragged(rollouts.values, mask),
        "scores": [[{"name": n, "score": s.score, "reason": s.reason} for n, s in k.items()] for k in rollouts.kinds],
        "score": [None if np.isnan(score) else float(score) for score in rollouts.scores],
        "kl": (rollouts.logprobs - rollouts.reference).masked_fill(~mask, 0.0).sum(1).numpy(),
        "advantages": gained,
    }
    table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA}, SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    path = place(folder, iteration)
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            with ipc.new_file(file, SCHEMA, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read(folder: Path, iteration: int, tasks: list[dict[str, Any]]) -> Rollouts:
    """An iteration's rollouts as they were written; `tasks` are the rows they belong to. Raises InputError where the
    table is damaged or gone."""
    rows = table(folder, iteration).to_pylist()
    sequences = Sequences([row["prompt_ids"] for row in rows], [row["response_ids"] for row in rows])
    mask = sequences.mask()

    def padded(name: str) -> torch.Tensor:
        out = torch.zeros(mask.shape)
        out[mask] = torch.tensor([x for row in rows for x in row[name]])
        return out

    return Rollouts(
        tasks, [row["number"] for row in rows], [row["response"] for row in rows], sequences,
        [row["ended"] for row in rows], padded("logprobs"), padded("reference_logprobs"), padded("values"),
        [{s["name"]: Score(s["score"], s["reason"]) for s in row["scores"]} for row in rows],
        np.array([np.nan if row["score"] is None else row["score"] for row in rows]),
    )  # fmt: skip


def table(folder: Path, iteration: int) -> pa.Table:
    """One iteration. Raises InputError where it is damaged or gone."""
    path = place(folder, iteration)
    try:
        with pa.OSFile(str(path)) as source:
            return ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: rollouts of a run that was stopped cannot be read ({error}); remove {folder} and the state "
            "beside it to start anew"
        ) from None


def tables(folder: Path, iterations: int) -> Iterator[pa.Table]:
    """All of a run, in order."""
    return (table(folder, iteration) for iteration in range(iterations))


def _ragged(values: torch.Tensor, mask: torch.Tensor) -> Sequence[np.ndarray]:
    """Rows without their padding."""
    return np.split(values[mask].numpy(), mask.sum(1).cumsum(0)[:-1].numpy())
