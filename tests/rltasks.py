"""A toy language to practise on: a model that answers with any word of a question, and tasks that want one of them."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
from tinychat import base, chat_tokenizer, chats, words

from gristmill.dataops.dataset import Dataset, publish_rows, row_id
from gristmill.training.checkpoint import building
from gristmill.training.model import Shape
from gristmill.training.scoring import Score
from gristmill.training.sft import SftSpec
from gristmill.training.sft import run as sft

WORDS = 6  # few, so that a tiny model learns them in seconds
LAST = {"name": "last", "call": "gristmill.flows.scoring:verifier", "settings": {"verifier": "format.regex"}}
PROMPT = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))


def asked(number: int, seed: int) -> list[str]:
    """Questions of three words."""
    rng = random.Random(seed)
    return [" ".join(rng.sample(words(WORDS), k=3)) for _ in range(number)]


def tasks(root: Path, questions: list[str], *, name: str = "tasks", **columns: list) -> Dataset:
    """Tasks whose right answer is the last word: the verifier format.regex holds `pattern` against the response."""
    table = pa.table(
        {
            "id": pa.array([row_id(name, str(n)) for n in range(len(questions))], pa.binary(16)),
            "prompt": pa.array([[{"role": "user", "content": text}] for text in questions], PROMPT),
            "pattern": [text.split()[-1] for text in questions],
            **columns,
        }
    )
    op = {"name": "toy.tasks", "version": 1, "params": {"questions": questions, "columns": sorted(columns)}}
    with building(root, name) as folder:
        return publish_rows(root, name, folder, [table], ops=[op], inputs=[], made={})


def speaker(root: Path, *, shape: Shape | None = None) -> tuple[Dataset, Dataset]:
    """A chat tokenizer, and a model taught to answer with one of the question's words, any of them."""
    chat = chat_tokenizer(root, count=16)
    rng = random.Random(0)
    data = chats(root, chat, [(text, rng.choice(text.split())) for text in asked(500, 0)])
    start = base(root, chat, shape=shape)
    spec = SftSpec(
        data=({"path": data.path, "digest": data.digest},),  # type: ignore[arg-type]
        start={"path": start.path, "digest": start.digest},  # type: ignore[arg-type]
        tokenizer={"path": chat.path, "digest": chat.digest},  # type: ignore[arg-type]
        root=str(root), steps=80, rows=16, optimiser={"learning_rate": 3e-3}, name="speaker",  # type: ignore[arg-type]
    )  # fmt: skip
    return chat, sft(spec)


def named(dataset: Dataset, **more: Any) -> dict[str, Any]:
    """A dataset as a spec names it."""
    return {"path": dataset.path, "digest": dataset.digest, **more}


def scorer(call: str, **more: Any) -> dict[str, Any]:
    """A scorer of this file, as a spec names it."""
    return {"name": call, "call": f"rltasks:{call}", **more}


def last(unread: str = "", switch: str = "", **_: Any) -> Any:
    """1 for the question's last word, 0 for others, None for the response `unread`; fails while `switch` stands."""

    def score(rows: Any, responses: Any) -> list[Score]:
        if switch and Path(switch).exists():
            raise ConnectionError("nobody answers")
        return [
            Score(None, "unread")
            if unread and said == unread
            else Score(float(said == row["prompt"][-1]["content"].split()[-1]), "")
            for row, said in zip(rows, responses, strict=True)
        ]

    return score


CALLS: list[int] = []


def stopping(at: list[int]) -> Any:
    """As `last`, and sends SIGTERM to this process in the calls of these numbers; CALLS counts."""
    judge = last()

    def score(rows: Any, responses: Any) -> list[Score]:
        CALLS.append(len(rows))
        if len(CALLS) in at:
            os.kill(os.getpid(), signal.SIGTERM)
        return judge(rows, responses)

    return score


def constant(value: float | None = 0.5) -> Any:
    """The same score for everything."""
    return lambda rows, responses: [Score(value, "constant")] * len(rows)


def one_short() -> Any:
    """A scorer that forgets the last response."""
    return lambda rows, responses: [Score(1.0, "")] * (len(rows) - 1)


def broken() -> Any:
    """A factory that fails."""
    raise KeyError("no key")
