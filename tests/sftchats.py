"""Datasets of conversations for tests: made up here, or out of four projects' demonstration data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from realdata import real

from gristmill.dataops.chat.messages import MESSAGE, MESSAGES
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store, Task

FIELDS = [field.name for field in MESSAGE.fields]
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
}


def said(*turns: str, system: str | None = None) -> list[dict[str, str]]:
    """A user and an assistant in turns, the user first."""
    roles = ("user", "assistant")
    made = [{"role": roles[n % 2], "content": content} for n, content in enumerate(turns)]
    return made if system is None else [{"role": "system", "content": system}, *made]


def canonical(chats: list[list[Any]]) -> pl.Series:
    """Messages with all their fields."""
    full = [[message and {**dict.fromkeys(FIELDS), **message} for message in chat] for chat in chats]
    return pl.Series("messages", full, dtype=MESSAGES)


def rows(chats: list[list[Any]], **columns: list) -> pl.DataFrame:
    """Rows named by their place."""
    ids = pl.Series("id", [row_id(str(n)) for n in range(len(chats))], dtype=pl.Binary)
    return pl.DataFrame({"id": ids, "messages": canonical(chats), **columns})


def place(id: bytes, of: int = 5_000) -> int:
    """Where a row of `rows` stands."""
    return {row_id(str(n)): n for n in range(of)}[id]


def _plan(inputs, building, workers, *, frame_context, parts_context, **identity):
    cuts = [frame_context.height * i // parts_context for i in range(parts_context + 1)]
    return [Task((a, b - a), b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


@op("toy.frame", version=1, kind="source", plan=_plan)
def _given(task, *, content: str, frame_context: pl.DataFrame, parts_context: int):
    """Rows as they are, in so many shards."""
    yield Split(frame_context.slice(*task), ledger())


def dataset(root: Path, frame: pl.DataFrame, parts: int = 1, name: str = "chats") -> Dataset:
    content = f"{name} {parts} {frame.hash_rows().sum()} {frame.schema}"
    return Store(root).build(name, _given(content=content, frame_context=frame, parts_context=parts), [])


def demonstrations() -> dict[str, list[list[dict[str, str]]]]:
    """Conversations of real files, by source."""
    found = {}
    for name, path in (("fastchat", "fastchat-dummy_conversation"), ("glaive", "lf-glaive_toolcall_en_demo")):
        items = json.loads(real(f"sft/{path}.json").read_text())
        found[name] = [
            [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in item["conversations"]]
            for item in items
        ]
    for name in ("alpaca_en_demo", "identity"):
        items = json.loads(real(f"sft/lf-{name}.json").read_text())
        found[name] = [said(_asked(item["instruction"], item["input"]), item["output"]) for item in items]
    lines = [json.loads(line)["messages"] for line in real("sft/lf-v1_sft_demo.jsonl").read_text().splitlines()]
    found["v1"] = [
        [{"role": turn["role"], "content": "".join(part["value"] for part in turn["content"])} for turn in turns]
        for turns in lines
    ]
    seeds = [json.loads(line) for line in real("sft/self-instruct-seed_tasks.jsonl").read_text().splitlines()]
    found["people"] = [
        said(_asked(item["instruction"], one["input"]), one["output"]) for item in seeds for one in item["instances"]
    ]
    return found


def _asked(instruction: str, given: str) -> str:
    return "\n".join(filter(None, (instruction, given)))


def demonstration_rows() -> pl.DataFrame:
    """All of them, with `source`."""
    found = demonstrations()
    chats = [chat for each in found.values() for chat in each]
    return rows(chats, source=[name for name, each in found.items() for _ in each])
