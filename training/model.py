"""Llama and Qwen shapes, and their loss over packed rows.

One dial is enough: depth sets all else unless told. Width is 64 x depth, heads are 64 wide (32 below depth 4, so that
there are several), the SwiGLU layer is 8/3 of the width, embeddings are tied. The architecture is transformers' own, so
that what is trained here loads anywhere.

`Objective` is what pretraining runs: it takes the loss chunk by chunk and the gradients with it, since float32 logits
of all tokens at once would be the largest thing in memory. `logits` and `losses` say the same the plain way.

The law kept here: attention does not cross documents. The logits of a document do not depend on what it is packed with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from gristmill.dataops.dataset import InputError
from gristmill.training.pretraining.attention import boundaries, by_documents
from gristmill.training.shards import IGNORED, Batch
from gristmill.training.spec import check_fields

#: Architectures of transformers whose logits are the last hidden states times the output matrix, and nothing else.
FAMILIES = ("llama", "mistral", "olmo2", "qwen2", "qwen3")
CHUNK = 1 << 27  # logits computed at once: 512 MiB in float32


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


def build(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
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


@dataclass(frozen=True)
class Piece:
    """Rows on their way through the model: int64 [rows, seq_len], and `attention.boundaries` of them."""

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    ends: torch.Tensor
    longest: int

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Piece:
        """A batch in host memory, brought to a device without waiting for it."""
        ends, longest = boundaries(batch.positions)
        ends = ends.pin_memory() if device.type == "cuda" else ends
        there = batch.to(device)
        return cls(there.tokens, there.labels, there.positions, ends.to(device, non_blocking=True), longest)


class Objective(torch.nn.Module):
    """A causal language model and its loss. `checkpointing` computes a layer's activations twice instead of keeping
    them; `compiled` runs each layer, and the slopes of the loss, through torch.compile.

    Raises InputError for an architecture that has not been held against `logits`.
    """

    def __init__(self, model: PreTrainedModel, *, checkpointing: bool = False, compiled: bool = False) -> None:
        super().__init__()
        if model.config.model_type not in FAMILIES:
            raise InputError(
                f"a model of type {model.config.model_type!r} cannot be pretrained; there are: {', '.join(FAMILIES)}"
            )
        self.model: Any = model  # torch and transformers type attributes of modules as tensors or modules
        by_documents(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if compiled:
            for layer in self.layers:
                layer.compile()
        self.slopes: Slopes = torch.compile(slopes) if compiled else slopes

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The decoder's."""
        return self.model.model.layers

    def forward(self, piece: Piece, z_loss: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 sums over the piece's targets: of what is to be minimised, loss + z_loss x the squared log-sum of
        the logits, and of the loss in nats alone, which has no gradient."""
        told = self.model.model(
            input_ids=piece.tokens, position_ids=piece.positions, use_cache=False,
            cu_seq_lens_q=piece.ends, max_length_q=piece.longest,
        )  # fmt: skip
        hidden, labels = told.last_hidden_state.flatten(0, 1), piece.labels.flatten()
        weight = self.model.lm_head.weight
        if torch.is_grad_enabled():
            return Chunked.apply(hidden, weight, labels, z_loss, self.slopes)
        loss, squares, _, _ = _in_chunks(hidden, weight, labels, z_loss, self.slopes, learn=False)
        return loss + z_loss * squares, loss


#: (logits, labels, z_loss) to the sums of loss and squares, and to the gradient by the logits.
Slopes = Callable[[torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, ...]]


def slopes(scores: torch.Tensor, labels: torch.Tensor, z_loss: float) -> tuple[torch.Tensor, ...]:
    """Of logits [tokens, vocab] and labels [tokens]: `losses`, and the gradient of loss + z_loss x squares by logits.

    d loss / d logit = p - [the target], d logsumexp**2 / d logit = 2 logsumexp p.
    """
    exact = scores.float()
    counts = (labels != IGNORED)[:, None]
    targets = labels.clamp_min(0)[:, None]
    sums = torch.logsumexp(exact, dim=-1, keepdim=True)
    loss = (sums - exact.gather(1, targets)) * counts
    squares = sums.square() * counts
    gradient = torch.exp(exact - sums) * (1 + 2 * z_loss * sums)
    wanted = torch.arange(scores.shape[1], device=scores.device) == targets
    return loss.sum(), squares.sum(), ((gradient - wanted.float()) * counts).to(scores.dtype)


class Chunked(torch.autograd.Function):
    """The sums of `Objective.forward` with their gradients, which are computed on the way: three products of matrices
    per chunk, none of them twice, and no more than one chunk of logits at a time."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float, slopes: Slopes
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss, squares, by_hidden, by_weight = _in_chunks(hidden, weight, labels, z_loss, slopes, learn=True)
        ctx.save_for_backward(by_hidden, by_weight)
        wanted = loss + z_loss * squares
        ctx.mark_non_differentiable(loss)
        return wanted, loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_hidden, by_weight = ctx.saved_tensors
        return by_hidden * grads[0], by_weight * grads[0], None, None, None


def _in_chunks(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float, slopes: Slopes, *, learn: bool
) -> tuple[torch.Tensor, ...]:
    """Sums of loss and squares; with `learn` also the gradients by `hidden` and by `weight`, this one in float32."""
    if torch.is_autocast_enabled(hidden.device.type):  # once, and not for every chunk
        kind = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(kind), weight.to(kind)
    loss = squares = torch.zeros((), device=hidden.device)
    by_hidden = torch.empty_like(hidden) if learn else loss
    by_weight = torch.zeros_like(weight, dtype=torch.float32) if learn else loss
    size = max(1, CHUNK // len(weight))
    for start in range(0, len(hidden), size):
        here = slice(start, start + size)
        more_loss, more_squares, by_logits = slopes(hidden[here] @ weight.T, labels[here], z_loss)
        loss, squares = loss + more_loss, squares + more_squares
        if learn:
            by_hidden[here] = by_logits @ weight
            by_weight += by_logits.T @ hidden[here]
    return loss, squares, by_hidden, by_weight
