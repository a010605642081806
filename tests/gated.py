"""Checkpoints and evaluations of made-up figures, for tests of gates."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.dataops.dataset import Dataset, publish_files, publish_rows
from gristmill.dataops.identity import row_id

EMPTY = pa.schema([("id", pa.binary(16)), ("task", pa.string())])


def checkpoint(
    root: Path,
    name: str,
    *inputs: Dataset,
    op: str = "sft",
    weights: str | None = None,
    stats: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    at: str = "2026-01-01T00:00:00Z",
) -> Dataset:
    """A checkpoint with a configuration and weights that are a word, its name by default; `op` made it."""
    weights = name if weights is None else weights
    building = root / ".building" / uuid.uuid4().hex
    files = building / "files"
    files.mkdir(parents=True)
    (files / "config.json").write_text("{}")
    (files / "model.safetensors").write_text(weights)
    if metrics is not None:
        (files / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    ops = [{"name": op, "version": 1, "params": dict(params or {"seed": weights})}]
    made = {"at": at, "seconds": 12.5, "device": "cpu", "versions": {"torch": "2.13.0"}}
    return publish_files(root, name, building, ops=ops, inputs=inputs, made=made, stats=stats)


def evaluation(
    root: Path,
    model: Dataset,
    measures: Mapping[str, Any],
    *,
    name: str = "evaluation",
    at: str = "2026-01-02T00:00:00Z",
    **asked: Mapping[str, Any],
) -> Dataset:
    """An evaluation; measures are numbers, (value, low, high), or whole entries. `asked` says more of slices."""
    whole = {key: _entry(value) for key, value in measures.items()}
    parts = sorted({key.split("/")[0] for key in whole})
    slices = [{"name": part, "digest": f"digest of {part}", **asked.get(part, {})} for part in parts]
    building = root / ".building" / uuid.uuid4().hex
    building.mkdir(parents=True)
    table = pa.Table.from_pylist([{"id": row_id(part), "task": part} for part in parts], schema=EMPTY)
    return publish_rows(
        root, name, building, [table],
        ops=[{"name": "evaluate", "version": 1, "params": {"slices": slices, "tasks": [], "figures": repr(whole)}}],
        inputs=[model], made={"at": at, "seconds": 1.0},
        stats={"measures": whole, "model": {"name": model.name, "key": model.key, "digest": model.digest}},
    )  # fmt: skip


def _entry(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"value": value[0], "low": value[1], "high": value[2], "n": 100}
    return {"value": value, "low": None, "high": None, "n": 100} if isinstance(value, int | float) else value
