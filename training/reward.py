"""Reward models: pairs and an SFT checkpoint in, a model that gives a conversation a number out.

    python -m gristmill.training.reward --spec spec.json [--dry-run]

TRL's RewardTrainer fits a Bradley-Terry model: the start's layers with one new output, so that sigmoid(reward of chosen
- reward of rejected) is the chance that people prefer the chosen reply. Use it through `open_reward`, or name
"gristmill.training.reward:scorer" with {"path": ..., "digest": ...} as a scorer of RL, best-of-n or evaluation.

The laws: no conversation is cut, rows longer than the window are left out and counted; accuracy, calibration and what
length has to do with them are measured on held-out pairs and stand in the manifest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gristmill.training.step import main  # isort: skip  # sets the environment before torch loads

import torch

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.chat import Chat
from gristmill.training.post.data import epochs, planned
from gristmill.training.post.dry import needs
from gristmill.training.post.harness import WORLD, Job, open_job, quiet
from gristmill.training.post.spec import PostSpec
from gristmill.training.preferences.held import ROWS
from gristmill.training.preferences.rewards import OP, judged, open_reward, scorer
from gristmill.training.preferences.rows import PAIRS, Rows, in_pairs, read_rows
from gristmill.training.schedule import Optimiser

__all__ = ["RewardSpec", "dry", "open_reward", "run", "scorer"]

VERSION = 1


@dataclass(frozen=True)
class RewardSpec(PostSpec):
    """With `margins` a pair's `margin` is what chosen has to be ahead by (Touvron et al. 2023; null is 0). `centring`
    weighs the squared sum of a pair's rewards, which keeps them around 0 (Eisenstein et al. 2023; TRL advises 0.01)."""

    name: str = "reward"
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-5, warmup=0.03, weight_decay=0.0))
    margins: bool = False
    centring: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.centring < 0:
            raise InputError(f"spec: centring is {self.centring}; it is a weight, from 0 on")


@dataclass(frozen=True)
class Padded(Chat):
    """A chat whose tokenizer pads with another token than it did: published so, for whoever loads the model."""

    def save(self, folder: Path) -> None:
        super().save(folder)
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_bytes()) | {"pad_token": self.tokenizer.pad_token}
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False))


def run(spec: RewardSpec) -> Dataset:
    """Train and publish, or take what stands. Raises InputError where the data is refused, Stopped at SIGTERM."""
    job = open_job(spec, OP, VERSION)
    if job.standing is not None:
        return job.standing
    from trl import RewardConfig

    from gristmill.training.preferences import trainer as trainers

    job.chat = padded(job.chat)
    pad_id = job.chat.tokenizer.pad_token_id
    model = _model(job)
    sources = [_rows(spec, job, data, model.config) for data in job.data]
    held = [_held(_rows(spec, job, data, model.config)) for data in job.validation]
    numbers = ("margin",) if spec.margins else ()
    counts = [rows.table.num_rows for rows in sources]
    weights = [source.weight for source in spec.data]
    total = spec.steps * spec.rows
    optimizers = job.optimizers(model)
    trainer = trainers.Reward(
        model=model,
        args=job.arguments(
            RewardConfig,
            max_length=None,
            center_rewards_coefficient=spec.centring or None,
            disable_dropout=spec.lora is None or not spec.lora.dropout,
        ),
        train_dataset=planned(counts, weights, spec.seed, total),
        data_collator=trainers.scored_collator(trainers.Table(sources, PAIRS, numbers), pad_id, numbers),
        processing_class=job.chat.tokenizer,
        optimizers=optimizers,
    )
    piece = spec.rows // (spec.accumulate * WORLD)

    def measure() -> list[dict[str, Any]]:
        out = []
        for rows in held:
            collate = trainers.scored_collator(trainers.Table([rows], PAIRS, numbers), pad_id, numbers)
            loss = trainers.mean_loss(trainer, collate, rows.table.num_rows, piece)
            out.append({"loss": loss} | judged(trainer.model, rows, pad_id))
        return out

    before = measure()
    logged = job.fit(trainer)
    after = measure()
    stats = {
        "rows": total,
        "epochs": epochs(counts, weights, total, [rows.label for rows in sources]),
        "too_long": {rows.label: rows.too_long for rows in [*sources, *held]},
        "validation": {
            rows.label: {"before": first, "after": last} for rows, first, last in zip(held, before, after, strict=True)
        },
    }
    return job.finish(trainer, logged, stats)


def dry(spec: RewardSpec) -> Mapping[str, Any]:
    """Steps, tokens and memory, and the rows that would be left out."""
    from transformers import AutoConfig

    job = open_job(spec, OP, VERSION)
    config = AutoConfig.from_pretrained(job.start.file(""), local_files_only=True)
    sources = [_rows(spec, job, data, config) for data in job.data]
    longest = max(int(rows.table["length"].to_numpy().max()) for rows in sources)
    told = in_pairs(needs(job, seq_len=longest, stage="sft"))
    return {**told, "longest": longest, "too_long": {rows.label: rows.too_long for rows in sources}}


def padded(chat: Chat) -> Chat:
    """The chat with a padding token that never ends a turn: transformers reads the reward at the last token that is not
    padding, and where both are one token that is the token before the end. Raises InputError where there is none."""
    from copy import deepcopy

    tokenizer = chat.tokenizer
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return chat
    added = tokenizer.added_tokens_decoder
    others = {
        number: str(token) for number, token in added.items() if token.special and number != tokenizer.eos_token_id
    }
    choice = others.get(chat.source.manifest["stats"].get("eod"), next(iter(others.values()), None))
    if choice is None:
        raise InputError(
            f"{chat.source.name} at {chat.source.path} pads with the token that ends a turn and has no other special "
            "token: add one to the tokenizer"
        )
    tokenizer = deepcopy(tokenizer)
    tokenizer.pad_token = choice
    return Padded(**{**vars(chat), "tokenizer": tokenizer})


def _rows(spec: RewardSpec, job: Job, data: Dataset, config: Any) -> Rows:
    return read_rows(data, job.chat, config, PAIRS, ("margin",) if spec.margins else ())


def _held(rows: Rows) -> Rows:
    return replace(rows, table=rows.table.slice(0, ROWS))


def _model(job: Job) -> Any:
    """The start's layers and a fresh output, the same for a seed, in float32."""
    from transformers import AutoModelForSequenceClassification, GenerationConfig

    quiet()
    job.start.check_files()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.spec.seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            job.start.file(""), num_labels=1, local_files_only=True, dtype=torch.float32
        )
    model.config.pad_token_id = job.chat.tokenizer.pad_token_id
    model.generation_config = GenerationConfig()  # the harness says in it what ends a turn; no such file is saved
    lora = job.spec.lora
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.spec.seed)
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear",
                task_type="SEQ_CLS",
            ),
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(RewardSpec, run, dry))
