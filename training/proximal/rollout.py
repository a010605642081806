"""Responses drawn from the policy: batches with a cache of keys and values, and draws that batches do not change.

Each response has its own stream of uniform numbers, from the seed and the response's number in the run alone; a token
is where the cumulated probabilities reach the next of them. The law: one seed gives a response the same tokens whatever
shares its batch (but for the rounding of sums, where a number falls on an edge). The whole distribution is drawn from:
with its tail cut off (top-p, top-k) the responses would be those of another policy.

Tokens stay on the device; every LOOK tokens it is asked whether all responses have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from gristmill.training.proximal.pieces import lowered

LOOK = 16  # tokens between two questions to the device
_DRAWS = 1 << 61  # keeps the keys of draws apart from those of orders (training/order.py)


def uniforms(seed: int, number: int, n: int) -> np.ndarray:
    """The first n draws of response `number`, float64 in [0, 1): 53 bits each of Philox's raw integers, which NumPy
    promises for good."""
    raw = np.random.Philox(key=np.array([seed, _DRAWS | number], dtype=np.uint64)).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    end: int,
    most: int,
    between: Callable[[], None],
) -> list[list[int]]:
    """One response per prompt, with its `end` token where it came. Batches hold at most `most` tokens, room for whole
    responses counted; `between` is called between tokens (it may raise)."""
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    responses: list[list[int]] = [[] for _ in prompts]
    while order:
        fit = max(1, most // (len(prompts[order[0]]) + max_new_tokens))
        part, order = order[:fit], order[fit:]
        draws = np.stack([uniforms(seed, numbers[i], max_new_tokens) for i in part])
        drawn = _batch(model, [prompts[i] for i in part], draws, temperature, end, between)
        for i, row in zip(part, drawn.tolist(), strict=True):
            responses[i] = row[: row.index(end) + 1] if end in row else row
    return responses


@torch.no_grad()  # not inference_mode, in which autocast would round the weights anew for every token
def _batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    draws: np.ndarray,
    temperature: float,
    end: int,
    between: Callable[[], None],
) -> torch.Tensor:
    """int64 [rows, tokens]; what stands behind an end token is noise."""
    device, longest, most = model.device, max(map(len, prompts)), draws.shape[1]
    tokens = torch.tensor([[end] * (longest - len(p)) + list(p) for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    # Padded on the left, so that all rows take their next token in one column.
    seen = torch.arange(longest + most, device=device)[None] >= longest - lengths[:, None]
    positions = (seen[:, :longest].cumsum(1) - 1).clamp(min=0)
    wanted = torch.from_numpy(draws).to(device, torch.float32 if device.type == "mps" else torch.float64)
    out = torch.full((len(prompts), most), end, device=device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    cache = DynamicCache(config=model.config)
    with lowered(device):
        for t in range(most):
            between()
            logits = model(
                input_ids=tokens, attention_mask=seen[:, : longest + t].long(), position_ids=positions,
                past_key_values=cache, use_cache=True, logits_to_keep=1,
            ).logits[:, -1]  # fmt: skip
            reached = torch.softmax(logits.float() / temperature, -1).to(wanted.dtype).cumsum(-1)
            target = wanted[:, t : t + 1] * reached[:, -1:]
            drawn = torch.searchsorted(reached, target, right=True).clamp(max=reached.shape[1] - 1)
            tokens, positions = drawn, lengths[:, None] + t
            out[:, t] = drawn[:, 0]
            ended |= drawn[:, 0] == end
            if t % LOOK == LOOK - 1 and bool(ended.all()):
                return out[:, : t + 1]
    return out
