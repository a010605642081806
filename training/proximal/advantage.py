"""From scores to advantages: a reward per token, GAE over padded responses, whitening.

Arrays are float32 [responses, longest] on the CPU, `mask` true where a response has a token. The laws: what stands
behind the end of a response changes nothing; a response's numbers (before whitening) depend on that response alone.
"""

from __future__ import annotations

import torch

EPSILON = 1e-8  # added to the variance, so that equal advantages stay finite


def token_rewards(
    scores: torch.Tensor, log_ratio: torch.Tensor, mask: torch.Tensor, coefficient: float
) -> torch.Tensor:
    """-coefficient x (log policy - log reference) at every token, and the response's score at its last one."""
    rewards = torch.where(mask, -coefficient * log_ratio, 0.0)
    last = mask.sum(1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None])


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns by generalised advantage estimation (Schulman et al. 2016, equation 16):
    A[t] = delta[t] + gamma lam A[t + 1], delta[t] = r[t] + gamma V[t + 1] - V[t], returns A + V.

    After its last token a response is over and worth 0, also where it was cut at its greatest length.
    """
    advantages = torch.zeros_like(rewards)
    after = torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        more = mask[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros(len(rewards), dtype=torch.bool)
        following = torch.where(more, values[:, t + 1], 0.0) if t + 1 < rewards.shape[1] else torch.zeros(len(rewards))
        delta = rewards[:, t] + gamma * following - values[:, t]
        after = torch.where(mask[:, t], delta + gamma * lam * torch.where(more, after, 0.0), 0.0)
        advantages[:, t] = after
    return advantages, torch.where(mask, advantages + values, 0.0)


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over all tokens of all responses; 0 elsewhere."""
    inside = values[mask]
    scaled = (values - inside.mean()) * torch.rsqrt(inside.var(correction=0) + EPSILON)
    return torch.where(mask, scaled, 0.0)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float | None:
    """1 - Var(returns - values) / Var(returns) over flat tensors: 1 is a perfect value model, 0 one that knows no more
    than the mean. None where all returns are equal."""
    spread = returns.var(correction=0).item()
    return None if spread == 0 else 1 - (returns - values).var(correction=0).item() / spread
