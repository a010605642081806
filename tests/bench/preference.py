"""DPO by ours against TRL's trainer as it is: the same settings, model and pairs in one order, in steps per second.

TRL gets the pairs as conversations and tokenises, pads and cuts by itself; ours reads encoded rows. Each side trains in
turns, on one thread; a step's time is the median, in processor seconds, so that a busy machine hits neither side. That
both do the same work is checked: their losses agree at every step.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from preferred import pairs, replies
from tinychat import base, chat_tokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.training import logprobs
from gristmill.training.checkpoint import load_model
from gristmill.training.model import Shape
from gristmill.training.post.data import plan
from gristmill.training.preference import _open, _read, _trainer
from gristmill.training.preferences.rows import join_reference
from gristmill.training.preferences.spec import PreferenceSpec
from tests.bench.rl import Clock

STEPS, WARM, TURNS, ROWS, PAIRS, LONGEST = 10, 2, 4, 4, 32, 60
SHAPE = Shape(depth=4, width=128, heads=4)


def preferring() -> Iterator[dict[str, Any]]:
    """Steps per processor second of 4 pairs with replies of up to 61 tokens: the reference kept in memory, as TRL
    does, and read from a dataset."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        chat = chat_tokenizer(root)
        start = base(root, chat, shape=SHAPE)
        given = replies(PAIRS, longest=LONGEST)
        data = pairs(root, chat, given)
        spec = {
            "data": (_named(data),), "start": _named(start), "tokenizer": _named(chat), "root": str(root),
            "steps": STEPS, "rows": ROWS, "optimiser": {"learning_rate": 1e-4, "weight_decay": 0.0},
        }  # fmt: skip
        reference = logprobs.run(
            logprobs.LogprobsSpec(data=_named(data), model=_named(start), tokenizer=_named(chat), root=str(root))
        )
        kept, read = PreferenceSpec(**spec), PreferenceSpec(**spec, reference=_named(reference))
        sides = {"ours": lambda: ours(kept), "read": lambda: ours(read), "TRL": lambda: plain(kept, given)}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        losses: dict[str, list[float]] = {}
        for _ in range(TURNS):
            for name, side in sides.items():
                clock = Clock()
                trainer = side()
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(clock)
                trainer.train()
                seconds[name] += clock.seconds[WARM:STEPS]
                losses[name] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        for name in ("ours", "read"):
            assert all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(losses[name], losses["TRL"], strict=True))
        rates = {name: 1 / statistics.median(found) for name, found in seconds.items()}
        for name, measure, bar in (
            ("ours", "the reference in memory", 0.9), ("read", "the reference as a dataset", 1.15)
        ):  # fmt: skip
            ratio = round(rates[name] / rates["TRL"], 3)
            yield {
                "peer": "TRL 1.16.0", "measure": f"DPO steps per processor second, 4 pairs, {measure}",
                "ours": round(rates[name], 3), "peer_value": round(rates["TRL"], 3), "ratio": ratio, "bar": bar,
                "met": ratio >= bar,
            }  # fmt: skip


def ours(spec: PreferenceSpec) -> Any:
    """The step's trainer, as the step makes it."""
    job = _open(spec)
    model = job.model()
    sources = _read(spec, job, model.config)
    if spec.reference is not None:
        reference = Dataset.load(spec.reference.path)
        sources = [join_reference(rows, reference, job.start, job.chat) for rows in sources]
    return _trainer(spec, job, model, sources)


def plain(spec: PreferenceSpec, given: list[tuple]) -> Any:
    """TRL's DPOTrainer over the same pairs, in the same order, as conversations."""
    from datasets import Dataset as Rows
    from datasets import disable_progress_bars
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    job = _open(spec)
    tokenizer = job.chat.tokenizer

    def said(role: str, tokens: list[int]) -> list[dict[str, str]]:
        return [{"role": role, "content": tokenizer.decode(tokens)}]

    _, order = plan([len(given)], [1.0], spec.seed, spec.steps * spec.rows)
    rows = [
        {"prompt": said("user", p[2:-3]), "chosen": said("assistant", c[:-1]), "rejected": said("assistant", r[:-1])}
        for p, c, r in (given[n] for n in order)
    ]
    model = job.model()
    return DPOTrainer(
        model=model, ref_model=load_model(job.start).to(model.dtype),
        args=job.arguments(DPOConfig, beta=spec.beta, max_length=None), train_dataset=Rows.from_list(rows),
        processing_class=tokenizer, optimizers=job.optimizers(model),
    )  # fmt: skip


def _named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}
