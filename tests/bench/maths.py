"""Verdicts on maths a second against math-verify, and who is wrong how often, on the same labelled responses.

The peer is timed in processor seconds of its one process, ours by the wall clock, since algebra runs in workers; the
best of three turns for us, one for the peer, which takes minutes. Our gold answers are read once and cached, as in any
use with several responses to one task.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.verifiers.maths.answer import top_boxes
from gristmill.verifiers.maths.verify import maths
from tests.realdata import FOLDER

PEER = Path(__file__).parents[2] / ".venv" / "peers" / "bin" / "python"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "verify" / name).read_text().splitlines()]


def cases() -> dict[str, list[tuple[str, str, bool]]]:
    """(gold, response, label): GSM8K's labelled model solutions; MATH's reference solutions, and each against the
    answer of the next problem with another one."""
    pairs = zip(_lines("gsm8k-example_model_solutions.jsonl"), _lines("gsm8k-test.jsonl"), strict=True)
    gsm8k = [
        (task["answer"].rpartition("#### ")[2], row[model]["solution"], row[model]["is_correct"])
        for row, task in pairs
        for model in MODELS
    ]
    boxed = [([text for *_, text in top_boxes(row["solution"])], row["solution"]) for row in _lines("math-test.jsonl")]
    plain = [(boxes[0], solution) for boxes, solution in boxed if len(set(boxes)) == 1]
    right = [(gold, solution, True) for gold, solution in plain]
    wrong = [
        (gold, solution, False)
        for (gold, _), (other, solution) in zip(plain, plain[1:], strict=False)
        if gold.strip("$ ") != other.strip("$ ")
    ]
    return {"GSM8K solutions": gsm8k, "MATH solutions": right, "MATH, the next one's answer": wrong}


def verdicts() -> Iterator[dict[str, Any]]:
    """Verdicts a second and wrong verdicts of both sides; ours that are None count as wrong here."""
    sets = cases()
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "cases.json", Path(folder) / "told.json"
        # as its README asks: gold answers in dollars, so that its LaTeX grammar sees them
        asked.write_text(
            json.dumps({name: [(f"${gold}$", text) for gold, text, _ in rows] for name, rows in sets.items()})
        )
        subprocess.run([PEER, str(Path(__file__).with_name("maths_peer.py")), told, asked], check=True)
        peer = json.loads(told.read_text())
    judge = maths()
    for name, labelled in sets.items():
        rows = [{"prompt": "", "response": response, "gold": gold} for gold, response, _ in labelled]
        best, scores = float("inf"), []
        for _ in range(3):
            clock = time.perf_counter()
            scores = [verdict.score for verdict in judge.rows(rows)]
            best = min(best, time.perf_counter() - clock)
        labels = [float(label) for *_, label in labelled]
        ours, theirs = len(rows) / best, len(rows) / peer[name]["seconds"]
        mistakes = sum(score != label for score, label in zip(scores, labels, strict=True))
        peers_mistakes = sum(float(one) != label for one, label in zip(peer[name]["verdicts"], labels, strict=True))
        bar = 10 if name.startswith("GSM8K") else 3
        yield {
            "peer": "math-verify 0.9.0", "measure": f"verdicts/s, {name}", "rows": len(rows), "ours": round(ours),
            "peer_value": round(theirs), "ratio": round(ours / theirs, 1), "wrong": mistakes,
            "peer_wrong": peers_mistakes, "bar": bar, "met": ours >= bar * theirs and mistakes <= peers_mistakes,
        }  # fmt: skip
