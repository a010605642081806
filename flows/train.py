"""Hand datasets to a training step: a process of its own, with a spec file in and one line of JSON out.

Where a spec names data, it may say {"dataset": "NAME@TAG"}: the path and the digest are filled in, so what was read is
part of what is published. The laws: a step's own words reach the user, not a traceback of ours; Ctrl-C stops the step
as SIGTERM does, with its state kept, and the same command goes on.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store
from gristmill.flows.ranks import STOPPED, launch

#: The steps, and what each is for.
STEPS = {
    "pretrain": "packed tokens to a base model",
    "sft": "packed chats to a model that answers",
    "reward": "preference pairs to a reward model",
    "preference": "pairs or thumbs to a preferred model: DPO and its family, KTO, ORPO, SimPO",
    "logprobs": "a reference model's log-probabilities of pairs, as a dataset",
    "describe": "encoded chats to a model's perplexities and embeddings of them, as a dataset",
    "rl": "tasks with verifiers to a better model: GRPO, RLOO",
    "ppo": "the same by PPO, with a value model",
    "merge": "several checkpoints to one",
    "generate": "prompts to responses, as a dataset",
    "evaluate": "a checkpoint to its measures, as a dataset",
}


class Terminated(KeyboardInterrupt):
    """Stopped as by Ctrl-C, but by SIGTERM."""


def train(step: str, store: Store, spec: Mapping[str, Any], *, processes: int = 1, dry: bool = False) -> dict[str, Any]:
    """Run a step under `store` and tag what it publishes `latest`; returns what the step printed.

    `spec` holds the step's fields, without `root`; `processes` run on this machine. Raises InputError where the step
    refuses the data or the spec, OSError where the machine could not do it (a disk, memory), RuntimeError where it
    fails, KeyboardInterrupt where it was stopped, and of these Terminated where that was by SIGTERM.
    """
    if step not in STEPS:
        raise InputError(f"no step {step!r}; there are: {', '.join(STEPS)}")
    wanted = {**resolved(store, spec), "root": str(store.root)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(wanted))
        command = [sys.executable, "-m", f"gristmill.training.{step}", "--spec", str(path)]
        ended = launch([*command, "--dry-run"] if dry else command, processes)
    if ended.status == 2:
        raise InputError(f"{step}: {ended.error}")
    if ended.status == STOPPED:
        raise KeyboardInterrupt if ended.signalled == signal.SIGINT else Terminated
    if ended.status == 1 and ended.error:
        raise OSError(f"{step}: {ended.error}")
    if ended.status != 0:
        raise RuntimeError(f"{step} ended with status {ended.status}: its reason stands above")
    told: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    if not dry:
        store.tag(told["name"], "latest", told["key"])
    return told


def named(dataset: Dataset, **more: Any) -> dict[str, Any]:
    """A dataset as specs name it."""
    return {"path": dataset.path, "digest": dataset.digest, **more}


def resolved(store: Store, value: Any) -> Any:
    """A spec in which every {"dataset": REFERENCE, ...} names the path and digest of that version."""
    if isinstance(value, Mapping):
        if "dataset" in value:
            rest = {key: resolved(store, item) for key, item in value.items() if key != "dataset"}
            return named(store.get(str(value["dataset"])), **rest)
        return {key: resolved(store, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(store, item) for item in value]
    return value
