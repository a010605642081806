"""SmolLM2-135M as a start for training on people's data: the model as a published checkpoint, and short training runs.

What the tests of each step share, so that all measure the same model in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smollm2 import folder
from tinychat import PLAIN

from gristmill.dataops.dataset import Dataset, publish_files
from gristmill.training.checkpoint import building
from gristmill.training.preferences.rewards import rendered

STEPS = 20
ASKED = {"role": "system", "content": "Answer."}  # shorter than the template's own


def checkpoint(root: Path) -> Dataset:
    """The model as a published one that speaks its template; its source does not say what ends a turn."""
    source = folder()
    with building(root, "smollm2") as place:
        files = place / "files"
        for path in source.iterdir():
            if path.suffix == ".json":
                (files / path.name).write_bytes(path.read_bytes())
            else:
                (files / path.name).symlink_to(path)
        config = files / "tokenizer_config.json"
        ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        said = {name: value for name, value in json.loads(config.read_text()).items() if not name.endswith("_token_id")}
        config.write_text(json.dumps(said | ends))
        template = hashlib.sha256((source / "chat_template.jinja").read_bytes()).hexdigest()
        size = json.loads((source / "config.json").read_text())["vocab_size"]
        op = {"name": "smollm2", "version": 1, "params": {}}
        stats = {"tokenizer": PLAIN, "template": template, "vocab_size": size, "eod": 0}
        return publish_files(root, "smollm2", place, ops=[op], inputs=[], made={}, stats=stats)


def answered(tokenizer: Any, instruction: str, given: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of an instruction with its input, and of a reply to it."""
    question = {"role": "user", "content": f"{instruction}\n{given}".strip()}
    return rendered(tokenizer, [ASKED, question, {"role": "assistant", "content": answer.strip()}])


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def trained(
    kind: Callable[..., Any], run: Callable[[Any], Dataset], start: Dataset, train: Dataset, held: Dataset,
    root: Path, rate: float, **more: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """What is measured on the held-out rows before and after STEPS steps."""
    given = {"data": [named(train)], "start": named(start), "validation": [named(held)], "root": str(root)}
    optimiser = {"learning_rate": rate, "weight_decay": 0.0}
    model = run(kind(**given, steps=STEPS, optimiser=optimiser, **more))
    (found,) = model.manifest["stats"]["validation"].values()
    print(json.dumps({**found, "seconds": model.manifest["stats"]["seconds"]}))
    return found["before"], found["after"]
