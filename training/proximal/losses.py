"""PPO's objective as sums over tokens, and the coefficient of the KL penalty.

All losses are sums over flat float32 tensors, one number per token, so that a minibatch can be cut into pieces: sums of
pieces, divided by the tokens of the whole, are the mean over all tokens. The law kept here: outside the clipping range,
on the side where the advantage pulls outwards, a token gives no gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from gristmill.training.proximal.settings import ERROR, KL


class PolicyTerms(NamedTuple):
    """Sums over tokens: the clipped loss; how many ratios the clipping touched; the estimated KL in nats."""

    loss: torch.Tensor
    clipped: torch.Tensor
    kl: torch.Tensor


def policy_loss(logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float) -> PolicyTerms:
    """-min(ratio x A, clipped ratio x A), the ratio exp(logprobs - old) held to [1 - clip, 1 + clip] (Schulman et al.
    2017, equation 7). `clipped` counts the tokens where the held one decides. `kl` is the estimate of KL(old || new) as
    ratio - 1 - log ratio, which is never below 0 (Schulman 2020, "Approximating KL divergence", k3)."""
    log_ratio = logprobs - old
    ratio = log_ratio.exp()
    free, held = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return PolicyTerms(
        torch.maximum(free, held).sum(), (held > free).sum().detach(), (ratio - 1 - log_ratio).sum().detach()
    )


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Half the squared error; with `clip`, the larger one of the value and of the value held to within `clip` of the
    old one, so that a value that has moved that far towards its return is pulled no further."""
    errors = (values - returns).square()
    if clip is not None:
        held = old + (values - old).clamp(-clip, clip)
        errors = torch.maximum(errors, (held - returns).square())
    return 0.5 * errors.sum()


def adapted(coefficient: float, kl: KL, measured: float, responses: int) -> float:
    """The coefficient after an iteration: times 1 + error x responses / horizon, where error is the measured KL (nats
    per response) over its target, less 1, held to [-0.2, 0.2] (Ziegler et al. 2019, section 2.2). As it was without a
    target."""
    if kl.target is None:
        return coefficient
    error = min(max(measured / kl.target - 1, -ERROR), ERROR)
    return coefficient * (1 + error * responses / kl.horizon)
