"""A Llama with one dial, and its loss over packed rows.

Depth sets all else: width is 64 x depth, heads are 64 wide (32 below depth 4, so that there are several), the SwiGLU
layer is 8/3 of the width, embeddings are tied. The architecture is transformers' own, so that what is trained here
loads anywhere.

The law kept here: attention does not cross documents. The logits of a document do not depend on what it is packed with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from gristmill.training.shards import IGNORED


def llama(vocab_size: int, depth: int, *, seq_len: int = 4096, eod: int | None = None) -> LlamaConfig:
    """The configuration at one depth; `eod`, the token that ends a document, also ends what is generated."""
    width = 64 * depth
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=-(-8 * width // (3 * 64)) * 64,  # 8/3 (Shazeer 2020), rounded up to a multiple of 64
        num_hidden_layers=depth,
        num_attention_heads=depth if depth >= 4 else 2 * depth,
        max_position_embeddings=seq_len,
        tie_word_embeddings=True,
        bos_token_id=None,  # the defaults 1 and 2 are ordinary tokens of our vocabularies
        eos_token_id=eod,
    )


def build(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A model with fresh weights in float32 on the CPU: the same for a seed whatever device it moves to."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def logits(model: torch.nn.Module, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[rows, seq_len, vocab] for packed rows, int64 [rows, seq_len]; position 0 starts a document.

    transformers derives the mask between documents from restarting positions, but only without a cache: with its
    default (`use_cache` true) documents see each other, silently.
    """
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def masked_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats over the labels that are not -100; 0 where there is none. Computed in float32."""
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
