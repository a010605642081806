"""From a spec to a published checkpoint around a trainer of transformers or TRL: what all such steps do alike.

    job = open_job(SftSpec(...), OP, VERSION)
    if job.standing: return job.standing
    trainer = SFTTrainer(model=job.model(), args=job.arguments(SFTConfig), optimizers=job.optimizers(model), ...)
    return job.finish(trainer, job.fit(trainer), stats)

The laws kept here: a spec whose checkpoint stands is not trained again; a run that was stopped, by SIGTERM or any other
way, goes on from its last whole state and on one CPU ends in the bytes it would have ended in; several processes
(torchrun) learn from the rows that one would; a checkpoint appears by one rename, with its tokenizer and template. A
step whose gradients are not finite is left out, and after PATIENCE such steps in a row training fails.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_files, recipe_key, write_json
from gristmill.training import checkpoint
from gristmill.training.chat import Chat, chat_of
from gristmill.training.post.keep import Keeper, whole_states
from gristmill.training.post.spec import Lora, PostSpec
from gristmill.training.schedule import PATIENCE, Optimiser
from gristmill.training.spec import Input, open_input

ENDS = 10  # steps at either end whose mean loss is told
CURVE = 200  # points of the loss curve at most
WORLD = int(os.environ.get("WORLD_SIZE", "1"))  # processes, by torchrun


@dataclass
class Job:
    """One run of a spec. `standing` is the checkpoint where it is published already."""

    spec: PostSpec
    op: dict[str, Any]
    data: list[Dataset]
    start: Dataset
    validation: list[Dataset]
    inputs: list[Dataset]
    chat: Chat
    key: str

    @property
    def standing(self) -> Dataset | None:
        """The checkpoint of this spec, where it stands."""
        if not (self._final / MANIFEST).exists():
            return None
        print(f"{self._final} stands already: not trained again", file=sys.stderr)
        return Dataset.load(self._final)

    @property
    def _final(self) -> Path:
        return Path(self.spec.root) / self.spec.name / self.key[:12]

    @property
    def folder(self) -> Path:
        """Where states are kept while it runs."""
        return Path(self.spec.root) / ".training" / f"{self.spec.name}-{self.key[:12]}"

    def arguments(self, kind: type, **more: Any) -> Any:
        """transformers' TrainingArguments, or a subclass of them, for the spec; `more` are the step's own."""
        cuda = torch.cuda.is_available()
        pieces = self.spec.accumulate * WORLD
        if self.spec.rows % pieces:
            raise InputError(
                f"spec: {self.spec.rows} rows do not divide into {pieces} pieces, one per process and pass"
            )
        quiet()
        return kind(
            output_dir=str(self.folder),
            max_steps=self.spec.steps,
            per_device_train_batch_size=self.spec.rows // pieces,
            gradient_accumulation_steps=self.spec.accumulate,
            learning_rate=self.spec.optimiser.learning_rate,
            max_grad_norm=self.spec.optimiser.grad_clip,
            train_sampling_strategy="sequential",  # the order is ours: training/post/data.py
            gradient_checkpointing=self.spec.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if self.spec.checkpointing else None,
            bf16=cuda,
            use_cpu=not cuda,
            ddp_backend=None if WORLD == 1 else "nccl" if cuda else "gloo",
            seed=self.spec.seed,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",  # states are kept by time and at SIGTERM: training/post/keep.py
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=cuda,
            **more,
        )

    def model(self) -> Any:
        """The start's weights, with fresh adapters where the spec wants them."""
        model = checkpoint.load_model(self.start)
        embeddings: Any = model.get_input_embeddings()
        needed, there = len(self.chat.tokenizer), embeddings.num_embeddings
        if needed > there:
            raise InputError(
                f"{self.start.name} at {self.start.path} embeds {there:,} tokens, its tokenizer has {needed:,}: "
                "pretrain with the tokenizer that the chat uses"
            )
        return model if self.spec.lora is None else adapted(model, self.spec.lora, self.spec.seed)

    def optimizers(self, model: Any) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW and its schedule over what is trained."""
        return optimizers(model, self.spec.optimiser, self.spec.steps)

    def fit(self, trainer: Any) -> list[dict[str, Any]]:
        """Train, or go on; returns what was logged of every step. Raises Stopped where SIGTERM came."""
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        keeper = Keeper(self.folder, self.spec.steps, self.spec.save_seconds)
        trainer.add_callback(keeper)
        states = whole_states(self.folder)
        if states:
            print(f"going on from {states[-1]}", file=sys.stderr)
        with keeper.listening():
            trainer.train(resume_from_checkpoint=str(states[-1]) if states else None)
        return [line for line in trainer.state.log_history if "loss" in line or "reward" in line]

    def finish(self, trainer: Any, logged: Sequence[dict[str, Any]], stats: dict[str, Any]) -> Dataset:
        """Publish the trained model with its tokenizer, its metrics and `stats`, and remove the states."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.spec.lora is not None:
            model = model.merge_and_unload()
        if not trainer.is_world_process_zero():
            torch.distributed.barrier()  # until the first process has published
            return Dataset.load(self._final)
        ends = [self.chat.tokenizer.eos_token_id, self.chat.stats.get("eod")]
        model.generation_config.eos_token_id = sorted({end for end in ends if end is not None})
        model.generation_config.pad_token_id = self.chat.tokenizer.pad_token_id
        with checkpoint.building(self.spec.root, self.spec.name) as building:
            files = building / "files"
            checkpoint.save_model(model, files)
            self.chat.save(files)
            lines = [json.dumps(line) for line in logged]
            (files / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
            write_json(files / "loss_curve.json", curve(logged))
            losses = [line["loss"] for line in logged]
            seconds = sum(line.get("seconds", 0.0) for line in logged)
            made = {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(seconds, 3),
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                "threads": torch.get_num_threads(),
                "versions": checkpoint.versions("trl", "peft", "accelerate"),
            }
            known = {
                "first_loss": sum(losses[:ENDS]) / len(losses[:ENDS]),
                "last_loss": sum(losses[-ENDS:]) / len(losses[-ENDS:]),
                "steps": len(losses),
                "seconds": round(seconds, 1),
                **self.chat.stats,
            }
            published = publish_files(
                self.spec.root, self.spec.name, building, ops=[self.op], inputs=self.inputs, made=made,
                stats=known | stats, reproducible=False,
            )  # fmt: skip
        shutil.rmtree(self.folder, ignore_errors=True)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        return published


def open_job(spec: PostSpec, op: str, version: int, more: Sequence[Input] = ()) -> Job:
    """A job with its datasets opened and checked; `more` are inputs of the step's own, after the common ones. Raises
    InputError where one is missing or is not what the spec was made for."""
    data = [open_input(source.path, source.digest) for source in spec.data]
    start = open_input(spec.start.path, spec.start.digest)
    given = None if spec.tokenizer is None else open_input(spec.tokenizer.path, spec.tokenizer.digest)
    held = [open_input(item.path, item.digest) for item in spec.validation]
    others = [open_input(item.path, item.digest) for item in more]
    inputs = [*data, start, *([] if given is None else [given]), *held, *others]
    identity = {"name": op, "version": version, "params": spec.params}
    key = recipe_key([identity], [item.digest for item in inputs])
    return Job(spec, identity, data, start, held, inputs, chat_of(start, given), key)


class Careful(torch.optim.AdamW):
    """AdamW that leaves out a step whose gradients are not finite: one such step would end every weight."""

    row = 0

    def step(self, closure: Any = None) -> Any:
        """Raises RuntimeError after PATIENCE steps in a row that could not be taken."""
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not grads or all(torch.isfinite(norm) for norm in torch._foreach_norm(grads)):
            self.row = 0
            return super().step(closure)
        self.row += 1
        if self.row >= PATIENCE:
            raise RuntimeError(
                f"{self.row} steps in a row had gradients that are not finite: lower learning_rate, or look at the data"
            )
        return None


def optimizers(model: Any, settings: Optimiser, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW over what is trained (gains of norms are not decayed), and the schedule over `steps`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = Careful([group for group in groups if group["params"]], lr=1.0, betas=(settings.beta1, settings.beta2))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.rate(min(step / steps, 1.0)))


def adapted(model: Any, lora: Lora, seed: int) -> Any:
    """The model with fresh adapters, the same for a seed."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )  # fmt: skip


def curve(logged: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """The loss as at most CURVE points to draw: means over runs of steps, and where each run ends."""
    runs = min(len(logged), CURVE)
    cuts = [round(k * len(logged) / runs) for k in range(runs + 1)] if runs else [0]
    parts = [logged[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    return {
        "step": [part[-1]["step"] for part in parts],
        "loss": [sum(line["loss"] for line in part) / len(part) for part in parts],
    }


def quiet() -> None:
    """Trainers warn about what this harness does on purpose; what matters is checked here and raised."""
    for name in ("transformers", "trl", "accelerate", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(trl|transformers|peft|accelerate|torch)\.")
