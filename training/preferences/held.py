"""Preferences that were held out, judged before and after: does the model now tell the chosen reply from the rejected?

A reply's *reward* is how far its log-probability has risen over the start's (nats, summed over its tokens): DPO's
implicit reward without beta, so at the start all rewards are 0 and accuracy is 1/2. *Likelihood* compares mean
log-probabilities per token, of the model alone. Ties count half.

The laws: a share comes with its bootstrap interval (95 %, percentiles, a fixed seed); the chosen replies' fall is told
in nats per token and warned about at log 2, where a chosen token is half as likely as it was. What KL says is exact
over the vocabulary, at the first POSITIONS tokens of held-out chosen (or completed) replies, not at the model's own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from gristmill.training.preferences.logprobs import Example, distributions, score
from gristmill.training.preferences.rows import Rows, lists

ROWS = 512  # of each validation dataset, its first
POSITIONS = 1024  # tokens at which KL is taken; the start's distributions stand in memory meanwhile
RESAMPLES = 1000
HALVED = math.log(2)
ENDS = 10  # steps whose mean says where the chosen replies stand


@dataclass(frozen=True)
class Held:
    """Held-out rows and what the start thinks of them: `sums` of log-probabilities (float64 [n]) by reply column, and
    `tops`, its log-distributions [positions, vocab]."""

    rows: Rows
    examples: dict[str, list[Example]]
    sums: dict[str, np.ndarray]
    tops: torch.Tensor

    @property
    def lengths(self) -> dict[str, np.ndarray]:
        """Tokens of each reply."""
        return {name: np.array([len(reply) for _, reply in found]) for name, found in self.examples.items()}


def hold(model: Any, rows: Rows, replies: Sequence[str], pad_id: int) -> Held:
    """The first ROWS rows, scored by a model that is not trained yet."""
    first = Rows(rows.dataset, rows.table.slice(0, ROWS), rows.too_long)
    prompts = lists(first.table["prompt_ids"])
    examples: dict[str, list[Example]] = {
        name: list(zip(prompts, lists(first.table[name]), strict=True)) for name in replies
    }
    sums = {name: score(model, found, pad_id) for name, found in examples.items()}
    return Held(first, examples, sums, distributions(model, examples[replies[0]], pad_id, POSITIONS))


def measure(held: Held, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What these log-probabilities say, against the start's. For thumbs, accuracy is the chance that a liked reply has
    a larger reward than a disliked one (the area under the ROC curve)."""
    lengths = held.lengths
    rewards = {name: sums[name] - held.sums[name] for name in sums}
    told: dict[str, Any] = {
        f"{name.removesuffix('_ids')}_logp": float(sums[name].sum() / lengths[name].sum()) for name in sums
    }
    if "completion_ids" in sums:
        liked = held.rows.table["label"].to_numpy().astype(bool)
        reward, mean = rewards["completion_ids"], sums["completion_ids"] / lengths["completion_ids"]
        told |= {"accuracy": area(reward[liked], reward[~liked]), "likelihood": area(mean[liked], mean[~liked])}
        told["margin"] = float(reward[liked].mean() - reward[~liked].mean()) if 0 < liked.sum() < len(liked) else None
        return told
    margin = rewards["chosen_ids"] - rewards["rejected_ids"]
    mean = sums["chosen_ids"] / lengths["chosen_ids"] - sums["rejected_ids"] / lengths["rejected_ids"]
    return told | {"accuracy": share(wins(margin)), "likelihood": share(wins(mean)), "margin": float(margin.mean())}


def compare(held: Held, model: Any, pad_id: int) -> dict[str, Any]:
    """Before and after training: `measure` of both, and how far the model has come."""
    sums = {name: score(model, found, pad_id) for name, found in held.examples.items()}
    before, after = measure(held, held.sums), measure(held, sums)
    name = next(iter(sums))
    kept = sums[name] - held.sums[name]
    lengths = held.lengths[name]
    if "label" in held.rows.table.schema.names:
        liked = held.rows.table["label"].to_numpy().astype(bool)
        kept, lengths = kept[liked], lengths[liked]
    change = float(kept.sum() / max(1, lengths.sum()))
    if change < -HALVED:
        print(
            f"warning: {held.rows.label}: chosen replies have fallen by {-change:.2f} nats a token; "
            "a larger beta, a smaller learning_rate or sft_weight keeps them up",
            file=sys.stderr,
        )
    now = distributions(model, held.examples[name], pad_id, POSITIONS)
    kl = float((now.exp() * (now - held.tops)).sum(dim=-1).mean())
    return {"before": before, "after": after, "chosen_change": change, "kl": kl}


class Falling(TrainerCallback):
    """Warns once, while training, when the chosen replies of the last steps have fallen as far as HALVED a token."""

    def __init__(self, beta: float | None, tokens: float) -> None:
        self.beta, self.tokens, self.told = beta, tokens, False

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = None if self.told else fell_at(state.log_history[-ENDS:], self.beta, self.tokens)
        if step is not None:
            self.told = True
            print(f"warning: at step {step} chosen replies have fallen by log 2 nats a token", file=sys.stderr)


def fell_at(logged: Sequence[Mapping[str, Any]], beta: float | None, tokens: float) -> int | None:
    """The first step at which chosen replies of `tokens` tokens on average had lost HALVED nats a token against the
    reference, over ENDS steps; None where they never had, or where rewards are not logged (no reference: beta None)."""
    if beta is None:
        return None
    known = [(line["step"], line["rewards/chosen"]) for line in logged if "rewards/chosen" in line]
    for end in range(ENDS, len(known) + 1):
        mean = sum(reward for _, reward in known[end - ENDS : end]) / ENDS
        if mean / beta < -HALVED * tokens:
            return int(known[end - 1][0])
    return None


def wins(margin: np.ndarray) -> np.ndarray:
    """1 where above 0, 1/2 where 0, else 0."""
    return (margin > 0) + 0.5 * (margin == 0)


def share(values: np.ndarray) -> dict[str, Any]:
    """A mean with its bootstrap interval."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def area(liked: np.ndarray, disliked: np.ndarray) -> dict[str, Any]:
    """The chance that one of `liked` is larger than one of `disliked`, with its interval over both being drawn anew;
    None without rows of both kinds."""
    told: dict[str, Any] = {"value": None, "low": None, "high": None, "n": len(liked) + len(disliked)}
    if not len(liked) or not len(disliked):
        return told
    better = wins(liked[:, None] - disliked[None, :])
    rng = np.random.default_rng(0)
    drawn = np.empty(RESAMPLES)
    for k in range(RESAMPLES):  # counts of each row, not copies of the matrix
        a = np.bincount(rng.integers(len(liked), size=len(liked)), minlength=len(liked))
        b = np.bincount(rng.integers(len(disliked), size=len(disliked)), minlength=len(disliked))
        drawn[k] = a @ better @ b / (len(liked) * len(disliked))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return told | {"value": float(better.mean()), "low": float(low), "high": float(high)}
