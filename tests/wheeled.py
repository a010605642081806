"""A root with a tiny model that chats, text and trusted pairs held out, and raters: what an alignment needs.

Replies of even words are the better ones (as in preferred.py), so a model can learn what its raters want.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import preferred
from evaluated import tasks
from packed import chain, pack
from tinychat import PLAIN, chat_tokenizer

from gristmill.dataops.dataset import publish_files
from gristmill.dataops.feedback.batches import Batch, close
from gristmill.dataops.feedback.candidates import candidate
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.judge import Said, judge_all
from gristmill.dataops.feedback.queues import add_rater, make_queue, next_item, put
from gristmill.flows.wheel.recipe import Recipe
from gristmill.training.checkpoint import building, save_model
from gristmill.training.model import Shape, build, configuration

RATERS = ("ann", "ben", "cem", "dee")
GATES = """\
gates:
  - gate: trusted preferences are not lost
    measure: "preferences/accuracy"
    not_below_interval: true
    least: 20
  - gate: text is not forgotten
    measure: "text/loss"
    rises_at_most: 20 %
"""


def make_root(root: Path) -> None:
    """Publish `seed` (a model that chats), its tokenizer, `text`, `trusted` pairs and `questions`."""
    chat = chat_tokenizer(root)
    stats = chat.manifest["stats"]
    model = build(configuration(Shape(depth=1, width=32, heads=2), stats["vocab_size"], seq_len=64, eod=0), 0)
    with building(root, "seed") as folder:
        save_model(model, folder / "files")
        for path in Path(chat.file("")).iterdir():
            shutil.copy(path, folder / "files")
        told = {"tokenizer": PLAIN, "template": stats["template"]}
        op = {"name": "fresh", "version": 1, "params": {}}
        publish_files(root, "seed", folder, ops=[op], inputs=[], made={}, stats=told)
    pack(
        root,
        chain(8, 32, stats["vocab_size"]),
        seq_len=32,
        vocab_size=stats["vocab_size"],
        tokenizer=PLAIN,
        name="text",
    )
    preferred.pairs(root, chat, preferred.replies(60, start=500), name="trusted")
    tasks(root, [f"w{n // 32} w{n % 32}" for n in range(40)], name="questions")
    (root / "gates.yaml").write_text(GATES)


def recipe(root: Path, **fields: Any) -> Recipe:
    """DPO for the tiny model."""
    settings = {"steps": 25, "rows": 16, "sft_weight": 0.2, "optimiser": {"learning_rate": 3e-3, "weight_decay": 0.0}}
    given = {
        "first": "seed",
        "stages": [{"step": "preference", "settings": settings}],
        "evaluation": {
            "slices": [{"name": "text", "dataset": "text"}], "pairs": [{"name": "preferences", "dataset": "trusted"}],
        },
        "gates": str(root / "gates.yaml"),
        "asking": {"prompts": "questions", "count": 8, "samples": 3, "max_tokens": 4},
        "least": 10, "max_tokens": 64,
    }  # fmt: skip
    return Recipe.model_validate(given | fields)


def judged(
    db: Database, root: Path, word: Callable[[float], list[int]], *, items: int = 40, queue: str = "better",
    start: int = 0, kind: str = "pairwise",
) -> Batch:  # fmt: skip
    """A closed batch: two raters judge each of `items` new items and all else that the queue has. `word` is what they
    say where the first response is better by so much, from -1 to 1 (of thumbs, by how much it is good)."""
    make_queue(db, queue, kind, wanted=2)
    rows = []
    for number, (prompt, good, bad) in enumerate(preferred.replies(items, start=start, seed=start)):
        asked, *texts = (" ".join(f"w{t - preferred.FIRST}" for t in ids) for ids in (prompt[2:4], good[:-1], bad[:-1]))
        turned = texts[::-1] if number % 2 else texts
        shown = turned if kind == "pairwise" else turned[:1]
        rows.append(candidate({"prompt": asked, "responses": shown}, f"row {number}"))
    put(db, queue, rows, strategy="random")
    for rater in RATERS:
        add_rater(db, rater)
        said = []
        while (item := next_item(db, queue, rater)) is not None:
            goods = [_good(one["content"]) for one in item.responses]
            value = word(goods[0] - goods[1] if kind == "pairwise" else goods[0])
            said.append(Said(item.item, rater, value, key=f"{rater} {item.item}"))
            judge_all(db, said[-1:])
    batch = close(db, root, queue)
    assert batch is not None
    return batch


def _good(text: str) -> float:
    """From 1 where all words are even to -1 where none is."""
    numbers = [int(word[1:]) for word in text.split() if word[1:].isdigit()]
    return sum(1 - 2 * (number % 2) for number in numbers) / max(1, len(numbers))


def right(first: float) -> list[int]:
    """The better one is preferred."""
    return [1, 0] if first > 0 else [0, 1] if first < 0 else [0, 0]


def flipped(first: float) -> list[int]:
    """The worse one is."""
    return right(-first)


def tied(_: float) -> list[int]:
    """Neither is."""
    return [0, 0]


def liked(good: float) -> list[int]:
    """Thumbs."""
    return [int(good > 0)]
