"""What an evaluation would take: tokens read and written at most, and bytes of memory, before anything is loaded.

The law: counts are upper limits; a response that ends early costs less. Not covered: memory of scorers and judges, and
of the evaluation harness.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.engines.settings import BATCH_TOKENS as GENERATED
from gristmill.training.evaluation.asking import read_task
from gristmill.training.evaluation.likelihood import PIECE
from gristmill.training.evaluation.pairs import pair_tokens
from gristmill.training.evaluation.slices import BATCH_TOKENS, chosen
from gristmill.training.evaluation.spec import EvaluateSpec
from gristmill.training.shards import Shards

_COPIES = 4  # of a piece of logits: both models', probabilities, one product


def config_of(model: Dataset) -> dict[str, Any]:
    """A checkpoint's config.json. Raises InputError where it has none."""
    path = Path(model.file("config.json"))
    if not path.is_file():
        raise InputError(f"{model.name} at {model.path} holds no model (config.json and model.safetensors)")
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def parameters(model: Dataset) -> int:
    """How many a checkpoint's safetensors hold."""
    from safetensors import safe_open

    total = 0
    for path in sorted(Path(model.file("")).glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # no mapping, and not iterable
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def needs(
    spec: EvaluateSpec,
    model: Dataset,
    reference: Dataset | None,
    slices: Sequence[Dataset],
    pairs: Sequence[Dataset],
    tasks: Sequence[Dataset],
) -> dict[str, Any]:
    """`tokens_read` of held-out text and pairs, `responses` and `tokens_generated` (at most), each by all models
    together, and `memory` in bytes by part, with their `total`."""
    import torch

    width = 2 if torch.cuda.is_available() else 4
    models = [model] if reference is None else [model, reference]
    read = 0
    for item, data in zip(spec.slices, slices, strict=True):
        read += len(chosen(data, item.limit)[0]) * Shards(data).seq_len * len(models)
    for wanted, data in zip(spec.pairs, pairs, strict=True):
        read += pair_tokens(data, wanted.limit)
    compared = {comparison.task for comparison in spec.comparisons}
    responses = written = 0
    for task, data in zip(spec.tasks, tasks, strict=True):
        asked = len(read_task(task, data)[0]) * task.samples * (2 if task.name in compared else 1)
        responses, written = responses + asked, written + asked * task.max_tokens
    config = config_of(model)
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 0
    head = config.get("head_dim") or config.get("hidden_size", 0) // (config.get("num_attention_heads") or 1)
    memory = {
        "weights": sum(parameters(item) for item in models) * width,
        "logits": PIECE * config.get("vocab_size", 0) * 4 * _COPIES,
        "activations": BATCH_TOKENS * (config.get("intermediate_size") or 4 * config.get("hidden_size", 0)) * width * 4,
        "cache": 2 * GENERATED * config.get("num_hidden_layers", 0) * heads * head * width if tasks else 0,
    }
    return {
        "tokens_read": read,
        "responses": responses,
        "tokens_generated": written,
        "memory": {**memory, "total": sum(memory.values())},
        "lm_eval": list(spec.lm_eval),
    }
