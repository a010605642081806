"""Prompts with their responses as padded pieces of a batch, and what models say of each response token.

Sequences are padded on the right: under a causal mask no token sees what comes behind it, so no attention mask is
needed (flash attention stays possible). Log-probabilities, entropies and values come out flat, response after response,
as `mask` picks them from a padded array. The laws: a flat row does not depend on what shares its piece (but for the
rounding of sums); prompt and padding never enter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Sequences:
    """Token ids of prompts and of their responses, one of each per row; no response is empty."""

    prompts: Sequence[Sequence[int]]
    responses: Sequence[Sequence[int]]

    def length(self, row: int) -> int:
        """Tokens of prompt and response."""
        return len(self.prompts[row]) + len(self.responses[row])

    def mask(self) -> torch.Tensor:
        """bool [rows, longest response], true where a response has a token."""
        lengths = torch.tensor([len(response) for response in self.responses])
        return torch.arange(int(lengths.max()))[None] < lengths[:, None]


@dataclass(frozen=True)
class Piece:
    """Some rows for one pass. `tokens` int64 [rows, length]; among the last `keep` positions, `at` are the flat places
    from which the response tokens `chosen` are predicted (int64 [response tokens]), row after row; `last` are the flat
    places of the last token of each response."""

    rows: np.ndarray
    tokens: torch.Tensor
    keep: int
    at: torch.Tensor
    chosen: torch.Tensor
    last: torch.Tensor


def pieces(sequences: Sequences, rows: np.ndarray, most: int, device: torch.device) -> Iterator[Piece]:
    """The rows, longest first (so that a lack of memory shows at once), in pieces of at most `most` tokens, padding
    counted; a longer row is a piece of its own."""
    ordered = sorted(rows.tolist(), key=lambda row: (-sequences.length(row), row))
    while ordered:
        fit = max(1, most // sequences.length(ordered[0]))
        yield piece(sequences, np.array(ordered[:fit]), device)
        ordered = ordered[fit:]


def piece(sequences: Sequences, rows: np.ndarray, device: torch.device) -> Piece:
    """These rows as one piece."""
    longest = max(sequences.length(row) for row in rows)
    keep = longest - min(len(sequences.prompts[row]) for row in rows) + 1
    tokens = np.zeros((len(rows), longest), dtype=np.int64)
    at, chosen, last = [], [], []
    for i, row in enumerate(rows):
        prompt, response = sequences.prompts[row], sequences.responses[row]
        tokens[i, : len(prompt)], tokens[i, len(prompt) : len(prompt) + len(response)] = prompt, response
        first = i * keep + len(prompt) - 1 - (longest - keep)  # the last prompt token predicts the response's first
        at.append(np.arange(first, first + len(response)))
        chosen.append(np.asarray(response, dtype=np.int64))
        last.append(first + len(response))

    def there(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Piece(
        rows, there(tokens), keep, there(np.concatenate(at)), there(np.concatenate(chosen)), there(np.array(last))
    )


def lowered(device: torch.device) -> AbstractContextManager:
    """bfloat16 autocast on a GPU, float32 on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def log_probs(model: Any, piece: Piece, temperature: float, grads: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability (nats) of each response token under the distribution that is sampled from, the softmax of
    logits / temperature, and its entropy; float32 both. `grads`: whether the entropy has a gradient."""
    with lowered(piece.tokens.device):
        logits = model(input_ids=piece.tokens, use_cache=False, logits_to_keep=piece.keep).logits
    picked = logits.flatten(0, 1).index_select(0, piece.at).float() / temperature
    total = torch.logsumexp(picked, -1)
    chosen = picked.gather(1, piece.chosen[:, None])[:, 0] - total
    scores, norm = (picked, total) if grads else (picked.detach(), total.detach())
    return chosen, norm - ((scores - norm[:, None]).exp() * scores).sum(-1)


def values(model: Any, piece: Piece, at: torch.Tensor) -> torch.Tensor:
    """What a trunk with a scalar head says at flat places: float32 [places]."""
    with lowered(piece.tokens.device):
        hidden = model["trunk"](input_ids=piece.tokens, use_cache=False).last_hidden_state
    picked = hidden[:, -piece.keep :].flatten(0, 1).index_select(0, at)
    return model["head"](picked.float())[:, 0]
