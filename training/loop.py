"""Optimiser steps over a stream of packed rows, one at a time, with all that a stopped run has to remember.

The laws: the loss of a step is the mean over all its targets, however the step is cut into pieces; what `Kept` holds,
with weights and moments, decides every later step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gristmill.training.model import logits, losses
from gristmill.training.schedule import Optimiser, Watch
from gristmill.training.shards import IGNORED, Batch, Shards
from gristmill.training.stream import Cursor, Stream


class Stopped(Exception):
    """Training was asked to stop, and its state is kept."""


@dataclass(frozen=True)
class Budget:
    """As `steps`, or as `seconds` of wall time; one of the two."""

    steps: int | None
    seconds: float | None

    def used(self, step: int, seconds: float) -> float:
        """The fraction that is used, from 0 to 1 and beyond."""
        if self.steps is not None:
            return step / self.steps
        assert self.seconds is not None
        return seconds / self.seconds


@dataclass(frozen=True)
class Metrics:
    """After one step: its mean `loss` (nats per target) and the gradients' norm before clipping; `taken`, or left out
    (see schedule.py); `tokens` read so far (padding not counted); the `unigram_entropy` of the targets so far, in nats:
    the least loss of a model that knows only how frequent each token is; and the cursor that gives the next batch."""

    step: int
    tokens: int
    loss: float
    unigram_entropy: float
    grad_norm: float
    learning_rate: float
    taken: bool
    cursor: Cursor


@dataclass
class Kept:
    """What a run remembers beside weights and moments. `counts` are the targets by token; `seconds` of training."""

    counts: np.ndarray
    watch: Watch
    tokens: int = 0
    seconds: float = 0.0
    metrics: list[Metrics] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.metrics[-1].step if self.metrics else 0

    @classmethod
    def read(cls, values: Mapping[str, Any] | None, vocab_size: int) -> Kept:
        """Out of `as_json`; None for a new run."""
        if values is None:
            return cls(np.zeros(vocab_size, dtype=np.int64), Watch(None))
        metrics = [Metrics(**item | {"cursor": Cursor.read(item["cursor"])}) for item in values["metrics"]]
        counts = np.array(values["counts"], dtype=np.int64)
        return cls(counts, Watch(None, **values["watch"]), values["tokens"], values["seconds"], metrics)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        watch = {"norms": list(self.watch.norms), "skipped": self.watch.skipped, "row": self.watch.row}
        metrics = [dataclasses.asdict(item) for item in self.metrics]
        return {
            "counts": self.counts.tolist(), "watch": watch, "tokens": self.tokens, "seconds": self.seconds,
            "metrics": metrics,
        }  # fmt: skip


def optimizer_of(model: torch.nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    """AdamW; gains of norms are not decayed, which would pull them to zero."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)


def train(
    model: Any,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    settings: Optimiser,
    budget: Budget,
    kept: Kept,
    accumulate: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Metrics]:
    """One step per yield, on the model's device, until the budget is used; at least one step in all. `kept` is brought
    up to date before each yield. Raises RuntimeError where too many steps in a row cannot be taken."""
    device = model.device
    kept.watch.skip_above = settings.skip_above
    before, started = kept.seconds, clock()
    if kept.step and budget.used(kept.step, kept.seconds) >= 1:
        return
    model.train()
    for batch, cursor in stream.read(kept.metrics[-1].cursor if kept.metrics else None):
        kept.tokens += int(batch.length.sum())
        kept.counts += np.bincount(batch.labels[batch.labels != IGNORED].numpy(), minlength=len(kept.counts))
        rate = settings.rate(budget.used(kept.step, kept.seconds))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _gradients(model, batch, settings.z_loss, accumulate, device)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip).item()
        taken = kept.watch.takes(loss, norm)
        if taken:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        kept.seconds = before + clock() - started
        kept.metrics.append(Metrics(cursor.step, kept.tokens, loss, entropy(kept.counts), norm, rate, taken, cursor))
        yield kept.metrics[-1]
        if budget.used(kept.step, kept.seconds) >= 1:
            return


def _gradients(model: Any, batch: Batch, z_loss: float, accumulate: int, device: torch.device) -> float:
    """Add up the gradients of a batch, piece by piece; returns the mean loss in nats."""
    targets = max(1, int((batch.labels != IGNORED).sum()))
    total = 0.0
    for piece in batch.pieces(accumulate):
        piece = piece.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            predicted = logits(model, piece.tokens, piece.positions)
        loss, squares = losses(predicted, piece.labels)
        ((loss + z_loss * squares) / targets if z_loss else loss / targets).backward()
        total += loss.item()
    return total / targets


@torch.no_grad()
def mean_loss(model: Any, shards: Shards, most: int) -> float:
    """The mean loss in nats over the first `most` rows."""
    model.eval()
    total, targets = 0.0, 0
    for start in range(0, min(most, shards.rows), 8):
        batch = shards.gather(np.arange(start, min(start + 8, most, shards.rows)))
        targets += int((batch.labels != IGNORED).sum())
        batch = batch.to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.device.type == "cuda"):
            predicted = logits(model, batch.tokens, batch.positions)
        total += losses(predicted, batch.labels)[0].item()
    return total / max(1, targets)


def entropy(counts: np.ndarray) -> float:
    """Of a distribution given by counts, in nats; 0 where nothing was counted."""
    seen = counts[counts > 0]
    shares = seen / max(seen.sum(), 1)
    return float(-(shares * np.log(shares)).sum())
