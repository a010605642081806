"""SmolLM2-135M on a preference that twenty steps can learn: brevity. DPO, KTO and a reward model tell held-out pairs
better afterwards.

The replies are those of PandaLM's test set; of two to one question the one with at most two thirds of the other's
tokens is preferred. (Its annotators' own preferences take more: 80 pairs teach such a model nothing about others.)
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
ROWS, HELD, LONGEST = 4, 40, 80  # pairs of a step; held-out rows at least; tokens of a prompt and reply


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("smollm2")
    start = checkpoint(root)
    given = brief(start)
    prompts = sorted({tuple(prompt) for prompt, *_ in given})
    random.Random(0).shuffle(prompts)
    held: list[tuple] = []
    while len(held) < HELD:  # several pairs have the same prompt: none of these is trained on
        apart = prompts.pop()
        held += [row for row in given if tuple(row[0]) == apart]
    train = [row for row in given if tuple(row[0]) in set(prompts)]
    assert len(train) >= STEPS * ROWS
    return {
        "root": root, "start": start,
        "pairs": (pairs(root, start, train), pairs(root, start, held, name="held")),
        "thumbs": (thumbs(root, start, train), thumbs(root, start, held, name="held-thumbs")),
    }  # fmt: skip


def brief(start: Dataset) -> list[tuple]:
    """(prompt, chosen, rejected) as token ids, of at most LONGEST tokens a side."""
    tokenizer = AutoTokenizer.from_pretrained(start.file(""))
    out = []
    for row in json.loads(real("pref/pandalm-testset-v1-3annotators.json").read_text()):
        sides = [answered(tokenizer, row["instruction"], row["input"] or "", str(row[f"response{k}"])) for k in (1, 2)]
        chosen, rejected = sorted((reply for _, reply in sides), key=len)
        if len(sides[0][0]) + len(rejected) <= LONGEST and len(chosen) <= len(rejected) * 2 / 3:
            out.append((sides[0][0], chosen, rejected))
    return out


def told(world, kind, run, rate: float, data: str = "pairs", **more) -> tuple[dict, dict]:
    """Before and after, on the held-out rows."""
    return trained(kind, run, world["start"], *world[data], world["root"], rate, rows=ROWS, **more)


def test_dpo_moves_towards_the_brief(world):
    before, after = told(world, PreferenceSpec, preference.run, 1e-5)
    assert after["loss"] < before["loss"]
    assert after["accuracy"]["low"] > 0.5 and after["margin"] > 0


def test_kto_moves_towards_the_brief(world):
    before, after = told(world, PreferenceSpec, preference.run, 1e-5, data="thumbs", loss="kto")
    assert after["loss"] < before["loss"]
    assert after["accuracy"]["value"] > 0.5 and after["margin"] > 0  # half the replies of DPO


def test_a_reward_model_tells_the_brief(world):
    before, after = told(world, RewardSpec, reward.run, 2e-5)
    assert after["loss"] < before["loss"]
    assert after["accuracy"]["low"] > 0.5 and after["accuracy"]["value"] > before["accuracy"]["value"]
