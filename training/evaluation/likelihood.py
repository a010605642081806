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

from gristmill.dataops.dataset import InputError
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

    @torch.inference_mode()
    def states(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden states, [rows, tokens, width], and `hidden`: the same tensor where the output layer is a
        plain one. Raises InputError for a model that tells no states."""
        if self.model.base_model is self.model:
            raise InputError(f"{type(self.model).__name__} tells no hidden states: take a model that has a base model")
        states = self.model.base_model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
        return states, states if self._head is not None else self._logits(tokens, positions)

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
    tokens, positions, labels = (item.to(model.device) for item in (tokens, positions, labels))
    wanted = labels != IGNORED
    with autocast(model):
        ours = model.hidden(tokens, positions)[wanted]
        theirs = None if reference is None else reference.hidden(tokens, positions)[wanted]
    return sums(model, ours, labels, reference, theirs)


def autocast(model: Reader) -> torch.autocast:
    """bfloat16 on a GPU, what the weights are on a CPU."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.device.type == "cuda")


@torch.inference_mode()
def sums(
    model: Reader,
    ours: torch.Tensor,
    labels: torch.Tensor,
    reference: Reader | None = None,
    theirs: torch.Tensor | None = None,
) -> Sums:
    """The same, where `hidden` told already at each label that is not -100, row by row; `theirs` of a reference."""
    wanted = labels != IGNORED
    rows, targets = wanted.nonzero()[:, 0], labels[wanted]
    names = COLUMNS[:2] if theirs is None else COLUMNS
    found = torch.zeros(len(names), len(labels), dtype=torch.float64, device=model.device)
    for start in range(0, len(rows), PIECE):
        piece = slice(start, start + PIECE)
        with autocast(model):
            z = model.scores(ours[piece])
            other = None if theirs is None or reference is None else reference.scores(theirs[piece])
        told = _told(z, targets[piece], other)
        for total, values in zip(found, told, strict=True):
            total.index_add_(0, rows[piece], values.double())
    counted = torch.bincount(rows, minlength=len(labels)).cpu().numpy()
    return Sums(counted, dict(zip(names, found.cpu().numpy(), strict=True)))


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
    """Tokens, positions and labels of rows with a prompt and a response each; what is to predict is the response."""
    rows = [np.array([*p, *r], dtype=np.int64) for p, r in zip(prompts, responses, strict=True)]
    marks = [np.arange(len(row)) >= len(prompt) for row, prompt in zip(rows, prompts, strict=True)]
    return marked(rows, marks, pad)


def marked(
    rows: Sequence[np.ndarray], marks: Sequence[np.ndarray], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and labels of rows of tokens; what is to predict is marked (bool), but for a first token.

    Padding follows a row and each of its tokens is a document of its own (position 0), so that nothing sees it.
    """
    shape = (len(rows), max(map(len, rows)))
    tokens, positions = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORED, np.int64)
    for n, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        tokens[n, : len(row)], positions[n, : len(row)] = row, np.arange(len(row))
        labels[n, : len(row) - 1][mark[1:]] = row[1:][mark[1:]]
    return torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(labels)
