"""An iteration's optimiser steps: epochs of minibatches over its judged responses.

Policy and value model are trained one after the other in each piece, so that their activations never stand in memory
together. The laws: all tokens of a minibatch count the same, however it is cut into pieces; a response that was not
judged changes nothing, as if it had not been sampled; `Kept` with weights and moments decides every later step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gristmill.training import order
from gristmill.training.proximal.advantage import gae, token_rewards, whiten
from gristmill.training.proximal.losses import policy_loss, value_loss
from gristmill.training.proximal.pieces import Piece, Sequences, log_probs, pieces, values
from gristmill.training.proximal.record import Rollouts
from gristmill.training.proximal.settings import PPOSpec
from gristmill.training.schedule import Optimiser, Watch

TERMS = ("policy_loss", "value_loss", "entropy", "clip_fraction", "approx_kl")  # sums over a step's tokens


@dataclass
class Kept:
    """What a run remembers beside weights and moments. `iteration` are those that are finished; of the next one,
    whether it is `sampled` (its table is on disk) and how many optimiser steps are `done`, with their means in `parts`.
    `unjudged` iterations in a row had no judgement."""

    coefficient: float
    iteration: int = 0
    sampled: bool = False
    done: int = 0
    steps: int = 0
    unjudged: int = 0
    tokens: int = 0
    seconds: float = 0.0
    parts: list[dict[str, float]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    policy_watch: Watch = field(default_factory=lambda: Watch(None))
    value_watch: Watch = field(default_factory=lambda: Watch(None))

    @classmethod
    def read(cls, found: Mapping[str, Any] | None, spec: PPOSpec) -> Kept:
        """Out of `as_json`; None for a new run."""
        given: dict[str, Any] = {"coefficient": spec.kl.coefficient} if found is None else dict(found)
        for name, settings in (("policy_watch", spec.optimiser), ("value_watch", spec.value_optimiser)):
            given[name] = Watch(settings.skip_above, **given.get(name, {}))
        return cls(**given)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("policy_watch", "value_watch"):
            watch: Watch = plain[name]
            plain[name] = {"norms": list(watch.norms), "skipped": watch.skipped, "row": watch.row}
        return plain


@dataclass(frozen=True)
class Targets:
    """What an iteration trains on: its judged responses, and float32 [responses, longest] for each."""

    sequences: Sequences
    mask: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


def targets(rollouts: Rollouts, spec: PPOSpec, coefficient: float) -> Targets | None:
    """Advantages and returns of the responses that were judged; None where none was."""
    judged = rollouts.judged
    if not len(judged):
        return None
    sequences = Sequences(
        [rollouts.sequences.prompts[i] for i in judged], [rollouts.sequences.responses[i] for i in judged]
    )
    mask = sequences.mask()
    logprobs, reference, old = (
        x[judged][:, : mask.shape[1]] for x in (rollouts.logprobs, rollouts.reference, rollouts.values)
    )
    cut = ~np.array(rollouts.ended)[judged]
    scores = torch.from_numpy(rollouts.scores[judged] - spec.missing_end * cut).float()
    rewards = token_rewards(scores, logprobs - reference, mask, coefficient)
    advantages, returns = gae(rewards, old, mask, gamma=spec.gamma, lam=spec.lam)
    advantages = whiten(advantages, mask) if spec.whiten else advantages
    return Targets(sequences, mask, logprobs, old, advantages, returns)


def update(
    both: Any,
    optimizer: torch.optim.Optimizer,
    wanted: Targets,
    spec: PPOSpec,
    kept: Kept,
    after: Callable[[], None],
) -> None:
    """The optimiser steps that are left of the iteration, with `after` called after each (it may raise). Raises
    RuntimeError where too many steps in a row cannot be taken."""
    rows = len(wanted.mask)
    minibatches = min(spec.minibatches, rows)
    total = spec.epochs * minibatches
    while kept.done < total:
        epoch, part = divmod(kept.done, minibatches)
        shuffled = order.epoch_order(rows, spec.seed, 1 + kept.iteration, epoch).copy()
        used = (kept.iteration + kept.done / total) / spec.iterations
        _rates(optimizer, {"policy": spec.optimiser.rate(used), "value": spec.value_optimiser.rate(used)})
        means = _gradients(both, wanted, np.array_split(shuffled, minibatches)[part], spec)
        moved = spec.stop_kl is not None and means["approx_kl"] > spec.stop_kl
        if moved:
            kept.done = total
        else:
            _step(both, optimizer, means, spec, kept)
            kept.done += 1
        optimizer.zero_grad(set_to_none=True)
        after()


def _gradients(both: Any, wanted: Targets, rows: np.ndarray, spec: PPOSpec) -> dict[str, float]:
    """Add up the gradients of a minibatch, piece by piece; returns the means of TERMS over its tokens."""
    device = next(both.parameters()).device
    tokens = int(wanted.mask[rows].sum())
    sums = torch.zeros(len(TERMS), device=device)
    for piece in pieces(wanted.sequences, rows, spec.batch_tokens, device):
        old, before, advantages, returns = (
            _flat(x, wanted.mask, piece, device)
            for x in (wanted.logprobs, wanted.values, wanted.advantages, wanted.returns)
        )
        logprobs, entropy = log_probs(both["policy"], piece, spec.temperature, grads=spec.entropy > 0)
        policy = policy_loss(logprobs, old, advantages, spec.clip)
        ((policy.loss - spec.entropy * entropy.sum()) / tokens).backward()
        value = value_loss(values(both["value"], piece, piece.at), before, returns, spec.value_clip)
        (value / tokens).backward()
        found = (policy.loss, value, entropy.sum(), policy.clipped, policy.kl)
        sums += torch.stack([x.detach().float() for x in found])
    return dict(zip(TERMS, (sums / tokens).tolist(), strict=True))


def _step(both: Any, optimizer: torch.optim.Optimizer, means: dict[str, float], spec: PPOSpec, kept: Kept) -> None:
    """Clip and take the step of each model; the one whose loss or norm is too wild stays as it is."""
    watched: tuple[tuple[str, Optimiser, Watch], ...] = (
        ("policy", spec.optimiser, kept.policy_watch),
        ("value", spec.value_optimiser, kept.value_watch),
    )
    for name, settings, watch in watched:
        norm = torch.nn.utils.clip_grad_norm_(both[name].parameters(), settings.grad_clip).item()
        if not watch.takes(means[f"{name}_loss"], norm):
            both[name].zero_grad(set_to_none=True)
        means[f"{name}_norm"] = norm
    optimizer.step()
    kept.steps += 1
    kept.parts.append(means)


def _rates(optimizer: torch.optim.Optimizer, rates: Mapping[str, float]) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rates[group["of"]]


def _flat(padded: torch.Tensor, mask: torch.Tensor, piece: Piece, device: torch.device) -> torch.Tensor:
    """The tokens of a piece's rows, in its order."""
    return padded[piece.rows][mask[piece.rows]].to(device)
