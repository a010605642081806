"""Optimiser steps over a stream of packed rows, one at a time, with all that a stopped run has to remember.

A device is asked for numbers once a step, and only after it has all the work of the step and the next batch is on its
way to it: it never waits for data that can be read in the time of a step.

The laws: the loss of a step is the mean over all its targets, however the step is cut into pieces and processes; what
`Kept` holds, with weights and moments, decides every later step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gristmill.dataops.dataset import InputError
from gristmill.training.model import Objective, Piece, logits, losses
from gristmill.training.plan.chips import chip
from gristmill.training.plan.flops import token_flops
from gristmill.training.plan.shape import Shape
from gristmill.training.pretraining.parallel import Peers, adding_up, clip
from gristmill.training.schedule import Optimiser, Watch
from gristmill.training.shards import IGNORED, Shards
from gristmill.training.stream import Cursor, Stream

CURVE = 200  # points of a loss curve at most


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
    the least loss of a model that knows only how frequent each token is; and the cursor that gives the next batch.
    Of all processes together."""

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

    counts: torch.Tensor
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
            return cls(torch.zeros(vocab_size, dtype=torch.int64), Watch(None))
        metrics = [Metrics(**item | {"cursor": Cursor.read(item["cursor"])}) for item in values["metrics"]]
        counts = torch.tensor(values["counts"], dtype=torch.int64)
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


@dataclass(frozen=True)
class Feed:
    """A batch on the device, in pieces. `seen` counts, over all processes, how often each token is a target, and at its
    end the tokens read."""

    pieces: list[Piece]
    seen: torch.Tensor
    cursor: Cursor


def train(
    module: Any,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    settings: Optimiser,
    budget: Budget,
    kept: Kept,
    peers: Peers,
    accumulate: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Metrics]:
    """One step of an `Objective` (as parallel.py spreads it) per yield, until the budget is used; at least one step in
    all. `kept` is brought up to date before each yield. Raises RuntimeError where too many steps in a row cannot be
    taken."""
    kept.watch.skip_above = settings.skip_above
    kept.counts = kept.counts.to(peers.device)
    before, started = kept.seconds, clock()
    if kept.step and budget.used(kept.step, kept.seconds) >= 1:
        return
    module.train()
    feeds = _feeds(stream, kept.metrics[-1].cursor if kept.metrics else None, accumulate, len(kept.counts), peers)
    upcoming = next(feeds)
    while True:
        feed = upcoming
        rate = settings.rate(budget.used(kept.step, kept.seconds))
        for group in optimizer.param_groups:
            group["lr"] = rate
        targets = feed.seen[:-1].sum().clamp_min(1)
        loss = _gradients(module, feed.pieces, settings.z_loss, peers.world.size / targets)
        norm = clip(module, settings.grad_clip)
        kept.counts += feed.seen[:-1]
        mean = peers.total(loss) / targets
        numbers = torch.stack([mean, norm.double(), feed.seen[-1].double(), entropy(kept.counts)])
        upcoming = next(feeds)  # while the device is at work on this one
        told_loss, told_norm, tokens, told_entropy = numbers.tolist()
        taken = kept.watch.takes(told_loss, told_norm)
        if taken:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        kept.tokens += int(tokens)
        kept.seconds = peers.lead(before + clock() - started)
        cursor = feed.cursor
        kept.metrics.append(Metrics(cursor.step, kept.tokens, told_loss, told_entropy, told_norm, rate, taken, cursor))
        yield kept.metrics[-1]
        if budget.used(kept.step, kept.seconds) >= 1:
            return


def _feeds(stream: Stream, start: Cursor | None, accumulate: int, vocab_size: int, peers: Peers) -> Iterator[Feed]:
    """Batch after batch, on its way to the device."""
    for batch, cursor in stream.read(start):
        pieces = [Piece.of(piece, peers.device) for piece in batch.pieces(accumulate)]
        seen = torch.zeros(vocab_size + 1, dtype=torch.int64)
        seen[:-1] = torch.bincount(batch.labels[batch.labels != IGNORED], minlength=vocab_size)
        seen[-1] = batch.length.sum()
        yield Feed(pieces, peers.total(seen.to(peers.device)), cursor)


def _gradients(module: Any, pieces: list[Piece], z_loss: float, scale: torch.Tensor) -> torch.Tensor:
    """Add up the gradients of a step, piece by piece; returns the sum of this process's losses in float64.

    `scale` is the number of processes, over which gradients are averaged, by the number of all targets.
    """
    total = torch.zeros((), dtype=torch.float64, device=scale.device)
    for number, piece in enumerate(pieces, 1):
        with adding_up(module, last=number == len(pieces)):
            with torch.autocast(scale.device.type, dtype=torch.bfloat16, enabled=scale.device.type == "cuda"):
                wanted, loss = module(piece, z_loss)
            (wanted * scale).backward()
        total += loss
    return total


@torch.no_grad()
def mean_loss(model: Any, shards: Shards, most: int) -> float:
    """The mean loss in nats over the first `most` rows, of a causal language model or an `Objective`. Where a model is
    sharded, all processes ask for it."""
    model.eval()
    device = next(model.parameters()).device
    total, targets = torch.zeros((), dtype=torch.float64, device=device), 0
    for start in range(0, min(most, shards.rows), 8):
        batch = shards.gather(np.arange(start, min(start + 8, most, shards.rows)))
        targets += int((batch.labels != IGNORED).sum())
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            if isinstance(model, Objective):
                total += model(Piece.of(batch, device))[1]
            else:
                batch = batch.to(device)
                total += losses(logits(model, batch.tokens, batch.positions), batch.labels)[0]
    return total.item() / max(1, targets)


def entropy(counts: torch.Tensor) -> torch.Tensor:
    """Of a distribution given by counts, in nats, float64; 0 where nothing was counted."""
    shares = counts.double() / counts.sum().clamp_min(1)
    return -torch.xlogy(shares, shares).sum()


def curve(steps: list[Metrics]) -> dict[str, list[float]]:
    """The metrics as at most CURVE points to draw: means of the loss over runs of steps, and where each run ends."""
    runs = np.array_split(np.arange(len(steps)), min(len(steps), CURVE))
    return {
        "step": [steps[run[-1]].step for run in runs],
        "tokens": [steps[run[-1]].tokens for run in runs],
        "loss": [float(np.mean([steps[i].loss for i in run])) for run in runs],
        "unigram_entropy": [steps[run[-1]].unigram_entropy for run in runs],
    }


def speed(shape: Shape, seq_len: int, tokens_per_second: float, device: str, devices: int = 1) -> dict[str, Any]:
    """Tokens (padding not counted) and FLOPs a second, and the share of the devices' published peak that these are,
    attention counted as by Chowdhery et al. (2022, appendix B); None for a device whose peak is not known."""
    flops = sum(token_flops(shape, seq_len).values()) * tokens_per_second
    try:
        mfu = flops / (chip(device).peak * devices)
    except InputError:
        mfu = None
    return {"tokens_per_second": tokens_per_second, "flops_per_second": flops, "mfu": mfu}


def line(kept: Kept, budget: Budget, tokens_per_second: float) -> str:
    """The last step for a person to read."""
    last = kept.metrics[-1]
    of = f"/{budget.steps}" if budget.steps is not None else ""
    used = f"{kept.seconds:.0f} s" + (f" of {budget.seconds:g} s" if budget.seconds is not None else "")
    left_out = f"  {kept.watch.skipped} steps left out" if kept.watch.skipped else ""
    return f"step {last.step}{of}  loss {last.loss:.4f}  {tokens_per_second:,.0f} tokens/s  {used}{left_out}"
