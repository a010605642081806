"""Toy tasks for PPO: a tiny model over words, prompts of one word, and scorers whose optimum is known."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tinychat import PLAIN, base, chat_tokenizer, words

from gristmill.dataops.dataset import Dataset, publish_files, publish_rows, row_id
from gristmill.training.checkpoint import building, load_model, save_model
from gristmill.training.model import Shape
from gristmill.training.scoring import Rows, Score, Scoring

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
COUNT = 10  # words; with the special tokens and the roles the vocabulary has 16


def publish_tasks(root: Path, prompts: list[Any], name: str = "tasks", **columns: list[Any]) -> Dataset:
    """Prompts (the text of one user message each, or messages) as a dataset of tasks."""
    messages = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    ids = pa.array([row_id(name, str(n)) for n in range(len(prompts))], pa.binary(16))
    rows = pa.table({"id": ids, "prompt": pa.array(messages, MESSAGES), **columns})
    op = {"name": "toy.tasks", "version": 1, "params": {"prompts": prompts, "name": name}}
    with building(root, name) as folder:
        return publish_rows(root, name, folder, [rows], ops=[op], inputs=[], made={})


def toy(root: Path, *, prompts: list[Any] | None = None, depth: int = 1, sharp: float = 1.0) -> dict[str, Any]:
    """A spec over a fresh model, whose weights are `sharp` times as large, one prompt per word unless told. It still
    lacks a scorer."""
    chat = chat_tokenizer(root, count=COUNT)
    start = base(root, chat, shape=Shape(depth=depth, width=32, heads=2), seq_len=64)
    if sharp != 1.0:
        model = load_model(start)
        for parameter in model.parameters():
            parameter.data.mul_(sharp)
        with building(root, "sharp") as folder:
            save_model(model, folder / "files")
            op = {"name": "toy.sharp", "version": 1, "params": {"times": str(sharp)}}
            stats = {"tokenizer": PLAIN, "template": None}
            start = publish_files(root, "sharp", folder, ops=[op], inputs=[start], made={}, stats=stats)
    tasks = publish_tasks(root, words(COUNT) if prompts is None else prompts)
    rate = {"learning_rate": 3e-3, "weight_decay": 0.0}
    return {
        "tasks": told(tasks), "start": told(start), "tokenizer": told(chat), "root": str(root),
        "iterations": 3, "rollouts": 16, "epochs": 2, "minibatches": 2, "max_new_tokens": 6,
        "optimiser": rate, "value_optimiser": rate,
    }  # fmt: skip


def publish_reward(root: Path, start: Dataset, *, labels: int = 1) -> Dataset:
    """A reward model over the start's trunk with a random head, as the reward step leaves it."""
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_pretrained(start.file(""), num_labels=labels)
        torch.nn.init.normal_(model.score.weight)
    model.config.pad_token_id = 0
    with building(root, "reward") as folder:
        save_model(model, folder / "files")
        op = {"name": "toy.reward", "version": 1, "params": {"labels": labels}}
        stats = {"tokenizer": PLAIN, "template": None}
        return publish_files(root, "reward", folder, ops=[op], inputs=[start], made={}, stats=stats)


def told(dataset: Dataset) -> dict[str, str]:
    """A dataset as a spec names it."""
    return {"path": dataset.path, "digest": dataset.digest}


def scorer(function: str, name: str = "toy", **more: Any) -> dict[str, Any]:
    """One of the scorers below as a spec names it."""
    return {"name": name, "call": f"ppo_toys:{function}", **more}


def share(word: str = "w3") -> Scoring:
    """The share of a word among the words of a response: 1 at best, by saying nothing else."""

    def score(rows: Rows, responses: Any) -> list[Score]:
        said = [response.split() for response in responses]
        return [Score(one.count(word) / len(one) if one else 0.0, "share") for one in said]

    return score


def echo() -> Scoring:
    """1 where the response is the prompt's word and nothing else."""

    def score(rows: Rows, responses: Any) -> list[Score]:
        wanted = [row["prompt"][-1]["content"] for row in rows]
        return [Score(float(one.split() == [word]), "echo") for word, one in zip(wanted, responses, strict=True)]

    return score


def reward_of(word: str) -> float:
    """What `table` pays for a word."""
    return int(word[1:]) % 5 / 4 if word.startswith("w") else 0.0


def table() -> Scoring:
    """A reward per first word, 0 to 1; 0 for no word."""
    return lambda rows, responses: [Score(reward_of(one), "table") for one in responses]


def picky(among: int = 2) -> Scoring:
    """`share`, but responses whose first word is below w<among> (and empty ones) cannot be judged. It takes the seconds
    that PPO_TOYS_SLEEP says, so that a process can be caught at work."""
    judged = share()

    def score(rows: Rows, responses: Any) -> list[Score]:
        time.sleep(float(os.environ.get("PPO_TOYS_SLEEP", 0)))
        firsts = [(one.split() or ["w0"])[0] for one in responses]
        unknown = [not first.startswith("w") or int(first[1:]) < among for first in firsts]
        found = judged(rows, responses)
        return [Score(None, "picky") if no else one for no, one in zip(unknown, found, strict=True)]

    return score


def failing() -> Scoring:
    """A scorer that is down."""

    def score(rows: Rows, responses: Any) -> list[Score]:
        raise ConnectionError("the judge is out")

    return score
