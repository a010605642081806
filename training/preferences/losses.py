"""Losses of preference training that need no reference model: ORPO and SimPO, out of log-probabilities alone.

Both take, for n pairs, the log-probability of each reply given its prompt, summed over its tokens (nats, float32 [n]),
and the replies' lengths in tokens. Both divide by the length first, so a longer reply is not less likely for being
longer. Every function gives one loss per pair, [n]; the step takes their mean.

The law kept here: a reply that the model is certain of gives a finite loss and a finite gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: The largest mean log-probability whose odds are told apart from certainty; float32 has 1 - exp(-1e-6) at 5 %.
CERTAIN = -1e-6


def log_odds(mean_logp: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) for p = exp(mean_logp), the geometric mean of the tokens' probabilities.

    1 - p is taken as -expm1(log p) near p = 1, where subtraction would cancel (Maechler 2012).
    """
    log_p = mean_logp.clamp(max=CERTAIN)
    near = log_p > -0.6931472
    # each branch gets a harmless value where the other one is used: a NaN in the unused one would reach the gradient
    log_not = torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, log_p, -0.5))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, log_p))),
    )
    return log_p - log_not


def preferred(score: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """-log sigmoid(score), where a share `label_smoothing` (0 to 0.5) of the pairs is taken to be the wrong way round
    (conservative DPO, Mitchell 2023)."""
    loss = -(1 - label_smoothing) * F.logsigmoid(score)
    return loss - label_smoothing * F.logsigmoid(-score) if label_smoothing else loss


def orpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_length: torch.Tensor,
    rejected_length: torch.Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Hong et al. (2024), equations 6 and 7: the chosen reply's mean negative log-likelihood, plus `beta` (their
    lambda) times -log sigmoid of the difference of log odds."""
    mean, other = chosen / chosen_length, rejected / rejected_length
    return -mean + beta * preferred(log_odds(mean) - log_odds(other), label_smoothing)


def simpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_length: torch.Tensor,
    rejected_length: torch.Tensor,
    *,
    beta: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Meng et al. (2024), equation 6: -log sigmoid(beta * (mean log p chosen - mean log p rejected) - gamma). They
    report gamma as a share of beta, around 0.3 to 0.5, with beta from 2 to 10."""
    margin = beta * (chosen / chosen_length - rejected / rejected_length)
    return preferred(margin - gamma, label_smoothing)
