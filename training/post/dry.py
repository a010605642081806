"""What a step would need, before it starts: parameters, steps, tokens at most, and memory by part.

The figures are those of training/plan/memory.py (mixed precision as torch's autocast keeps it); on a CPU all is float32
and activations take about twice as much. Not covered: LoRA's saving is counted for states, not for activations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.training.plan.flops import STAGES
from gristmill.training.plan.memory import loss_bytes, row_bytes, states
from gristmill.training.plan.shape import read_config
from gristmill.training.post.harness import Job


def needs(job: Job, *, seq_len: int, stage: str) -> dict[str, Any]:
    """As JSON: counts, and bytes of memory of one process. `stage` is one of plan's; `seq_len` the longest row."""
    shape = read_config(Path(job.start.file("config.json")))
    kind = STAGES[stage]
    rows = job.spec.rows // job.spec.accumulate
    trained = float(shape.parameters)
    if job.spec.lora is not None:
        # two factors per matrix, each as long as one of its sides
        trained = job.spec.lora.rank * shape.layers * lora_sides(shape)
    fixed = states(trained, 1, "ddp", "autocast")
    if job.spec.lora is not None:
        fixed["base"] = 4.0 * shape.parameters
    fixed["frozen"] = 4.0 * shape.parameters * kind.frozen if job.spec.lora is None else 0.0
    activations = rows * row_bytes(shape, seq_len, kind, job.spec.checkpointing, "autocast")
    fixed["loss"] = loss_bytes(shape, kind, rows * seq_len * kind.sequences)
    memory = {name: round(size) for name, size in fixed.items()} | {"activations": round(activations)}
    return {
        "parameters": shape.parameters,
        "trained": round(trained),
        "steps": job.spec.steps,
        "rows": job.spec.steps * job.spec.rows,
        "most_tokens": job.spec.steps * job.spec.rows * seq_len * kind.sequences,
        "memory": memory | {"total": sum(memory.values())},
        "standing": job.standing is not None,
    }


def lora_sides(shape: Any) -> int:
    """The sides of a layer's matrices, added up: queries, keys, values, output, and the three of the gated layer."""
    attention = 2 * (shape.width + shape.queries) + 2 * (shape.width + shape.keys)
    return attention + (3 if shape.gated else 2) * (shape.width + shape.ffn)
