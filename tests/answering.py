"""An OpenAI-compatible server on loopback whose answers come from a function or the shipped Fake judge; and responses
without any."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from fake_server import FakeServer, serving

from gristmill.dataops.dataset import Dataset, publish_rows, row_id
from gristmill.dataops.store import Store
from gristmill.training.engines.prompts import Reply
from gristmill.training.generate import OURS
from gristmill.verifiers.judge.engine import Fake

Says = Callable[[Any, Sequence[str] | None], str | None]


class _Tokenizer:
    """Counts characters, so that the server knows when a conversation does not fit."""

    def apply_chat_template(self, messages: Sequence[Any], **_: Any) -> list[int]:
        return list(range(sum(len(message["content"]) for message in messages) // 8))


class _Fake:
    """The Fake behind the server's `engine`: what a model would be."""

    def __init__(self, fake: Fake) -> None:
        self.fake, self.tokenizer = fake, _Tokenizer()

    def replies(
        self, conversations: Sequence[Any], *, max_tokens: int, choices: Sequence[str] | None = None, **_: Any
    ) -> list[Reply | None]:
        if choices is not None and len(choices) == 1:  # the server has chosen, and asks for the JSON of it
            return [Reply(choices[0], 1, "stop", 0.0)] * len(conversations)
        texts = self.fake.generate(conversations, max_tokens=max_tokens, choices=choices)
        return [
            Reply(text, tokens=len((text or "").split()) + 1, finish="stop", logprob=-float(len(text or "")))
            for text in texts
        ]


@contextlib.contextmanager
def answering(
    says: Callable[[Any, Sequence[str] | None], str | None] | None = None, **fake: Any
) -> Iterator[FakeServer]:
    """A server while the block runs; its model is called `tiny`."""
    with serving(_Fake(Fake(says=says, **fake)), vllm=False) as server:  # type: ignore[arg-type]
        yield server


def asked(conversation: Any) -> str:
    """What the last message of a conversation says."""
    return conversation[-1]["content"]


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    """As objects."""
    return [row for batch in dataset.batches() for row in batch.to_pylist()]


def answered(store: Store, texts: dict[str, list[str | None]], name: str = "answers") -> Dataset:
    """Responses as the step publishes them, without a model."""
    made = [
        {
            "id": row_id(name, prompt, str(n)), "sources": [row_id(prompt)], "response": text, "sample": n,
            "prompt": [{"role": "user", "content": prompt}], "tokens": 1, "finish": "stop", "logprob": -1.0,
            "engine": "somebody", "engine_version": "1",
        }
        for prompt, found in texts.items()
        for n, text in enumerate(found)
    ]  # fmt: skip
    told = {"samples": 1, "max_tokens": 8, "temperature": 1.0, "seed": 0}
    params = {**told, "engine": {"name": "somebody", "version": "1"}, "texts": texts}
    op = {"name": "generate", "version": 1, "params": params}
    folder = store.root / ".building" / name
    return publish_rows(
        store.root, name, folder, [pa.Table.from_pylist(made, schema=OURS)], ops=[op], inputs=[], made={}
    )
