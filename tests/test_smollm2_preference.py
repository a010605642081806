"""SmolLM2-135M on people's preferences: twenty steps of DPO, of KTO and of a reward model tell held-out pairs better.

The pairs are PandaLM's test set, where all three annotators agree and both replies are short.
"""

from __future__ import annotations

import json
import random

import pytest
from preferred import pairs, thumbs
from realdata import real
from smollm2chat import STEPS, answered, checkpoint, trained
from transformers import AutoTokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.training import preference, reward
from gristmill.training.preferences.spec import PreferenceSpec
from gristmill.training.reward import RewardSpec

pytestmark = pytest.mark.slow
ROWS, HELD, LONGEST = 4, 40, 96  # pairs of a step; held-out rows; tokens of a prompt and reply


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


def unanimous(start: Dataset) -> list[tuple]:
    """(prompt, chosen, rejected) as token ids, of at most LONGEST tokens a side."""
    tokenizer = AutoTokenizer.from_pretrained(start.file(""))
    out = []
    for row in json.loads(real("pref/pandalm-testset-v1-3annotators.json").read_text()):
        votes = {row[f"annotator{k}"] for k in (1, 2, 3)}
        if votes not in ({1}, {2}):
            continue
        sides = [answered(tokenizer, row["instruction"], row["input"] or "", str(row[f"response{k}"])) for k in (1, 2)]
        if max(len(prompt) + len(reply) for prompt, reply in sides) <= LONGEST:
            replies = [reply for _, reply in sides]
            out.append((sides[0][0], *(replies if votes == {1} else replies[::-1])))
    return out


def told(world, kind, run, rate: float, data: str = "pairs", **more) -> tuple[dict, dict]:
    """Before and after, on the held-out rows."""
    return trained(kind, run, world["start"], *world[data], world["root"], rate, rows=ROWS, **more)


def test_dpo_moves_towards_what_people_prefer(world):
    before, after = told(world, PreferenceSpec, preference.run, 1e-5)
    assert after["loss"] < before["loss"]
    assert after["accuracy"]["value"] > 0.5 and after["margin"] > 0


def test_kto_moves_towards_what_people_like(world):
    before, after = told(world, PreferenceSpec, preference.run, 1e-5, data="thumbs", loss="kto")
    assert after["loss"] < before["loss"]
    assert after["accuracy"]["value"] > 0.5 and after["margin"] > 0


def test_a_reward_model_tells_what_people_prefer(world):
    before, after = told(world, RewardSpec, reward.run, 2e-5)
    assert after["loss"] < before["loss"]
    assert after["accuracy"]["value"] > max(0.5, before["accuracy"]["value"])
