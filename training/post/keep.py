"""While a trainer runs: progress on stderr, states on disk, and an end at SIGTERM.

A trainer writes a state file by file. The law kept here: a state counts only with the mark that is written after its
last file, so a run that was killed while it wrote goes on from the state before; a newer whole one replaces it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from gristmill.training.step import Stopped

MARK = "whole"
TOLD = ("loss", "reward", "rewards/accuracies", "mean_token_accuracy", "kl")  # what a line of progress shows, if logged


class Keeper(TrainerCallback):
    """Of one run of `steps` steps, whose states stand in `folder`."""

    def __init__(self, folder: Path, steps: int, save_seconds: float) -> None:
        self.folder, self.steps, self.save_seconds = folder, steps, save_seconds
        self.stopping = False
        self.started = self.told = self.saved = self.stepped = time.monotonic()
        self.first: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM ends training after the step at hand; raises Stopped then."""
        before = signal.signal(signal.SIGTERM, self._stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self.stopping:
            raise Stopped("stopped, and the state is kept; the same spec goes on from there")

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Whether to keep a state, and whether to end: the processes of a run do so after the same step."""
        last = state.global_step >= self.steps
        self.stopping, due = _any(self.stopping, time.monotonic() - self.saved >= self.save_seconds)
        if self.stopping and not last:
            control.should_training_stop = True
        if last:
            self.stopping = False  # nothing is left to go on with
        elif self.stopping or due:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the state that is whole now and drop those before it."""
        self.saved = time.monotonic()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process writes its part
        if not state.is_world_process_zero:
            return
        (self.folder / f"checkpoint-{state.global_step}" / MARK).touch()
        for old in whole_states(self.folder)[:-1]:
            shutil.rmtree(old)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """The seconds of the step, into what is logged of it, and a line of progress about every second."""
        if logs is None or "loss" not in logs:
            return
        now = time.monotonic()
        state.log_history[-1]["seconds"] = round(now - self.stepped, 4)
        self.stepped = now
        step = state.global_step
        self.first = step - 1 if self.first is None else self.first
        if (now - self.told < 1 and step not in (1, self.steps)) or not state.is_world_process_zero:
            return
        self.told = now
        shown = "  ".join(f"{name.rpartition('/')[2]} {float(logs[name]):.4f}" for name in TOLD if name in logs)
        left = (now - self.started) / (step - self.first) * (self.steps - step)
        print(f"step {step}/{self.steps}  {shown}  about {left:.0f} s left", file=sys.stderr, flush=True)


def _any(*flags: bool) -> list[bool]:
    """Each flag, raised if any process of the run raises it."""
    if not torch.distributed.is_initialized():
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32, device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def whole_states(folder: Path) -> list[Path]:
    """The states that were written to their end, oldest first; torn ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / MARK).exists():
            shutil.rmtree(path, ignore_errors=True)
    return [path for path in found if (path / MARK).exists()]
