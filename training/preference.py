"""Preference optimisation: pairs (or thumbs) and a checkpoint in, a checkpoint that prefers the chosen replies out.

    python -m gristmill.training.preference --spec spec.json [--dry-run]

The DPO family and KTO are TRL's; ORPO and SimPO, which need no reference model, are ours (preferences/losses.py). The
reference is the checkpoint that training starts from: kept in memory beside the policy, or read from a dataset of its
log-probabilities (training/logprobs.py), or, with LoRA, the model with its adapters off.

The laws: no sequence is cut, rows longer than the model's window are left out and counted; whether held-out pairs are
told apart, and how far the chosen replies have fallen, is measured before and after, with intervals. Not covered: a
reference other than the start.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from gristmill.training.step import main  # isort: skip  # sets the environment before torch loads

import numpy as np

from gristmill.dataops.dataset import Dataset
from gristmill.training.checkpoint import load_model
from gristmill.training.post.data import epochs, planned
from gristmill.training.post.dry import needs
from gristmill.training.post.harness import Job, open_job
from gristmill.training.preferences.losses import orpo, simpo
from gristmill.training.preferences.rows import PAIRS, THUMBS, Rows, in_pairs, join_reference, read_rows
from gristmill.training.preferences.spec import DPO, KTO, OWN, WORLD, PreferenceSpec
from gristmill.training.preferences.thumbs import tally
from gristmill.training.spec import open_input

OP, VERSION = "preference", 1


def run(spec: PreferenceSpec) -> Dataset:
    """Train and publish, or take what stands. Raises InputError where the data is refused, Stopped at SIGTERM."""
    job = _open(spec)
    if job.standing is not None:
        return job.standing
    from gristmill.training.preferences import held as measured
    from gristmill.training.preferences import trainer as trainers

    model = job.model()
    sources = _read(spec, job, model.config)
    if spec.reference is not None:
        reference = open_input(spec.reference.path, spec.reference.digest)
        sources = [join_reference(rows, reference, job.start, job.chat) for rows in sources]
    pad_id = job.chat.tokenizer.pad_token_id
    holding = [
        measured.hold(model, _rows(spec, job, item, model.config), spec.replies, pad_id) for item in job.validation
    ]
    trainer = _trainer(spec, job, model, sources)
    watch = measured.Falling(spec.beta if spec.loss in (*DPO, *KTO) else None, _mean_length(spec, sources))
    trainer.add_callback(watch)
    piece = spec.rows // (spec.accumulate * WORLD)
    collators = [_held_collator(spec, pad_id, item, _window(model.config)) for item in holding]

    def losses() -> list[float]:
        return [
            trainers.mean_loss(trainer, collate, item.rows.table.num_rows, piece)
            for collate, item in zip(collators, holding, strict=True)
        ]

    before = losses()
    logged = job.fit(trainer)
    after = losses()
    told = {}
    for item, first, last in zip(holding, before, after, strict=True):
        found = measured.compare(item, trainer.model, pad_id)
        found["before"]["loss"], found["after"]["loss"] = first, last
        told[item.rows.label] = found
    counts = [rows.table.num_rows for rows in sources]
    weights = [source.weight for source in spec.data]
    total = spec.steps * spec.rows
    stats = {
        "rows": total,
        "epochs": epochs(counts, weights, total, [rows.label for rows in sources]),
        "too_long": {rows.label: rows.too_long for rows in [*sources, *(item.rows for item in holding)]},
        "chosen_fell_at": measured.fell_at(logged, watch.beta, watch.tokens),
        "validation": told,
    }
    if spec.loss in KTO:
        stats |= tally(spec, sources, _window(model.config))
    return job.finish(trainer, logged, stats)


def dry(spec: PreferenceSpec) -> Mapping[str, Any]:
    """Steps, tokens and memory, and the rows that would be left out."""
    from transformers import AutoConfig

    job = _open(spec)
    config = AutoConfig.from_pretrained(job.start.file(""), local_files_only=True)
    sources = _read(spec, job, config)
    longest = max(int(rows.table["length"].to_numpy().max()) for rows in sources)
    if spec.loss in (*DPO, *KTO) and spec.reference is None:
        told = needs(job, seq_len=longest, stage="dpo")
    else:
        told = in_pairs(needs(job, seq_len=longest, stage="sft"))
    return {**told, "longest": longest, "too_long": {rows.label: rows.too_long for rows in sources}}


def _open(spec: PreferenceSpec) -> Job:
    return open_job(spec, OP, VERSION, [] if spec.reference is None else [spec.reference])


def _rows(spec: PreferenceSpec, job: Job, data: Dataset, config: Any) -> Rows:
    return read_rows(data, job.chat, config, spec.replies, ("label",) if spec.loss in KTO else ())


def _read(spec: PreferenceSpec, job: Job, config: Any) -> list[Rows]:
    return [_rows(spec, job, data, config) for data in job.data]


def _window(config: Any) -> int | None:
    return getattr(config, "max_position_embeddings", None)


def _mean_length(spec: PreferenceSpec, sources: list[Rows]) -> float:
    """Tokens of a chosen (or completed) reply, on average."""
    import pyarrow.compute as pc

    lengths = [pc.list_value_length(rows.table[spec.replies[0]]).to_numpy() for rows in sources]
    return float(np.concatenate(lengths).mean())


def _trainer(spec: PreferenceSpec, job: Job, model: Any, sources: list[Rows]) -> Any:
    """The loss's trainer over the planned rows."""
    from transformers import TrainingArguments
    from trl import DPOConfig, KTOConfig

    from gristmill.training.preferences import trainer as trainers

    pad_id = job.chat.tokenizer.pad_token_id
    optimizers = job.optimizers(model)
    common: dict[str, Any] = {
        "train_dataset": planned(
            [rows.table.num_rows for rows in sources], [source.weight for source in spec.data], spec.seed,
            spec.steps * spec.rows,
        ),
        "processing_class": job.chat.tokenizer,
        "optimizers": optimizers,
    }  # fmt: skip
    if spec.loss in OWN:
        shared: dict[str, Any] = {"beta": spec.beta, "label_smoothing": spec.label_smoothing}
        pair_loss = partial(orpo, **shared) if spec.loss == "orpo" else partial(simpo, **shared | {"gamma": spec.gamma})
        if spec.checkpointing and spec.lora is not None:
            model.enable_input_require_grads()  # else nothing that is recomputed has a gradient
        collate = trainers.pair_collator(trainers.Table(sources, PAIRS), pad_id, ())
        return trainers.ReferenceFree(
            model=model, args=job.arguments(TrainingArguments), data_collator=collate, pair_loss=pair_loss, **common
        )
    settings: dict[str, Any] = {"beta": spec.beta, "max_length": None}
    if spec.lora is None and spec.reference is None:
        common["ref_model"] = load_model(job.start).to(model.dtype)
    if spec.loss in KTO:
        table = trainers.Table(sources, THUMBS, ("label",))
        args = job.arguments(
            KTOConfig, loss_type=spec.loss, desirable_weight=spec.desirable_weight,
            undesirable_weight=spec.undesirable_weight, **settings,
        )  # fmt: skip
        collate = trainers.thumb_collator(table, pad_id, _window(model.config))
        return trainers.Kto(model=model, args=args, data_collator=collate, **common)
    numbers = () if spec.reference is None else ("ref_chosen_logps", "ref_rejected_logps")
    args = job.arguments(
        DPOConfig,
        loss_type=[spec.loss] if not spec.sft_weight else [spec.loss, "sft"],
        loss_weights=None if not spec.sft_weight else [1.0, spec.sft_weight],
        label_smoothing=spec.label_smoothing,
        precompute_ref_log_probs=spec.reference is not None,
        **settings,
    )
    collate = trainers.pair_collator(trainers.Table(sources, PAIRS, numbers), pad_id, numbers)
    return trainers.Dpo(model=model, args=args, data_collator=collate, **common)


def _held_collator(spec: PreferenceSpec, pad_id: int, held: Any, window: int | None) -> Any:
    """Held-out rows for the trainer's own loss; their reference is the start, which has just scored them."""
    import pyarrow as pa

    from gristmill.training.preferences import trainer as trainers

    if spec.loss in KTO:
        return trainers.thumb_collator(trainers.Table([held.rows], THUMBS, ("label",)), pad_id, window)
    numbers = () if spec.reference is None else ("ref_chosen_logps", "ref_rejected_logps")
    table = held.rows.table
    for name in numbers:
        column = name.removeprefix("ref_").replace("_logps", "_ids")
        table = table.append_column(name, pa.array(held.sums[column].astype(np.float32)))
    rows = Rows(held.rows.dataset, table, held.rows.too_long)
    return trainers.pair_collator(trainers.Table([rows], PAIRS, numbers), pad_id, numbers)


if __name__ == "__main__":
    sys.exit(main(PreferenceSpec, run, dry))
