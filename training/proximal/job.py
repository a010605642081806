"""A PPO run before its first step: datasets opened, held against each other, and the four models on their device.

The law kept here: a run never starts with a tokenizer, a template or a reward model that is not the policy's own.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gristmill.dataops.dataset import Dataset, InputError, recipe_key
from gristmill.training.chat import Chat, chat_of
from gristmill.training.online.tasks import Tasks, open_tasks
from gristmill.training.proximal import models
from gristmill.training.proximal.settings import OP, PPOSpec
from gristmill.training.spec import open_input


@dataclass(frozen=True)
class Job:
    """A spec with its datasets opened and checked."""

    spec: PPOSpec
    tasks: Dataset
    start: Dataset
    reward: Dataset | None
    inputs: list[Dataset]
    chat: Chat
    key: str

    @property
    def final(self) -> Path:
        """Where the checkpoint will stand."""
        return Path(self.spec.root) / self.spec.name / self.key[:12]


@dataclass(frozen=True)
class Models:
    """On one device. `both` holds what is trained: "policy" and "value"."""

    both: Any
    reference: Any
    reward: Any
    device: torch.device


def open_job(spec: PPOSpec) -> Job:
    """Open what a spec names. Raises InputError where something is missing, is not what the spec was made for, or does
    not fit the rest."""
    tasks, start = (open_input(item.path, item.digest) for item in (spec.tasks, spec.start))
    tokenizer, reward = (
        None if item is None else open_input(item.path, item.digest) for item in (spec.tokenizer, spec.reward)
    )
    chat = chat_of(start, tokenizer)
    if reward is not None:
        chat_of(reward, chat.source)  # scores token ids, so it must know the same ones
    inputs = [tasks, start, *(item for item in (tokenizer, reward) if item is not None)]
    key = recipe_key([spec.op(OP)], [item.digest for item in inputs])
    return Job(spec, tasks, start, reward, inputs, chat, key)


def tasks_of(job: Job) -> Tasks:
    """The tasks of a job that leave room for a response, with a word on stderr of those that do not. Raises InputError
    as `open_tasks`."""
    window = min(_window(item) for item in (job.start, job.reward) if item is not None)
    tasks = open_tasks(job.tasks, job.chat.tokenizer, window - job.spec.max_new_tokens)
    if tasks.too_long:
        print(
            f"{tasks.too_long:,} of {tasks.too_long + len(tasks.prompts):,} tasks are left out: their prompts do not "
            f"fit into {window:,} positions with {job.spec.max_new_tokens:,} new tokens",
            file=sys.stderr,
        )
    return tasks


def _window(dataset: Dataset) -> int:
    """Positions that a model was made for; as many as there may be where its configuration does not say."""
    path = Path(dataset.file("config.json"))
    if not path.is_file():
        raise InputError(f"{dataset.name} at {dataset.path} holds no model (config.json)")
    return json.loads(path.read_text()).get("max_position_embeddings") or 1 << 62


def open_models(job: Job, device: torch.device) -> Models:
    """All four, as they are before the first step."""
    policy = models.open_policy(job.start, len(job.chat.tokenizer))
    reward = None if job.reward is None else models.open_scalar(job.reward, len(job.chat.tokenizer))
    value = models.value_model(policy, reward)
    reference = models.frozen(copy.deepcopy(policy), device)
    both = {
        name: models.trained(model, device, job.spec.checkpointing)
        for name, model in (("policy", policy), ("value", value))
    }
    count = sum(p.numel() for p in policy.parameters())
    print(f"{count:,} parameters on {device}, and as many in the value model and the reference", file=sys.stderr)
    return Models(
        torch.nn.ModuleDict(both), reference, None if reward is None else models.frozen(reward, device), device
    )
