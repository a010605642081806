"""What a training run will cost before it starts: tokens, loss, FLOPs, time, memory and data, by published formulas.

    plan(shape_of("1.3B"), chip("h100"), gpus=8, days=7)

Everything here is an estimate from formulas whose sources stand where they are computed (laws, flops, memory, chips);
`ROUGH` says how far each may be off, and goes out with every plan. The law kept here: a plan is a pure function of its
arguments and of the manifests it is given; it trains nothing, and opens no device. Not covered: what laws, flops and
memory do not cover.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.plan import flops, laws, memory
from gristmill.training.plan.chips import Chip
from gristmill.training.plan.shape import Shape

HOUR = 3600.0
RECOMPUTED = 4 / 3  # one more forward pass: Korthikanti et al. 2022, section 6

#: How far the parts of a plan may be off, in words that are printed with it.
ROUGH = {
    "loss": "of the laws' own corpus and tokenizer: compare plans by it, do not expect it",
    "time": "as good as the utilisation it assumes, which is 0.15 to 0.5 in practice: measure 20 steps and give --mfu",
    "memory": "what transformers keeps with flash attention, uncompiled; a tenth of the chip is left for the rest",
}

#: The settings tried, from the fastest on: a run takes the first of which a row fits.
SETTINGS = (("ddp", False), ("fsdp", False), ("ddp", True), ("fsdp", True))


def plan(
    shape: Shape,
    chip: Chip,
    *,
    gpus: int = 1,
    days: float | None = None,
    tokens: int | None = None,
    seq_len: int = 4096,
    stage: str = "pretrain",
    precision: str = "autocast",
    mfu: float | None = None,
    price: float | None = None,
    data: Sequence[Dataset] = (),
) -> dict[str, Any]:
    """The plan as JSON-able data, every unit in the name or its docstring: bytes, FLOPs, hours, tokens.

    `tokens` of a pretraining are 20 per parameter where not given; of another stage they must be given to learn a time.
    `price` is for one GPU and one hour, in any currency. `data` are packed datasets whose tokens may be trained on.
    Raises InputError for arguments that no run can have.
    """
    _check(gpus, days, tokens, seq_len, stage, precision, mfu, price)
    what = flops.STAGES[stage]
    used, source = (mfu, "given") if mfu is not None else flops.MFU.get(stage, flops.MFU["other"])
    if tokens is None and stage == "pretrain":
        tokens = round(laws.chinchilla_tokens(shape.parameters))
    budgets = {name: _memory(shape, seq_len, chip, gpus, name, precision) for name in flops.STAGES}
    setting = budgets[stage]["setting"]
    slower = RECOMPUTED if setting is not None and setting["checkpointing"] else 1.0
    per_token = flops.stage_flops(shape, seq_len, what)
    rate = flops.token_rate(per_token, chip, gpus, used) / slower
    return {
        "model": {**dataclasses.asdict(shape), "parameters": shape.parameters},
        "hardware": {**dataclasses.asdict(chip), "gpus": gpus},
        "stage": stage,
        "seq_len": seq_len,
        "precision": precision,
        "tokens": tokens,
        "flops_per_token": {**flops.token_flops(shape, seq_len), "stage": per_token},
        "mfu": {"value": used, "source": source, "slower_by_checkpointing": slower},
        "tokens_per_second": rate,
        "memory": budgets,
        "laws": _laws(shape, tokens) if stage == "pretrain" else None,
        "run": None if tokens is None else _run(shape, tokens, per_token, rate, gpus, days, price),
        "in_days": None if days is None else _affordable(shape, days, rate, stage),
        "generation": _generation(shape, seq_len, chip, gpus, what, budgets[stage], tokens),
        "data": [_data(dataset, tokens) for dataset in data],
        "rough": ROUGH,
    }


def _check(
    gpus: int, days: float | None, tokens: int | None, seq_len: int, stage: str, precision: str,
    mfu: float | None, price: float | None,
) -> None:  # fmt: skip
    if stage not in flops.STAGES:
        raise InputError(f"no stage {stage!r}; there are: {', '.join(flops.STAGES)}")
    if precision not in memory.PRECISIONS:
        raise InputError(f"no precision {precision!r}; there are: {', '.join(memory.PRECISIONS)}")
    for name, value in (("gpus", gpus), ("days", days), ("tokens", tokens), ("price", price)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value}: it must be above 0")
    if seq_len < 2:
        raise InputError(f"seq_len is {seq_len}: a row of at least 2 tokens has something to predict")
    if mfu is not None and not 0 < mfu <= 1:
        raise InputError(f"mfu is {mfu}: a share of the peak, above 0 and at most 1 (0.4 is 40 %)")


def _laws(shape: Shape, tokens: int | None) -> dict[str, Any]:
    """Optimal tokens for these parameters, and the loss after `tokens`, by each law."""
    n = shape.parameters
    return {
        "chinchilla": {"tokens": laws.chinchilla_tokens(n), "source": "20 per parameter, Hoffmann et al. 2022"},
        **{
            name: {
                "tokens": law.tokens_for(n),
                "loss": None if tokens is None else law.loss(n, tokens),
                "source": law.source,
            }
            for name, law in laws.LAWS.items()
        },
    }


def _run(
    shape: Shape, tokens: int, per_token: float, rate: float, gpus: int, days: float | None, price: float | None
) -> dict[str, Any]:
    """The run over `tokens`: FLOPs both ways of counting, wall hours, GPU hours, cost, whether the days suffice."""
    hours = tokens / rate / HOUR
    return {
        "flops_6nd": flops.six_nd(shape.parameters, tokens),
        "flops": per_token * tokens,
        "hours": hours,
        "gpu_hours": hours * gpus,
        "cost": None if price is None else price * hours * gpus,
        "fits": None if days is None else hours <= 24 * days,
    }


def _affordable(shape: Shape, days: float, rate: float, stage: str) -> dict[str, Any]:
    """Tokens that the days allow at this size; for pretraining also which size would make the best of the FLOPs."""
    tokens = rate * days * 24 * HOUR
    best = {}
    if stage == "pretrain":
        spent = flops.six_nd(shape.parameters, tokens)
        splits = {"chinchilla": laws.chinchilla_split(spent), **{k: law.split(spent) for k, law in laws.LAWS.items()}}
        best = {name: {"parameters": n, "tokens": d} for name, (n, d) in splits.items()}
    return {"days": days, "tokens": tokens, "best": best}


def _memory(shape: Shape, seq_len: int, chip: Chip, gpus: int, name: str, precision: str) -> dict[str, Any]:
    """Every sharding with and without checkpointing, the first of SETTINGS that fits, and the fewest GPUs."""
    stage = flops.STAGES[name]
    tried = {
        (sharding, checkpointing): memory.budget(shape, seq_len, chip, gpus, stage, sharding, checkpointing, precision)
        for sharding in memory.SHARDINGS
        for checkpointing in (False, True)
    }
    fits = next((setting for setting in SETTINGS if tried[setting].rows), None)
    least = memory.least_gpus(shape, seq_len, chip, stage, precision)
    return {
        "usable_bytes": round(memory.USABLE * chip.memory),
        "sequences_per_row": stage.sequences,
        "budgets": [
            {"sharding": sharding, "checkpointing": checkpointing, **memory.as_json(budget)}
            for (sharding, checkpointing), budget in tried.items()
        ],
        "setting": None if fits is None else {"sharding": fits[0], "checkpointing": fits[1], "rows": tried[fits].rows},
        "least_gpus": least,
        "kv_bytes_per_sequence": memory.kv_bytes(shape) * seq_len,
    }


def _generation(
    shape: Shape, seq_len: int, chip: Chip, gpus: int, stage: flops.Stage, needed: dict[str, Any], tokens: int | None
) -> dict[str, Any] | None:
    """Sampling the rollouts, at best: as many sequences at once as the engine's share holds or, where the policy itself
    generates, as what is free between updates. None where nothing is sampled or nothing fits."""
    setting = needed["setting"]
    if not stage.generates or setting is None:
        return None
    if stage.engine:
        sequences = memory.engine_sequences(shape, seq_len, chip)
    else:
        chosen = (setting["sharding"], setting["checkpointing"])
        fixed = next(b["fixed_bytes"] for b in needed["budgets"] if (b["sharding"], b["checkpointing"]) == chosen)
        free = needed["usable_bytes"] - fixed["total"]
        sequences = max(1, free // needed["kv_bytes_per_sequence"])
    rate = flops.decode_rate(shape, seq_len, chip, sequences) * gpus
    return {
        "sequences_per_gpu": sequences,
        "tokens_per_second": rate,
        "hours": None if tokens is None else tokens / rate / HOUR,
    }


def _data(dataset: Dataset, tokens: int | None) -> dict[str, Any]:
    """One packed dataset: how many epochs the run takes of it, and what those are worth in fresh tokens."""
    unique = packed_tokens(dataset)
    worth = None if tokens is None or not unique else laws.effective_tokens(unique, tokens)
    return {
        "name": dataset.name,
        "key": dataset.key,
        "seq_len": dataset.base.manifest["ops"][-1]["params"].get("seq_len"),
        "tokens": unique,
        "epochs": None if tokens is None or not unique else tokens / unique,
        "worth_tokens": worth,
        "worth": None if worth is None or tokens is None else worth / tokens,
    }


def packed_tokens(dataset: Dataset) -> int:
    """Tokens of a packed dataset by its manifest's statistics; those of a view by its share of the rows.

    A mixture counts what was drawn, repeats included. Raises InputError for a dataset that is not packed.
    """
    base = dataset.base
    if base.kind != "tokens":
        raise InputError(f"{dataset.name} at {dataset.path} is of kind {base.kind!r}, not packed 'tokens'")
    stats = base.manifest["stats"]
    total = stats.get("tokens", sum(n for name, n in stats.items() if name.startswith("tokens.")))
    return round(total * dataset.rows / base.rows) if base.rows else 0
