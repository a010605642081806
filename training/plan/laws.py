"""Scaling laws: how many tokens a model is worth, and the loss to expect.

    L(N, D) = E + A / N**alpha + B / D**beta                     (Hoffmann et al. 2022, equation 2 and section 3.3)

N are parameters, D tokens, L nats a token on the law's own corpus with its own tokenizer: a law compares plans with
each other, and does not say the loss of your text. Two fits of the same runs stand side by side since they differ by
more than their stated errors; where they agree, trust the answer more.

The law kept here: at the optimum of a budget C = 6 N D, both terms fall equally fast: alpha A / N**alpha equals
beta B / D**beta. Not covered: data quality, learning-rate schedules that end too early, inference cost (a model that is
served much wants far more tokens than its optimum: Sardana et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RATIO = 20  # tokens per parameter: Hoffmann et al. 2022, table 3 (67B: 1.5T; Chinchilla is 70B on 1.4T)
R_STAR = 15.387756  # Muennighoff et al. 2023, appendix A


@dataclass(frozen=True)
class Law:
    """The five constants of L(N, D), N in parameters and D in tokens."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    source: str

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats per token after one pass over `tokens`."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def tokens_for(self, parameters: float) -> float:
        """The D for which N is the best use of 6 N D FLOPs: solves the law of this module for D."""
        return (self.beta * self.b * parameters**self.alpha / (self.alpha * self.a)) ** (1 / self.beta)

    def split(self, flops: float) -> tuple[float, float]:
        """The (parameters, tokens) of least loss for 6 N D = `flops`: equation 4 of Hoffmann et al. 2022,
        N = G (C/6)**a, D = (C/6)**b / G, with a = beta / (alpha + beta) and b = 1 - a."""
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        exponent = self.beta / (self.alpha + self.beta)
        parameters = g * (flops / 6) ** exponent
        return parameters, flops / 6 / parameters


LAWS = {
    # The paper prints rounded exponents (0.34, 0.28), which miss its own table A3 by up to 60 %; these, from its source
    # text as Besiroglu et al. quote them, come within 11 % of it up to 67B.
    "hoffmann-2022": Law(1.6934, 406.4, 410.7, 0.3392, 0.2849, "Hoffmann et al. 2022 (arXiv 2203.15556), approach 3"),
    "besiroglu-2024": Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658, "Besiroglu et al. 2024 (arXiv 2404.10102), refit"),
}


def chinchilla_tokens(parameters: float) -> float:
    """Twenty tokens per parameter, the rule of thumb of Hoffmann et al. 2022 (approaches 1 and 2)."""
    return RATIO * parameters


def chinchilla_split(flops: float) -> tuple[float, float]:
    """The (parameters, tokens) that 6 N D = `flops` buys at twenty tokens per parameter."""
    parameters = math.sqrt(flops / (6 * RATIO))
    return parameters, RATIO * parameters


def effective_tokens(unique: float, seen: float) -> float:
    """How many fresh tokens `seen` tokens are worth where only `unique` differ.

    D' = U + U R* (1 - exp(-R / R*)), R = D / U - 1 repetitions, R* = 15.39: Muennighoff et al. 2023 (arXiv 2305.16264),
    section 3.1. Four epochs cost little, at R = R* a repeated token is on average worth 1 - 1/e of a fresh one, and no
    number of epochs makes U worth more than 16.4 U. Fitted on models up to 9B and up to 900B tokens seen.
    """
    if seen <= unique:
        return seen
    repetitions = seen / unique - 1
    return unique + unique * R_STAR * -math.expm1(-repetitions / R_STAR)
