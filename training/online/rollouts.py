"""Every response that was trained on, as a dataset: what was asked and answered, by whom, how it was judged and why.

While a run goes, each batch of samples is one file beside the state, named by the step that drew it and written whole
by a rename before that step ends. The laws: a run that goes on at step n has the batches before n and no others, so a
sample is neither lost nor doubled by a stop; a row's `sources` names its task.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from gristmill.dataops.dataset import row_id

OP, VERSION = "rollouts", 1

#: One row per sample. `step` counts the updates before it was drawn, `group` its task in that step's batch, `sample`
#: its number in the group. `logprobs` are nats of each token of `tokens` by the policy at sampling, at `temperature`;
#: `engine_logprobs` what a separate engine said of them. `total` is null where a scorer could not judge, `advantage`
#: where the sample gave no gradient. `finish`: "stop" (the end of the turn) or "length".
SCHEMA = pa.schema(
    {
        "id": pa.binary(16),
        "sources": pa.list_(pa.binary(16)),
        "step": pa.uint32(),
        "group": pa.uint32(),
        "sample": pa.uint32(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "response": pa.string(),
        "prompt_tokens": pa.list_(pa.uint32()),
        "tokens": pa.list_(pa.uint32()),
        "logprobs": pa.list_(pa.float32()),
        "engine_logprobs": pa.list_(pa.float32()),
        "scores": pa.list_(
            pa.struct({"scorer": pa.string(), "score": pa.float64(), "reason": pa.string(), "weight": pa.float64()})
        ),
        "total": pa.float64(),
        "advantage": pa.float32(),
        "finish": pa.string(),
        "engine": pa.string(),
        "temperature": pa.float32(),
    }
)


def rollout_id(task: bytes, step: int, group: int, sample: int) -> bytes:
    """The id of a sample."""
    return row_id(OP, str(VERSION), task, f"{step}/{group}/{sample}")


def write(folder: Path, step: int, rows: list[dict[str, Any]]) -> None:
    """Put the batch that was drawn at a step on disk, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, step)
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        with ipc.new_file(file, SCHEMA, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def rewind(folder: Path, step: int) -> None:
    """Forget what was drawn at `step` or after it: the run goes on there."""
    for path in folder.glob("*.arrow"):
        if int(path.stem) >= step:
            path.unlink()


def tables(folder: Path) -> Iterator[pa.Table]:
    """All batches, in order of their steps; an empty table first."""
    yield SCHEMA.empty_table()
    for path in sorted(folder.glob("*.arrow")):
        with ipc.open_file(path) as reader:
            yield reader.read_all()


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.arrow"
