"""Log-probabilities of replies: what preference losses compare, and what is measured before and after.

Rows are padded on the right, so no real token sees padding, and the output layer is asked only for the positions that
predict a reply. Log-probabilities are natural, computed in float32, and sums over a reply's tokens.

The law kept here: a row's sum does not depend on the rows beside it, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Example = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]  # prompt, reply: token ids
TOKENS = 8192  # padded ones that a model without gradients reads at a time


@dataclass(frozen=True)
class Replies:
    """Prompts with replies, padded: int64 `tokens` and bool `real`, `reply` [n, length]."""

    tokens: torch.Tensor
    real: torch.Tensor
    reply: torch.Tensor

    def to(self, device: torch.device) -> Replies:
        """The same rows on a device."""
        return Replies(self.tokens.to(device), self.real.to(device), self.reply.to(device))


def pad(examples: Sequence[Example], pad_id: int) -> Replies:
    """Examples as one padded block."""
    width = max(len(prompt) + len(reply) for prompt, reply in examples)
    tokens = np.full((len(examples), width), pad_id, dtype=np.int64)
    real = np.zeros(tokens.shape, dtype=bool)
    answer = np.zeros(tokens.shape, dtype=bool)
    for row, (prompt, reply) in enumerate(examples):
        start, end = len(prompt), len(prompt) + len(reply)
        tokens[row, :start], tokens[row, start:end] = prompt, reply
        real[row, :end] = True
        answer[row, start:end] = True
    return Replies(torch.from_numpy(tokens), torch.from_numpy(real), torch.from_numpy(answer))


def reply_logps(model: Any, rows: Replies) -> torch.Tensor:
    """Per token, float32 [n, length - 1]: the log-probability of token t + 1 where it belongs to a reply, else 0."""
    first = int(rows.reply.int().argmax(dim=1).min())  # no reply starts before this column
    width = rows.tokens.shape[1]
    keep = width - max(first - 1, 0)
    output = model(input_ids=rows.tokens, attention_mask=rows.real.long(), use_cache=False, logits_to_keep=keep)
    targets = rows.tokens[:, width - keep + 1 :]
    logits = output.logits[:, :-1].float()
    logps = logits.gather(-1, targets[..., None]).squeeze(-1) - logits.logsumexp(-1)
    logps = logps.masked_fill(~rows.reply[:, width - keep + 1 :], 0.0)
    return torch.nn.functional.pad(logps, (width - keep, 0))


def batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Row numbers in blocks of at most `tokens` padded tokens (at least one row), longest first: rows of like length
    come together, and what does not fit into memory shows at once."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def score(model: Any, examples: Sequence[Example], pad_id: int, tokens: int = TOKENS) -> np.ndarray:
    """The log-probability of each example's reply given its prompt, float64 [n]."""
    return each(model, examples, pad_id, lambda rows: reply_logps(model, rows).sum(dim=1), tokens)


@torch.no_grad()
def each(
    model: Any, examples: Sequence[Example], pad_id: int, told: Callable[[Replies], torch.Tensor], tokens: int
) -> np.ndarray:
    """What `told` says of each example, float64 [n], with the model in evaluation mode; `tokens` padded ones at a
    time."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found = np.empty(len(examples))
    lengths = np.array([len(prompt) + len(reply) for prompt, reply in examples], dtype=np.int64)
    for numbers in batches(lengths, tokens):
        rows = pad([examples[i] for i in numbers], pad_id).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            values = told(rows)
        found[numbers] = values.double().cpu().numpy()
    model.train(was_training)
    return found


@torch.no_grad()
def distributions(
    model: Any, examples: Sequence[Example], pad_id: int, positions: int, tokens: int = 2048
) -> torch.Tensor:
    """Log-probabilities of every token of the vocabulary at the first `positions` tokens of replies, float32
    [positions at most, vocab] on the CPU; about `tokens` padded ones at a time."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found: list[torch.Tensor] = []
    left, start = positions, 0
    while left > 0 and start < len(examples):
        width = len(examples[start][0]) + len(examples[start][1])
        some = examples[start : start + max(1, tokens // width)]
        rows = pad(some, pad_id).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=rows.tokens, attention_mask=rows.real.long(), use_cache=False).logits[:, :-1]
        found.append(logits[rows.reply[:, 1:]].float().log_softmax(-1).cpu()[:left])
        left -= len(found[-1])
        start += len(some)
    model.train(was_training)
    return torch.cat(found)
