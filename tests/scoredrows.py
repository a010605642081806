"""Responses as `train generate` publishes them, made by hand: several samples to each task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.dataops.dataset import Dataset, publish_rows, row_id
from gristmill.training.checkpoint import building
from gristmill.training.generate import OURS


def responses(
    root: Path,
    said: dict[str, Sequence[Any]],
    *,
    golds: dict[str, str] | None = None,
    name: str = "responses",
    **columns: Any,
) -> Dataset:
    """Per prompt its samples, None for one that was not given; a sample may be (text, {"finish": ..., ...}). `columns`
    are the same in all rows."""
    rows = []
    for prompt, samples in said.items():
        task = row_id("toy.task", prompt)
        for n, item in enumerate(samples):
            text, more = item if isinstance(item, tuple) else (item, {})
            words = 0 if text is None else len(text.split())
            row = {
                "id": row_id("toy.response", name, task, str(n)), "sources": [task], "response": text, "sample": n,
                "prompt": [{"role": "user", "content": prompt}], "tokens": words, "finish": "stop", "logprob": -words,
                "engine": "toy", "engine_version": "1", **columns,
            }  # fmt: skip
            if golds is not None:
                row["gold"] = golds[prompt]
            rows.append({**row, **more})
    kinds = {name: pa.string() for row in rows for name in row if name not in OURS.names}
    schema = pa.schema([*OURS, *kinds.items()])
    op = {"name": "toy.responses", "version": 1, "params": {"rows": repr(rows)}}
    with building(root, name) as folder:
        return publish_rows(root, name, folder, [pa.Table.from_pylist(rows, schema)], ops=[op], inputs=[], made={})
