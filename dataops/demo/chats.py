"""Chats, preferences and tasks for a model of a few million weights: sums of the mill, asked in several ways.

The law: a question is for learning or held out by a hash of its text, in all three files alike; whoever was held out
is asked about nowhere in training. Each sum is asked in other words too, so a model can know it from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.dataops.identity import row_id

_ASKED = (
    "How much is {a} and {b}?",
    "What is {a} plus {b}?",
    "Add {a} to {b}.",
    "{a} sacks and {b} sacks: how many?",
    "The mill grinds {a} sacks, then {b}. How many sacks is that?",
    "We have {a} stones and buy {b}. How many do we have now?",
    "Count {b} on from {a}.",
    "There are {a} carts here and {b} there. How many in all?",
    "Tell me {a} + {b}.",
    "The sum of {a} and {b}, please.",
    "{a} + {b} = ?",
    "Take {a} bags and {b} more. How many bags?",
    "If I carry {a} and you carry {b}, how many do we carry?",
    "{a} wheels, then {b} wheels. The total?",
    "{a} and {b} make what?",
    "What do {a} and {b} come to?",
    "I sold {a} loaves, and later {b}. How many did I sell?",
    "Put {b} on top of {a}: how many?",
    "{a} mice, and {b} more come in. How many mice?",
    "How many are {a} and {b}?",
)
_HELD = 4  # one question of so many
_LARGEST = 3  # of the two numbers
_OFF = (1, -1, 2, -2, 3)  # how far the rejected answer is from the right one


def write_chats(folder: Path) -> dict[str, Path]:
    """chats, pairs and tasks to learn from and to hold out, as JSON lines by name; the same each time."""
    rows = list(_questions())
    held = [row for row in rows if row["hash"] % _HELD == 0]
    learned = sorted((row for row in rows if row["hash"] % _HELD), key=lambda row: row["hash"])
    made = {
        "chats": map(_chat, learned),
        "pairs": (_pair(row, _OFF[row["hash"] // _HELD % len(_OFF)]) for row in learned),
        "heldout-pairs": (_pair(row, off) for row in held for off in _OFF if row["sum"] + off >= 0),
        "tasks": map(_task, learned),
        "heldout-tasks": map(_task, held),
    }
    paths = {name: folder / f"{name}.jsonl" for name in made}
    for name, items in made.items():
        paths[name].write_text("".join(f"{json.dumps(item)}\n" for item in items))
    return paths


def _questions() -> Iterator[dict[str, Any]]:
    for text in _ASKED:
        for a in range(_LARGEST + 1):
            for b in range(_LARGEST + 1):
                asked = text.format(a=a, b=b)
                yield {"prompt": asked, "sum": a + b, "hash": int.from_bytes(row_id("demo.sums", asked)[:8], "little")}


def _chat(row: dict[str, Any]) -> dict[str, Any]:
    said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": _answer(row["sum"])}]
    return {"messages": said}


def _pair(row: dict[str, Any], off: int) -> dict[str, Any]:
    wrong = row["sum"] + (off if row["sum"] + off >= 0 else -off)
    return {"prompt": row["prompt"], "chosen": _answer(row["sum"]), "rejected": _answer(wrong)}


def _task(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": row["prompt"], "gold": str(row["sum"])}


def _answer(number: int) -> str:
    return f"It is {number}."
