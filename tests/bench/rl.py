"""GRPO by ours against TRL's trainer as it is, with the same settings, model, tasks and scorer, in steps per second.

What ours does on top: scores with reasons and intervals, masks of unjudged samples, log-probabilities, a file of
rollouts per batch. Each side trains in turns, on one thread; a step's time is the median, in processor seconds, so that
a busy machine hits neither side.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from rltasks import asked, named, scorer, tasks
from tinychat import base, chat_tokenizer

from gristmill.training.model import Shape
from gristmill.training.online import trainer as traced
from gristmill.training.online.rewards import open_scorers
from gristmill.training.post.harness import open_job
from gristmill.training.rl import OP, VERSION, RlSpec, _tasks, _trainer

STEPS, TURNS = 12, 3
SHAPE = Shape(depth=4, width=256, heads=4)  # fresh weights, which hardly ever end a response before its last token


class Clock(TrainerCallback):
    """Processor seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.process_time()

    def on_log(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self.started)


def online() -> Iterator[dict[str, Any]]:
    """Steps per processor second, 32 samples of 32 tokens a step."""
    from trl import GRPOTrainer

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        chat = chat_tokenizer(root, count=16)
        start = base(root, chat, shape=SHAPE)
        data = tasks(root, asked(200, 1))
        spec = RlSpec(
            data=(named(data),), start=named(start), tokenizer=named(chat), root=str(root), steps=STEPS, rows=4,
            group=8, max_tokens=32, rewards=(scorer("last"),),
        )  # fmt: skip
        seconds: dict[str, list[float]] = {"ours": [], "TRL": []}
        for turn in range(TURNS * 2):
            name = ("ours", "TRL")[turn % 2]
            clock = Clock()
            trainer = ours(spec) if name == "ours" else plain(spec, GRPOTrainer)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(clock)
            trainer.train()
            seconds[name] += clock.seconds[2:STEPS]
        ours_rate, rate = (1 / statistics.median(seconds[name]) for name in ("ours", "TRL"))
        ratio = round(ours_rate / rate, 3)
        yield {
            "peer": "TRL 1.16.0", "measure": "GRPO steps per processor second, 32 samples of 32 tokens",
            "ours": round(ours_rate, 3), "peer_value": round(rate, 3), "ratio": ratio, "bar": 0.95,
            "met": ratio >= 0.95,
        }  # fmt: skip


def ours(spec: RlSpec) -> Any:
    job = open_job(spec, OP, VERSION)
    learned, _ = _tasks(job)
    trainer = _trainer(job, learned)
    scorings = open_scorers(spec.rewards)
    trainer.trace(traced.Setting(learned, spec.rewards, scorings, job.folder / "rollouts", "transformers", False))
    trainer.go_on(None)
    return trainer


def plain(spec: RlSpec, kind: Any) -> Any:
    """TRL's trainer over the same tasks, in the same order, with the same scorer as its reward function."""
    job = open_job(spec, OP, VERSION)
    learned, _ = _tasks(job)
    like = _trainer(job, learned)
    (scoring,) = open_scorers(spec.rewards)

    def reward(completions: list[Any], source: list[int], row: list[int], **_: Any) -> list[float | None]:
        rows = [learned[s].row(r) for s, r in zip(source, row, strict=True)]
        return [item.score for item in scoring(rows, [said[0]["content"] for said in completions])]

    model = job.model()
    return kind(
        model=model, reward_funcs=reward, args=like.args, train_dataset=like.train_dataset,
        processing_class=job.chat.tokenizer, optimizers=job.optimizers(model),
    )  # fmt: skip
