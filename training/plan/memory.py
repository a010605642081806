"""Memory of one GPU in a stage: states, frozen models, activations, and how many rows fit.

    states       weights, gradients and Adam's two moments, whole under DDP, in `gpus` parts where sharded
    working      the bfloat16 weights that a pass needs beside float32 ones
    frozen       reference and reward models in bfloat16, sharded like the rest
    engine       the share of a colocated vLLM
    loss         a chunk of logits, and the float32 gradient of the output matrix that is added up over chunks
    activations  by the row: kept for the backward pass, all of them or (checkpointing) each layer's input

An estimate to choose a setting with, not to run at the brim of: `USABLE` of the memory is planned with, and the rest is
for the driver, communication buffers and fragmentation. The law kept here: more GPUs never hold less, and checkpointing
never costs memory. Not covered: LoRA, quantised optimisers, offloading, tensor, pipeline and context parallelism,
and attention that materialises its scores (eager attention adds at least 5 x heads x seq_len**2 bytes a layer and row:
Korthikanti et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gristmill.training.plan.chips import Chip
from gristmill.training.plan.flops import Stage, kv_bytes
from gristmill.training.plan.shape import Shape

USABLE = 0.9  # of a chip's memory

#: Bytes per trained parameter: weights, gradients, optimizer.
PRECISIONS = {
    "autocast": (4, 4, 8),  # float32 weights, Adam in float32; what torch's autocast and FSDP2's mixed precision keep
    "master": (2, 2, 12),  # bfloat16 weights, a float32 copy with the moments: ZeRO (Rajbhandari et al. 2020, 3.1)
    "bf16": (2, 2, 4),  # all in bfloat16; small updates are lost to rounding unless it is stochastic
}

#: What each way of sharding cuts into parts (Rajbhandari et al. 2020, section 5; FSDP is stage 3).
SHARDINGS: dict[str, tuple[str, ...]] = {
    "ddp": (),
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "gradients"),
    "fsdp": ("optimizer", "gradients", "weights"),
}

#: Bytes per token and width around a layer's two norms: 8 in Korthikanti et al. 2022 (inputs and outputs in bfloat16).
#: transformers computes norms in float32 and keeps that input and both results; autocast casts a copy for each matrix.
NORMS = {"autocast": 26, "master": 16, "bf16": 16}

#: Bytes per logit at the peak of the loss, by `Stage.loss`. chunks: model.slopes as it runs without torch.compile, from
#: bfloat16 logits (17 from float32 ones). tiles: TRL's fused head, whose Triton kernel turns logits into gradients in
#: place. whole: logits in bfloat16, log-probabilities in float32, and their two gradients in float32.
LOGIT_BYTES = {"chunks": 19, "tiles": 2, "whole": 14}
CHUNK = 1 << 27  # logits at once: model.CHUNK, and TRL's tiles of 4,096 tokens by TILE of the vocabulary
TILE = 32_768
VLLM_SHARE = 0.3  # of the memory: TRL's default for a colocated engine


def states(parameters: float, gpus: int, sharding: str, precision: str) -> dict[str, float]:
    """Bytes per GPU of weights, gradients and optimizer states.

    16 bytes per parameter in mixed precision, 120 GB for 7.5B: Rajbhandari et al. 2020 (ZeRO), figure 1. DDP's
    buckets are taken as views of the gradients (gradient_as_bucket_view), else they are there twice.
    """
    names = ("weights", "gradients", "optimizer")
    sizes = dict(zip(names, PRECISIONS[precision], strict=True))
    return {name: size * parameters / (gpus if name in SHARDINGS[sharding] else 1) for name, size in sizes.items()}


def layer_bytes(shape: Shape, precision: str) -> int:
    """Bytes that one layer keeps per token for its backward pass, with flash attention and without torch.compile.

    Counted as Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1 do, whose GPT layer keeps (34 + 5 a s / h) s b h:
    less the two dropout masks and the attention's square. Norms and what follows them NORMS; queries and attention's
    output 2 x 2, keys and values 2 x 2, two matrices' outputs, the activation's and the product 4 x 2 (2 x 2 ungated);
    a float32 per head for the softmax (Dao et al. 2022) and one per norm. This is what transformers' Llama keeps, to
    the byte; fused norms or torch.compile keep up to 18 bytes per token and width less.
    """
    mlp = (8 if shape.gated else 4) * shape.ffn
    return NORMS[precision] * shape.width + 4 * shape.queries + 4 * shape.keys + mlp + 4 * shape.heads + 8


def row_bytes(shape: Shape, seq_len: int, stage: Stage, checkpointing: bool, precision: str) -> float:
    """Bytes of activations that one row adds at the peak.

    With checkpointing every layer keeps its input alone, 2 s b h in bfloat16 (Korthikanti et al. 2022, section 5) and
    twice that under autocast, whose residual stream is float32; one layer at a time is computed again, after the logits
    are gone. All trained models are taken as alive at once. A loss in chunks or tiles adds the hidden states' gradient
    (ours both in bfloat16, TRL's in float32) and no logits: those are `loss_bytes`.
    """
    layer = layer_bytes(shape, precision)
    logits = LOGIT_BYTES["whole"] * shape.vocab_size if stage.loss == "whole" else 4 * shape.width
    stream = 4 if precision == "autocast" else 2
    ends = NORMS[precision] // 2 * shape.width  # the final norm
    if checkpointing:
        kept = stream * shape.width * shape.layers * stage.trained + max(layer, logits)
    else:
        kept = layer * shape.layers * stage.trained + logits
    return float((kept + ends) * seq_len * stage.sequences)


def loss_bytes(shape: Shape, stage: Stage, tokens: int | None = None) -> float:
    """Bytes that the loss takes beside what each row adds: one chunk of logits, of CHUNK or, where there are not so
    many, all those of the `tokens` of a pass, and the output matrix' gradient in float32. Where a layer is computed
    again later they are gone; they are counted all the same."""
    if stage.loss == "whole":
        return 0.0
    wide = TILE if stage.loss == "tiles" else shape.vocab_size
    logits = CHUNK if tokens is None else min(CHUNK, tokens * wide)
    return float(LOGIT_BYTES[stage.loss] * logits + 4 * shape.vocab_size * shape.width)


@dataclass(frozen=True)
class Budget:
    """Bytes per GPU: what stands before the first row, by part, and what each row adds; `rows` that fit (0: none)."""

    fixed: dict[str, float]
    row: float
    usable: float

    @property
    def rows(self) -> int:
        return max(0, int((self.usable - sum(self.fixed.values())) // self.row))


def budget(
    shape: Shape, seq_len: int, chip: Chip, gpus: int, stage: Stage, sharding: str, checkpointing: bool, precision: str
) -> Budget:
    """What a stage needs of one GPU. `sharding` is one of SHARDINGS, `precision` one of PRECISIONS."""
    parts = gpus if "weights" in SHARDINGS[sharding] else 1
    fixed = {name: size * stage.trained for name, size in states(shape.parameters, gpus, sharding, precision).items()}
    fixed["working"] = _working(shape, parts, precision) * stage.trained
    fixed["frozen"] = 2.0 * shape.parameters * stage.frozen / parts
    fixed["engine"] = engine_bytes(shape, seq_len, chip) if stage.engine else 0.0
    fixed["loss"] = loss_bytes(shape, stage)
    return Budget(fixed, row_bytes(shape, seq_len, stage, checkpointing, precision), USABLE * chip.memory)


def _working(shape: Shape, parts: int, precision: str) -> float:
    """Whole: autocast keeps a bfloat16 copy of what it has cast. Sharded: two layers are gathered at a time (one at
    work, one fetched ahead) with one layer's gradients, and the embeddings, which FSDP's root unit keeps. FSDP2 gathers
    in bfloat16 where its mixed-precision policy says so; without one, autocast doubles what is gathered."""
    if parts == 1:
        return 2.0 * shape.parameters if precision == "autocast" else 0.0
    return 2.0 * (2 * shape.matrices + shape.embeddings) + PRECISIONS[precision][1] * shape.matrices


def engine_bytes(shape: Shape, seq_len: int, chip: Chip) -> float:
    """What a colocated vLLM takes: TRL's default share, or its weights and one full sequence where that is more."""
    return max(VLLM_SHARE * chip.memory, 2.0 * shape.parameters + kv_bytes(shape) * seq_len)


def engine_sequences(shape: Shape, seq_len: int, chip: Chip) -> int:
    """How many full sequences of keys and values a colocated vLLM holds beside its weights, at least 1."""
    left = engine_bytes(shape, seq_len, chip) - 2.0 * shape.parameters
    return max(1, int(left // (kv_bytes(shape) * seq_len)))


def least_gpus(shape: Shape, seq_len: int, chip: Chip, stage: Stage, precision: str) -> int | None:
    """The fewest GPUs on which one checkpointed row fits, sharded where there are several; None: on no number."""
    for gpus in (*range(1, 9), *(8 * nodes for nodes in range(2, 129))):
        if budget(shape, seq_len, chip, gpus, stage, "fsdp", True, precision).rows:
            return gpus
    return None


def as_json(found: Budget) -> dict[str, Any]:
    """Whole bytes."""
    fixed = {name: round(size) for name, size in found.fixed.items()}
    return {"rows": found.rows, "row_bytes": round(found.row), "fixed_bytes": {**fixed, "total": sum(fixed.values())}}
