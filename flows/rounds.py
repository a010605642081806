"""The demo's flywheel: four simulated raters, three rounds of feedback, a model that tells right from wrong better.

    round   people judge pairs of what the model says now; a batch closes; the model is aligned by it (wheel/turn.py),
            held against pairs that were held out, and asked anew

The raters know the sums but err, each at a rate of their own, and one of them does not read: Dawid and Skene's model
finds that out from the judgements alone. The law: nothing here reaches into the wheel but through what people have, a
queue, judgements, a closed batch and a recipe.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.feedback.batches import close
from gristmill.dataops.feedback.database import Database, open_database
from gristmill.dataops.feedback.judge import Refused, Said, judge_all
from gristmill.dataops.feedback.queues import Shown, add_rater, make_queue, next_item
from gristmill.dataops.feedback.standing import status
from gristmill.dataops.identity import row_id
from gristmill.dataops.report.draw import as_file, label
from gristmill.dataops.report.lines import Line, lines_svg
from gristmill.dataops.store import Store
from gristmill.flows.demo import SCORER
from gristmill.flows.wheel.asking import ask, sample
from gristmill.flows.wheel.recipe import Asking, Recipe, Stage, start_of
from gristmill.flows.wheel.turn import align_batch

QUEUE = "sums"
#: How often each rater looks at the sum; else any answer goes first. Dan never looks.
RATERS = {"ada": 0.97, "ben": 0.93, "cleo": 0.88, "dan": 0.0}
WANTED = 3  # raters per item
PROMPTS = 120  # of a round
ASKING = Asking(prompts="tasks@latest", count=PROMPTS, samples=6, temperature=1.2, max_tokens=12, strategy="random")
RECIPE = Recipe(
    model="assistant",
    first="sft@passed",
    stages=[
        Stage(
            step="preference",
            settings={
                "steps": 48, "rows": 16, "sft_weight": 1.0,
                "optimiser": {"learning_rate": 1.5e-4, "warmup": 0.05, "weight_decay": 0.0},
            },
        )
    ],
    policy="all",
    min_accuracy=0.6,
    max_tokens=64,
    least=10,
    evaluation={
        "slices": [{"name": "text", "dataset": "heldout-packed@latest"}],
        "pairs": [{"name": "preferences", "dataset": "heldout-pairs@latest"}],
        "tasks": [{"name": "sums", "dataset": "heldout-tasks@latest", "scorer": SCORER, "max_tokens": 12}],
    },
    asking=ASKING,
)  # fmt: skip
ACCURACY, SUMS = "preferences/accuracy", "sums/pass@1"


@dataclass(frozen=True)
class Round:
    """What came of a round: its alignment's result, with the measures before and after."""

    number: int
    result: Mapping[str, Any]

    def value(self, measure: str, when: str = "after") -> Mapping[str, Any] | None:
        """{value, low, high, n} of a measure, None where it was not taken."""
        found: Mapping[str, Any] | None = self.result["measures"].get(measure, {}).get(when)
        return found


def play(store: Store, rounds: int = 3) -> list[Round]:
    """Rounds of feedback under a root in which the demo's `sft` passed; those that were played are not played again."""
    db = open_database(store.root)
    make_queue(db, QUEUE, "ranking", wanted=WANTED)
    for name in RATERS:
        add_rater(db, name)
    sums = _sums(store.get(ASKING.prompts))
    (stands,) = (one for one in status(db) if one["queue"] == QUEUE)
    closed = [batch["batch"] for batch in stands["batches"]]
    if not stands["items"]:
        start = start_of(store, RECIPE)
        ask(db, QUEUE, ASKING, sample(store, ASKING, start, 0), start)
    played = []
    for number in range(1, rounds + 1):
        if number > len(closed):
            said, batch = _judged(db, sums), close(db, store.root, QUEUE)
            if batch is None:
                break
            closed.append(batch.id)
            print(f"  round {number}: {said:,} judgements", file=sys.stderr, flush=True)
        played.append(Round(number, align_batch(store, db, closed[number - 1], RECIPE)))
    return played


def plot(played: Sequence[Round]) -> str:
    """The held-out accuracy by round, with its interval, as an SVG that is a file of its own."""
    lines = []
    for name, measure in (("pairs", ACCURACY), ("sums", SUMS)):
        found = [played[0].value(measure, "before"), *(one.value(measure) for one in played)]
        there = [(step, item) for step, item in enumerate(found) if item is not None]
        ends = [[item[end] for _, item in there] for end in ("value", "low", "high")]
        span = ends[1:] if measure == ACCURACY and None not in (*ends[1], *ends[2]) else [(), ()]
        lines.append(Line(name, [step for step, _ in there], ends[0], *span))
    title = "Held out, after each round of feedback"
    drawn = lines_svg(lines, title, width=600, height=220).replace(
        "<svg ", '<svg x="24" y="62" width="600" height="220" '
    )
    note = "share of held-out pairs whose right answer is the likelier one (its 95 % interval shaded), of sums right"
    body = [label(24, 32, title, "hd", 16), label(24, 50, note, "tk", 11), drawn]
    return as_file(648, 300, title, body)


def _sums(tasks: Dataset) -> dict[str, int]:
    """What each question comes to."""
    rows = (
        tasks.scan().select(asked=pl.col("prompt").list.last().struct.field("content"), gold=pl.col("gold")).collect()
    )
    return {asked: int(gold) for asked, gold in rows.iter_rows()}


def _judged(db: Database, sums: Mapping[str, int]) -> int:
    """Every rater judges what there is for them, taking turns; returns how many judgements were kept."""
    kept, left, order = 0, set(RATERS), np.random.default_rng(0)
    while left:
        said = []
        for rater in order.permutation(sorted(left)).tolist():  # who meets whom over an item changes
            shown = next_item(db, QUEUE, rater)
            if shown is None:
                left.discard(rater)
            else:
                said.append(Said(shown.item, rater, _ranks(shown, rater, sums), key=f"{rater}-{shown.item}"))
        kept += sum(not isinstance(answer, Refused) for answer in judge_all(db, said))
    return kept


def _ranks(shown: Shown, rater: str, sums: Mapping[str, int]) -> list[int]:
    """How a rater ranks answers: the right one first, the others equal; by mistake another one first."""
    right = [_right(one["content"], sums[shown.prompt[-1]["content"]]) for one in shown.responses]
    drawn = np.random.default_rng(int.from_bytes(row_id("demo.rater", rater, shown.item)[:8], "little"))
    if drawn.random() >= RATERS[rater]:
        best = int(drawn.integers(len(right)))
        right = [place == best for place in range(len(right))]
    return [1 if one else 2 for one in right]


def _right(answer: str, number: int) -> bool:
    return re.findall(r"\d+", answer) == [str(number)]
