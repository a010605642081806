"""Llama and Qwen shapes, and their loss over packed rows.

One dial is enough: depth sets all else unless told. Width is 64 x depth, heads are 64 wide (32 below depth 4, so that
there are several), the SwiGLU layer is 8/3 of the width, embeddings are tied. The architecture is transformers' own, so
that what is trained here loads anywhere.

The law kept here: attention does not cross documents. The logits of a document do not depend on what it is packed with.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen3Config

from gristmill.dataops.dataset import InputError
from gristmill.training.shards import IGNORED
from gristmill.training.spec import check_fields


@dataclass(frozen=True)
class Shape:
    """A decoder's size. What is None follows from depth as above; `kv_heads` below `heads` share keys and values among
    groups of queries (GQA, Ainslie et al. 2023); `tied` shares the embedding with the output layer."""

    family: Literal["llama", "qwen3"] = "llama"
    depth: int = 4
    width: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    hidden: int | None = None
    tied: bool = True

    def __post_init__(self) -> None:
        """Raises InputError for what cannot be built, naming the field."""
        check_fields(self, "model")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is int and value < 1:
                raise InputError(f"model: {field.name} is {value}; it must be above 0")
        width, heads, kv_heads = self.sizes
        if width % heads or heads % kv_heads:
            raise InputError(f"model: width {width} divides by {heads} heads, and these by {kv_heads} kv_heads")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Width, heads, kv_heads."""
        width = 64 * self.depth if self.width is None else self.width
        heads = self.heads
        if heads is None:
            heads = max(1, width // 64) if self.depth >= 4 else 2 * self.depth
        return width, heads, heads if self.kv_heads is None else self.kv_heads


def configuration(
    shape: Shape, vocab_size: int, *, seq_len: int = 4096, eod: int | None = None
) -> LlamaConfig | Qwen3Config:
    """transformers' configuration; `eod`, the token that ends a document, also ends what is generated."""
    width, heads, kv_heads = shape.sizes
    # 8/3 of the width (Shazeer 2020), rounded up to a multiple of 64
    hidden = -(-8 * width // (3 * 64)) * 64 if shape.hidden is None else shape.hidden
    made = {"llama": LlamaConfig, "qwen3": Qwen3Config}[shape.family]
    return made(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=shape.depth,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=width // heads,
        max_position_embeddings=seq_len,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,  # the defaults 1 and 2 are ordinary tokens of our vocabularies
        eos_token_id=eod,
    )


def build(config: LlamaConfig | Qwen3Config, seed: int) -> PreTrainedModel:
    """A model with fresh weights in float32 on the CPU: the same for a seed whatever device it moves to."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def logits(model: torch.nn.Module, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[rows, seq_len, vocab] for packed rows, int64 [rows, seq_len]; position 0 starts a document.

    transformers derives the mask between documents from restarting positions, but only without a cache: with its
    default (`use_cache` true) documents see each other, silently.
    """
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over the labels that are not -100, in float32: of the loss in nats, and of the squared log-sum of logits."""
    flat, targets = logits.float().flatten(0, 1), labels.flatten()
    loss = F.cross_entropy(flat, targets, ignore_index=IGNORED, reduction="sum")
    squares = torch.logsumexp(flat, dim=-1).square()
    return loss, squares.masked_fill(targets == IGNORED, 0.0).sum()
