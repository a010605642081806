"""Tasks, scorers and judges for tests of evaluations, over tinychat's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from packed import pack
from tinychat import PLAIN

from gristmill.dataops.dataset import Dataset, publish_rows, row_id
from gristmill.training.checkpoint import building
from gristmill.training.evaluate import EvaluateSpec, dry, main, run
from gristmill.training.scoring import Score

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def named(dataset: Dataset, **more: Any) -> dict[str, Any]:
    """A dataset as specs name it."""
    return {"path": dataset.path, "digest": dataset.digest, **more}


def scorer(call: str, **settings: Any) -> dict[str, Any]:
    """A scorer of this module."""
    return {"name": call, "call": f"evaluated:{call}", "settings": settings}


def tasks(root: Path, questions: list[str], *, name: str = "tasks", columns: dict[str, list] | None = None) -> Dataset:
    """Questions as rows with a prompt, in the order given; a row's id is that of its question."""
    prompts = [[{"role": "user", "content": text}] for text in questions]
    table = pa.table(
        {
            "id": pa.array([row_id(name, text) for text in questions], pa.binary(16)),
            "prompt": pa.array(prompts, MESSAGES),
            "gold": [text.split()[0] if text else "" for text in questions],
        }
    )
    for column, values in (columns or {}).items():
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, pa.array(values)) if values else table.remove_column(place)
    op = {"name": "toy.tasks", "version": 1, "params": {"questions": questions, "columns": str(columns)}}
    with building(root, name) as folder:
        return publish_rows(root, name, folder, [table], ops=[op], inputs=[], made={})


def text(root: Path, rows: list[list[list[int]]], vocab_size: int, *, tokenizer: str = PLAIN, seq_len: int = 32):
    """Held-out packed text."""
    return pack(root, rows, seq_len=seq_len, vocab_size=vocab_size, tokenizer=tokenizer)


def evaluate(folder: Path, capsys: Any, status: int = 0, **fields: Any) -> Any:
    """Run the step as a user does; the dataset, or what it said where another status than 0 is expected."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "spec.json"
    spec.write_text(json.dumps({"root": str(folder / "root"), **fields}))
    found = main_(["--spec", str(spec)])
    printed = capsys.readouterr()
    assert found == status, printed.err
    if status:
        assert "Traceback" not in printed.err and printed.out == ""
        return printed.err.splitlines()[-1]
    return Dataset.load(json.loads(printed.out)["path"])


def main_(argv: list[str]) -> int:
    """The command line of the step."""
    return main(EvaluateSpec, run, dry, argv)


def has(word: str, none_for: str | None = None) -> Any:
    """1 where the response has a word; not judged where it has another one."""

    def score(rows: Any, responses: Any) -> list[Score]:
        return [
            Score(None, "unreadable")
            if none_for is not None and none_for in said.split()
            else Score(float(word in said.split()), "has", said.split()[0] if said.split() else None)
            for said in responses
        ]

    return score


def fails_on(gold: str) -> Any:
    """Raises where a row has this gold."""

    def score(rows: Any, responses: Any) -> list[Score]:
        if any(row["gold"] == gold for row in rows):
            raise ConnectionError("nobody answers")
        return [Score(1.0, "fine")] * len(rows)

    return score


def longer(bias: float = 0.0) -> Any:
    """A judge that prefers the longer response, and by `bias` the first seat."""

    def score(rows: Any, responses: Any) -> list[Score]:
        return [
            Score(
                min(
                    1.0,
                    max(
                        0.0,
                        0.5 + bias + 0.5 * (len(said) > len(row["against"])) - 0.5 * (len(said) < len(row["against"])),
                    ),
                ),
                "",
            )
            for row, said in zip(rows, responses, strict=True)
        ]

    return score


def number(value: float) -> Any:
    """The same for everything, whatever is asked."""
    return lambda rows, responses: [Score(value, "number")] * len(rows)
