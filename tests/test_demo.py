"""The demo in full: from a crawl to a model that was promoted, and back from it to a page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.dataops.demo.chats import write_chats
from gristmill.dataops.gates.record import state_of
from gristmill.dataops.store import Store

GRISTMILL = str(Path(sys.executable).with_name("gristmill"))


def test_what_is_held_out_is_asked_nowhere_in_training(tmp_path):
    paths = write_chats(tmp_path)
    asked = {name: set() for name in paths}
    for name, path in paths.items():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            asked[name].add(row["prompt"] if "prompt" in row else row["messages"][0]["content"])
    assert asked["heldout-tasks"] == asked["heldout-pairs"] and len(asked["heldout-tasks"]) > 50
    for name in ("chats", "pairs", "tasks"):
        assert len(asked[name]) > 200 and not asked[name] & asked["heldout-tasks"]
    for line in paths["pairs"].read_text().splitlines():
        assert json.loads(line)["chosen"] != json.loads(line)["rejected"]


@pytest.mark.slow
def test_every_stage_passes_and_the_last_model_goes_back_to_a_page(tmp_path):
    done = subprocess.run(
        [GRISTMILL, "demo", "--root", str(tmp_path), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    told = json.loads(done.stdout)
    base, _, dpo, grpo = told["stages"]
    assert [row["by"] for row in told["stages"]] == ["pretrain", "sft", "preference", "rl"]
    assert base["text/loss"] < base["unigram_entropy"] - 0.5
    pairs = next(iter(dpo["validation"].values()))
    assert pairs["after"]["accuracy"]["low"] > 0.5
    store = Store(tmp_path)
    promoted = store.get("grpo@promoted")
    assert state_of(store, promoted).promoted and promoted.key == grpo["key"]
    story = told["trace"]
    assert [model["name"] for model in story["models"]] == ["grpo", "dpo", "sft", "base"]
    assert story["page"]["uri"].startswith("https://docs.python.example/") and "problem" not in story["record"]
    was, became = (
        store.get(f"{name}-evaluation").manifest["stats"]["measures"]["sums/pass@1"] for name in ("sft", "grpo")
    )
    assert became["low"] > was["high"]
