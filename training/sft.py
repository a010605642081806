"""Supervised fine-tuning: packed chat rows and a checkpoint in, a checkpoint that answers out.

    python -m gristmill.training.sft --spec spec.json [--dry-run]

TRL's SFTTrainer computes the loss (in chunks of tokens, so the logits of a batch never stand whole in memory); the rows
are packed shards, mapped, whose `targets` say which tokens the loss counts: the assistant's turns, or the last of them.
Packed pretraining data mixes in by weight, as a replay against forgetting. Documents of a row do not see each other.

The law kept here: a token that the data does not mark is never learned. Not covered: images.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gristmill.training.step import main  # isort: skip  # sets the environment before torch loads

import numpy as np
import torch

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.chat import check_data
from gristmill.training.post.data import epochs, plan, planned
from gristmill.training.post.dry import needs
from gristmill.training.post.harness import Job, open_job
from gristmill.training.post.spec import PostSpec
from gristmill.training.pretraining.loop import mean_loss
from gristmill.training.schedule import Optimiser
from gristmill.training.shards import IGNORED, Shards, gather
from gristmill.training.stream import Stream

OP, VERSION = "sft", 1
VALIDATION_ROWS = 256  # of each validation dataset, its first


@dataclass(frozen=True)
class SftSpec(PostSpec):
    """`loss`: "nll", or "dft", which weighs each token by its own probability (Wu et al. 2025). `neftune` is the alpha
    of the noise on embeddings (Jain et al. 2023 use 5 to 15)."""

    name: str = "sft"
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=2e-5, warmup=0.03, weight_decay=0.0))
    loss: Literal["nll", "dft"] = "nll"
    neftune: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neftune is not None and self.neftune <= 0:
            raise InputError(f"spec: neftune is {self.neftune}; it is the alpha of the noise, above 0")


def run(spec: SftSpec) -> Dataset:
    """Train and publish, or take what stands. Raises InputError where the data is refused, Stopped at SIGTERM."""
    from trl import SFTConfig, SFTTrainer

    job = open_job(spec, OP, VERSION)
    if job.standing is not None:
        return job.standing
    sources, held = _shards(job)
    weights = [source.weight for source in spec.data]
    counts = [shards.rows for shards in sources]
    total = spec.steps * spec.rows
    model = job.model()
    _check_window(model, sources)
    before = _held_losses(model, held)
    trainer = SFTTrainer(
        model=model,
        args=job.arguments(
            SFTConfig,
            loss_type=spec.loss,
            neftune_noise_alpha=spec.neftune,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=planned(counts, weights, spec.seed, total),
        data_collator=lambda rows: _collate(sources, rows),
        processing_class=job.chat.tokenizer,
        optimizers=job.optimizers(model),
    )
    logged = job.fit(trainer)
    after = _held_losses(trainer.model, held)
    names = [f"{shards.name}:{shards.digest[:12]}" for shards in sources]
    stats = {
        "tokens": _tokens(sources, weights, spec.seed, total),
        "rows": total,
        "epochs": epochs(counts, weights, total, names),
        "validation": {name: {"before": before[name], "after": after[name]} for name in before},
    }
    return job.finish(trainer, logged, stats)


def dry(spec: SftSpec) -> Mapping[str, Any]:
    """Steps, tokens and memory."""
    job = open_job(spec, OP, VERSION)
    sources, _ = _shards(job)
    return needs(job, seq_len=sources[0].seq_len, stage="sft")


def _shards(job: Job) -> tuple[list[Shards], dict[str, Shards]]:
    """The packed data and the held-out data, checked against the model's tokenizer and template."""
    learned = []
    for data in job.data:
        shards = Shards(data)
        marked = any(part.targets is not None for part in shards.parts)
        check_data(job.chat, data, template=marked)
        learned += [marked]
    if not any(learned):
        raise InputError("spec: no dataset of `data` has `targets`: encode chats (chat.encode), then pack them")
    sources = [Shards(data) for data in job.data]
    Stream(sources, rows=1, seed=0)  # refuses rows that do not fit together
    held = {}
    for data in job.validation:
        shards = Shards(data)
        check_data(job.chat, data, template=any(part.targets is not None for part in shards.parts))
        held[f"{data.name}:{data.digest[:12]}"] = shards
    return sources, held


def _check_window(model: Any, sources: Sequence[Shards]) -> None:
    window = getattr(model.config, "max_position_embeddings", None)
    if window is not None and sources[0].seq_len > window:
        raise InputError(
            f"rows have {sources[0].seq_len:,} tokens, the model's window is {window:,}: pack with a shorter seq_len"
        )


def _collate(sources: Sequence[Shards], rows: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
    """Rows by number as the trainer wants them: labels stand at the token itself, not at the one before it."""
    batch = gather(sources, np.array([row["source"] for row in rows]), np.array([row["row"] for row in rows]))
    labels = torch.full_like(batch.labels, IGNORED)
    labels[:, 1:] = batch.labels[:, :-1]
    return {"input_ids": batch.tokens, "position_ids": batch.positions, "labels": labels}


def _tokens(sources: Sequence[Shards], weights: Sequence[float], seed: int, total: int) -> int:
    """Tokens read in all, padding not counted."""
    source, row = plan([shards.rows for shards in sources], weights, seed, total)
    return sum(int(shards.lengths()[row[source == k]].sum()) for k, shards in enumerate(sources))


def _held_losses(model: Any, held: Mapping[str, Shards]) -> dict[str, float]:
    return {name: mean_loss(model, shards, VALIDATION_ROWS) for name, shards in held.items()}


if __name__ == "__main__":
    sys.exit(main(SftSpec, run, dry))
