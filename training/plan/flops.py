"""FLOPs of a stage, and the time they take.

A multiply-add is two FLOPs, a backward pass costs two forward passes (Kaplan et al. 2020, section 2.1). Model FLOPs
only: what recomputation repeats is not counted, so times are utilisation of the *model's* FLOPs, MFU, as Chowdhery et
al. 2022 (PaLM, appendix B) define it, with attention counted over the full square.

The law kept here: the speed is devices x peak x MFU / FLOPs per token, and nothing else. Not covered: waiting for data,
checkpoints, evaluation, failures; a run of weeks loses several percent to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.training.plan.chips import Chip
from gristmill.training.plan.shape import Shape


@dataclass(frozen=True)
class Stage:
    """What a stage runs over each of its tokens, in passes of a model of this size.

    `trained` models get a forward and a backward pass, `forwards` more passes have no gradient. `frozen` models stand
    in memory beside the trained ones, `sequences` make up one row (a pair has two), and `generates` says whether the
    tokens are sampled first; `engine` whether a vLLM of its own does that in the same memory. `loss` is how logits are
    computed (memory.py): "chunks" as our pretraining does, "tiles" as TRL does, "whole" all of a piece at once.
    """

    trained: int
    forwards: int
    frozen: int
    sequences: int = 1
    generates: bool = False
    engine: bool = False
    loss: str = "tiles"


STAGES = {
    "pretrain": Stage(trained=1, forwards=0, frozen=0, loss="chunks"),
    "sft": Stage(trained=1, forwards=0, frozen=0),
    # The reference's forward pass (Rafailov et al. 2023); none where its log-probabilities are precomputed.
    "dpo": Stage(trained=1, forwards=1, frozen=1, sequences=2),
    # Policy and value are trained, reference and reward stand by (Ouyang et al. 2022): all four of one size, and each
    # gives one forward pass over a rollout before the update.
    "ppo": Stage(trained=2, forwards=4, frozen=2, generates=True, loss="whole"),
    # No value model (Shao et al. 2024), no reference since TRL's beta is 0; one pass for the sampler's probabilities.
    "grpo": Stage(trained=1, forwards=1, frozen=0, generates=True, engine=True),
}

#: The default utilisation and where it comes from. Small models, short rows and slow links reach far less.
MFU = {
    "pretrain": (0.40, "Llama team 2024, table 4: 38 to 43 % for 405B on H100 in bf16"),
    "other": (0.25, "prime-rl's published benchmarks: 17 to 37 % for 0.6B to 4B on 1 to 8 H100"),
}


def six_nd(parameters: float, tokens: float) -> float:
    """Training FLOPs as C = 6 N D (Kaplan et al. 2020, equation 2.2, with N of all parameters as Hoffmann et al.)."""
    return 6 * parameters * tokens


def token_flops(shape: Shape, seq_len: int) -> dict[str, float]:
    """Training FLOPs per token by part: forward and backward, three forward passes' worth.

    `layers` 6 per parameter of the matrices; `attention` 12 x layers x queries x seq_len (Chowdhery et al. 2022,
    appendix B; packed documents and causal kernels do about half of it or less); `logits` 6 x width x vocabulary.
    Looking up an embedding costs none.
    """
    return {
        "layers": 6.0 * shape.layers * shape.matrices,
        "attention": 12.0 * shape.layers * shape.queries * seq_len,
        "logits": 6.0 * shape.width * shape.vocab_size,
    }


def stage_flops(shape: Shape, seq_len: int, stage: Stage) -> float:
    """FLOPs per token of a stage without its generation; a forward pass is a third of a training pass."""
    return sum(token_flops(shape, seq_len).values()) * (stage.trained + stage.forwards / 3)


def token_rate(per_token: float, chip: Chip, gpus: int, mfu: float) -> float:
    """Tokens per second over all GPUs, at so many model FLOPs per token."""
    return chip.peak * gpus * mfu / per_token


def decode_rate(shape: Shape, seq_len: int, chip: Chip, sequences: int) -> float:
    """At best so many tokens a second are sampled on one device that decodes `sequences` at once.

    A step reads all weights and every sequence's keys and values, half of seq_len on average, from memory (Pope et al.
    2022); compute, sampling and prompts are taken as free, so real engines reach about half of this.
    """
    read = 2.0 * shape.parameters + sequences * kv_bytes(shape) * seq_len / 2
    return sequences * chip.bandwidth / read


def kv_bytes(shape: Shape) -> int:
    """Keys and values of one token in bfloat16, over all layers: 2 x 2 bytes x layers x keys."""
    return 4 * shape.layers * shape.keys
