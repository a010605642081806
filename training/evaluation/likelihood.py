"""What a model says of every token of given rows: its loss, the entropy of its prediction, and its KL to a reference.

    loss      -log p(token), nats
    entropy   -sum over the vocabulary of p log p, nats: how undecided the model is; near 0 is collapse
    kl        sum over the vocabulary of p (log p - log q), nats: exact, p the model's prediction and q the reference's

KL is exact at each token and not estimated from the token that was drawn, as k1 and k3 do (Schulman 2020): both models'
predictions are at hand, and over the model's own responses the mean is the same with less variance. All are at
temperature 1.

Logits are made a piece of PIECE tokens at a time and only where there is something to predict, so memory does not grow
with rows x vocabulary. The laws: a token is predicted from its own document alone; equal models have a KL of exactly
0. Not covered: models whose output layer is more than one matrix are read by their own logits, whole rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gristmill.training.shards import IGNORED

PIECE = 256  # tokens whose logits are there at once
COLUMNS = ("loss", "entropy", "kl", "reference_loss")


@dataclass(frozen=True)
class Sums:
    """Sums over each row's targets, float64 [rows], by name: `loss`, `entropy` and, beside a reference, `kl` and
    `reference_loss`. `targets` is how many there are."""

    targets: np.ndarray
    columns: dict[str, np.ndarray]

    @staticmethod
    def joined(parts: Sequence[Sums]) -> Sums:
        """Several batches as one."""
        names = parts[0].columns
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
        return Sums(np.concatenate([part.targets for part in parts]), columns)


class Reader:
    """A model made ready to be asked about tokens, in evaluation mode on its device."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self._head = self._plain_head()

    @torch.inference_mode()
    def hidden(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What the output layer reads, [rows, tokens, width]; or the logits where that layer is not a plain one."""
        if self._head is None:
            return self._logits(tokens, positions)
        return self.model.base_model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state

    def _logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        # Only without a cache does transformers keep documents apart.
        return self.model(input_ids=tokens, position_ids=positions, use_cache=False).logits

    @torch.inference_mode()
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of some positions of `hidden`, float32 [positions, vocabulary]."""
        return (hidden if self._head is None else self._head(hidden)).float()

    @torch.inference_mode()
    def _plain_head(self) -> torch.nn.Module | None:
        """The output layer, where it alone stands between `last_hidden_state` and the logits: tried on a few tokens."""
        head = self.model.get_output_embeddings()
        if head is None or self.model.base_model is self.model:
            return None
        tokens = torch.arange(min(8, self.model.config.vocab_size), device=self.device)[None]
        positions = torch.arange(tokens.shape[1], device=self.device)[None]
        inner = self.model.base_model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
        expected = self._logits(tokens, positions)
        return head if torch.allclose(head(inner).float(), expected.float(), rtol=1e-3, atol=1e-3) else None


@torch.inference_mode()
def read(
    model: Reader, tokens: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor, reference: Reader | None = None
) -> Sums:
    """Sums over the labels that are not -100, row by row; int64 [rows, tokens], position 0 starts a document."""
    device = model.device
    tokens, positions, labels = (item.to(device) for item in (tokens, positions, labels))
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
    wanted = labels != IGNORED
    rows, targets = wanted.nonzero()[:, 0], labels[wanted]
    with autocast:
        ours = model.hidden(tokens, positions)[wanted]
        theirs = None if reference is None else reference.hidden(tokens, positions)[wanted]
    names = COLUMNS[:2] if theirs is None else COLUMNS
    sums = torch.zeros(len(names), len(tokens), dtype=torch.float64, device=device)
    for start in range(0, len(rows), PIECE):
        piece = slice(start, start + PIECE)
        with autocast:
            z = model.scores(ours[piece])
            other = None if theirs is None or reference is None else reference.scores(theirs[piece])
        told = _told(z, targets[piece], other)
        for total, values in zip(sums, told, strict=True):
            total.index_add_(0, rows[piece], values.double())
    counted = torch.bincount(rows, minlength=len(tokens)).cpu().numpy()
    return Sums(counted, dict(zip(names, sums.cpu().numpy(), strict=True)))


def _told(z: torch.Tensor, targets: torch.Tensor, other: torch.Tensor | None) -> list[torch.Tensor]:
    """COLUMNS of each position, from logits [positions, vocabulary]; the last two with another model's logits."""
    log_sum = torch.logsumexp(z, -1)
    p = torch.exp(z - log_sum[:, None])
    told = [log_sum - z.gather(1, targets[:, None])[:, 0], log_sum - (p * z).sum(-1)]
    if other is not None:
        other_sum = torch.logsumexp(other, -1)
        # sum p (z - z') - (log_sum - log_sum'): each part is exactly 0 for equal logits
        told.append((p * (z - other)).sum(-1) - (log_sum - other_sum))
        told.append(other_sum - other.gather(1, targets[:, None])[:, 0])
    return told


def padded(
    prompts: list[list[int]], responses: list[list[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and labels of rows with a prompt and a response each; what is to predict is the response.

    Padding follows the response and each of its tokens is a document of its own (position 0), so that nothing sees it.
    """
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    shape = (len(prompts), longest)
    tokens, positions = torch.full(shape, pad), torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        whole = torch.tensor(prompt + response)
        tokens[row, : len(whole)] = whole
        positions[row, : len(whole)] = torch.arange(len(whole))
        labels[row, max(len(prompt), 1) - 1 : len(whole) - 1] = whole[max(len(prompt), 1) :]
    return tokens, positions, labels
