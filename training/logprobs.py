"""Reference log-probabilities as a dataset: a model and pairs in, two numbers per pair out.

    python -m gristmill.training.logprobs --spec spec.json

Preference training compares the policy with the model it started from. Computed once, the reference costs neither
memory nor time during training, and several runs share it. A row is a pair: `ref_chosen_logps` and
`ref_rejected_logps` are the sums over the reply's tokens of their natural log-probability given all before, in float32
on a CPU, with bfloat16 autocast on a GPU.

The laws: every pair that fits the model has a row, the others are counted; the numbers are those that training would
compute itself, to rounding. Not covered: KTO, whose reference depends on which rows share a step.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.training.step import main  # isort: skip  # before torch: it sets how torch waits

import numpy as np
import pyarrow as pa
import torch

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_rows, recipe_key, row_id
from gristmill.training.chat import Chat, chat_of
from gristmill.training.checkpoint import building, load_model, versions
from gristmill.training.preferences.logprobs import score
from gristmill.training.preferences.rows import OP, PAIRS, Rows, lists, read_rows
from gristmill.training.spec import Input, check_fields, check_name, open_input

VERSION = 1


@dataclass(frozen=True)
class LogprobsSpec:
    """The pairs, and the checkpoint whose log-probabilities they get; `tokenizer` where the checkpoint has none of its
    own. `tokens` padded ones are computed at a time."""

    data: Input
    model: Input
    root: str
    tokenizer: Input | None = None
    name: str = "reference"
    tokens: int = 8192

    def __post_init__(self) -> None:
        check_fields(self)
        check_name(self.name)
        if self.tokens < 1:
            raise InputError(f"spec: tokens is {self.tokens}; it must be above 0")


def run(spec: LogprobsSpec) -> Dataset:
    """Compute and publish, or take what stands. Raises InputError where model and pairs do not fit."""
    model, chat, data, inputs = _open(spec)
    final = _final(spec, inputs)
    if (final / MANIFEST).exists():
        print(f"{final} stands already: not computed again", file=sys.stderr)
        return Dataset.load(final)
    began = time.monotonic()
    network = load_model(model).float()
    rows = read_rows(data, chat, network.config, PAIRS)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    print(f"{2 * rows.table.num_rows:,} replies on {device}", file=sys.stderr)
    table = _table(network, rows, chat, spec.tokens)
    stats = {
        "model": {"name": model.name, "key": model.key, "digest": model.digest},
        "tokenizer": chat.vocabulary,
        "template": chat.template,
        "rows": table.num_rows,
        "too_long": rows.too_long,
        "mean_chosen": float(np.mean(table["ref_chosen_logps"].to_numpy())),
        "mean_rejected": float(np.mean(table["ref_rejected_logps"].to_numpy())),
    }
    made = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began, 3),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    with building(spec.root, spec.name) as folder:
        return publish_rows(
            spec.root, spec.name, folder, [table],
            ops=[_identity(spec.tokens)], inputs=inputs, made=made, stats=stats, reproducible=device.type == "cpu",
        )  # fmt: skip


def dry(spec: LogprobsSpec) -> dict[str, Any]:
    """How many replies and tokens there are."""
    model, chat, data, _ = _open(spec)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.file(""), local_files_only=True)
    rows = read_rows(data, chat, config, PAIRS)
    return {"replies": 2 * rows.table.num_rows, "longest": max(rows.table["length"].to_pylist()),
            "too_long": rows.too_long}  # fmt: skip


def _open(spec: LogprobsSpec) -> tuple[Dataset, Chat, Dataset, list[Dataset]]:
    model = open_input(spec.model.path, spec.model.digest)
    given = None if spec.tokenizer is None else open_input(spec.tokenizer.path, spec.tokenizer.digest)
    data = open_input(spec.data.path, spec.data.digest)
    return model, chat_of(model, given), data, [data, model, *([] if given is None else [given])]


def _identity(tokens: int) -> dict[str, Any]:
    return {"name": OP, "version": VERSION, "params": {"tokens": tokens}}


def _final(spec: LogprobsSpec, inputs: list[Dataset]) -> Path:
    return Path(spec.root) / spec.name / recipe_key([_identity(spec.tokens)], [item.digest for item in inputs])[:12]


def _table(network: Any, rows: Rows, chat: Chat, tokens: int) -> pa.Table:
    """The published columns, in the order of the pairs."""
    prompts = lists(rows.table["prompt_ids"])
    columns: dict[str, pa.Array] = {}
    for reply in ("chosen", "rejected"):
        given = list(zip(prompts, lists(rows.table[f"{reply}_ids"]), strict=True))
        sums = score(network, given, chat.tokenizer.pad_token_id, tokens)
        columns[f"ref_{reply}_logps"] = pa.array(sums.astype(np.float32))
    pairs = rows.table["id"].combine_chunks()
    ids = [row_id(OP, pair.as_py()) for pair in pairs]
    sources = pa.array([[pair.as_py()] for pair in pairs], pa.list_(pa.binary(16)))
    return pa.table(
        {"id": pa.array(ids, pa.binary(16)), "sources": sources, "pair": pairs, **columns,
         "length": rows.table["length"].combine_chunks()}
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(LogprobsSpec, run, dry))
