"""SmolLM2-135M on people's preferences: twenty steps of DPO, of KTO and of a reward model tell held-out pairs better.

The pairs are PandaLM's test set, where all three annotators agree and both replies are short.
"""

from __future__ import annotations

import hashlib
import json
import random
from functools import cache
from pathlib import Path

import pytest
from preferred import pairs, thumbs
from realdata import real
from smollm2 import folder
from tinychat import PLAIN
from transformers import AutoTokenizer

from gristmill.dataops.dataset import Dataset, publish_files
from gristmill.training import preference, reward
from gristmill.training.checkpoint import building
from gristmill.training.preferences.rewards import rendered
from gristmill.training.preferences.spec import PreferenceSpec
from gristmill.training.reward import RewardSpec

pytestmark = pytest.mark.slow
HELD, STEPS, ROWS, LONGEST = 40, 20, 4, 96


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("smollm2")
    start = checkpoint(root)
    given = unanimous(start)
    prompts = sorted({tuple(prompt) for prompt, *_ in given})
    random.Random(0).shuffle(prompts)
    apart = set(prompts[:HELD])  # several pairs have the same prompt: none of these is trained on
    held = [row for row in given if tuple(row[0]) in apart][:HELD]
    train = [row for row in given if tuple(row[0]) not in apart]
    assert len(held) == HELD and len(train) >= STEPS * ROWS
    return {
        "root": root, "start": start,
        "pairs": (pairs(root, start, train), pairs(root, start, held, name="held")),
        "thumbs": (thumbs(root, start, train), thumbs(root, start, held, name="held-thumbs")),
    }  # fmt: skip


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


@cache
def unanimous(start: Dataset) -> list[tuple]:
    """(prompt, chosen, rejected) as token ids, of at most LONGEST tokens a side."""
    tokenizer = AutoTokenizer.from_pretrained(start.file(""))
    out = []
    for row in json.loads(real("pref/pandalm-testset-v1-3annotators.json").read_text()):
        votes = {row[f"annotator{k}"] for k in (1, 2, 3)}
        if votes not in ({1}, {2}):
            continue
        asked = [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": f"{row['instruction']}\n{row['input'] or ''}".strip()},
        ]
        sides = [
            rendered(tokenizer, [*asked, {"role": "assistant", "content": str(row[f"response{k}"]).strip()}])
            for k in (1, 2)
        ]
        if max(len(prompt) + len(reply) for prompt, reply in sides) <= LONGEST:
            replies = [reply for _, reply in sides]
            out.append((sides[0][0], *(replies if votes == {1} else replies[::-1])))
    return out


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def told(world, run, kind, rate: float, data: str = "pairs", **more) -> dict:
    """Before and after, on the held-out rows."""
    train, held = world[data]
    model = run(
        kind(
            data=[named(train)],
            start=named(world["start"]),
            validation=[named(held)],
            root=str(world["root"]),
            steps=STEPS,
            rows=ROWS,
            optimiser={"learning_rate": rate, "weight_decay": 0.0},
            **more,
        )  # fmt: skip
    )
    (found,) = model.manifest["stats"]["validation"].values()
    print(json.dumps(found | {"seconds": model.manifest["stats"]["seconds"]}))
    return found


def test_dpo_moves_towards_what_people_prefer(world):
    found = told(world, preference.run, PreferenceSpec, 1e-5)
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["after"]["accuracy"]["value"] > 0.5 and found["after"]["margin"] > 0


def test_kto_moves_towards_what_people_like(world):
    found = told(world, preference.run, PreferenceSpec, 1e-5, data="thumbs", loss="kto")
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["after"]["accuracy"]["value"] > 0.5 and found["after"]["margin"] > 0


def test_a_reward_model_tells_what_people_prefer(world):
    found = told(world, reward.run, RewardSpec, 2e-5)
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["after"]["accuracy"]["value"] > max(0.5, found["before"]["accuracy"]["value"])
