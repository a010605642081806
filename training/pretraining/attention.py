"""Attention over packed rows: every document is a sequence of its own.

Rows are laid end to end and cut where documents start, so that nothing is computed between documents and no mask of
[seq_len, seq_len] exists. On a GPU this is PyTorch's FlashAttention over sequences of different lengths (varlen_attn,
after Dao 2023), whole or inside torch.compile; on a CPU its scaled_dot_product_attention, document by document.
transformers calls `attend` by the name DOCUMENTS.

The law kept here: attention does not cross documents, nor rows. Not covered: sliding windows, dropout and whatever else
an architecture asks of its attention beyond plain causal softmax; such a model is refused.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from gristmill.dataops.dataset import InputError

DOCUMENTS = "gristmill_documents"
CAUSAL = (-1, 0)  # varlen_attn's window: all before, nothing after


def boundaries(positions: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where documents start when the rows of int64 [rows, seq_len] are laid end to end, and the end; and the longest.

    Position 0 starts a document, and so does a row. Both are rounded up to a power of two, the starts (int32) by empty
    documents at the end, so that a compiled model meets few shapes.
    """
    starts = positions == 0
    starts[:, 0] = True
    at = starts.flatten().nonzero().flatten()
    documents = 1 << (len(at) - 1).bit_length()
    ends = torch.full((documents + 1,), positions.numel(), dtype=torch.int32)
    ends[: len(at)] = at
    longest = int(ends.diff().max())
    return ends, min(1 << (longest - 1).bit_length(), positions.shape[1])


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of [rows, heads, seq_len, head_dim] as [rows, seq_len, heads, head_dim]; what transformers calls
    cu_seq_lens_q and max_length_q are `boundaries`. Raises InputError for a model with dropout or windows."""
    if dropout or sliding_window is not None or others.get("softcap") is not None or others.get("s_aux") is not None:
        raise InputError(
            f"{type(module).__name__} asks for dropout, a sliding window, capped scores or sinks: pretraining covers "
            "plain causal attention"
        )
    rows, heads, length, width = query.shape
    # Rotary embeddings come out in float32 under autocast, which does not know varlen_attn.
    query, key, value = (part.transpose(1, 2).flatten(0, 1).to(value.dtype) for part in (query, key, value))
    if query.is_cuda:
        out: Any = varlen_attn(
            query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
            scale=scaling, window_size=CAUSAL, enable_gqa=True,
        )  # fmt: skip
    else:
        out = _one_by_one(query, key, value, cu_seq_lens_q, scaling)
    return out.view(rows, length, heads, width), None


@torch.compiler.disable
def _one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, scaling: float
) -> torch.Tensor:
    """What varlen_attn does, for [tokens, heads, head_dim] on any device."""
    shared = query.shape[1] // key.shape[1]
    parts = [part.transpose(0, 1) for part in (query, key, value)]
    if shared > 1:
        parts[1:] = [part.repeat_interleave(shared, 0) for part in parts[1:]]
    lengths = [n for n in ends.diff().tolist() if n]
    cut = zip(*(part.split(lengths, dim=1) for part in parts), strict=True)
    done = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in cut]
    return torch.cat(done, dim=1).transpose(0, 1)


def by_documents(model: PreTrainedModel) -> None:
    """Let a model of transformers call `attend` from now on."""
    model.set_attn_implementation(DOCUMENTS)


AttentionInterface.register(DOCUMENTS, attend)
