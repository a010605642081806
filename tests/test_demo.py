"""The demo in full: from a crawl to a model that was promoted, and back from it to a page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gristmill.dataops.demo.chats import write_chats
from gristmill.dataops.feedback.queues import Shown
from gristmill.dataops.gates.record import state_of
from gristmill.dataops.store import Store
from gristmill.flows import rounds

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
def test_every_stage_passes_goes_back_to_a_page_and_feedback_makes_it_better(tmp_path):
    done = subprocess.run(
        [GRISTMILL, "demo", "--until", "feedback", "--root", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        check=False,
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
    played = told["rounds"]["rounds"]
    assert [one["verdict"] for one in played] == ["promoted"] * 3
    accuracy = [one["preferences/accuracy"]["value"] for one in (told["rounds"]["before"], *played)]
    assert accuracy[-1] > accuracy[0] and accuracy[-1] > accuracy[1]
    assert state_of(store, store.get("assistant@promoted")).promoted
    again = rounds.play(store)
    assert [one.result["promoted"] for one in again] == [one["model"] for one in played]


def test_raters_rank_the_right_answer_first_as_often_as_they_look():
    def first(rater: str, item: str) -> bool:
        said = [{"role": "assistant", "content": f"It is {n}."} for n in (1, 3, 2)]
        shown = Shown(0, item, "ranking", [{"role": "user", "content": "1 + 2?"}], tuple(said), None, 0, 0)
        ranks = rounds._ranks(shown, rater, {"1 + 2?": 3})
        assert sorted(ranks) == [1, 2, 2]
        return ranks[1] == 1

    share = {name: sum(first(name, str(n)) for n in range(600)) / 600 for name in rounds.RATERS}
    assert all(abs(share[name] - (looks + (1 - looks) / 3)) < 0.05 for name, looks in rounds.RATERS.items())


def test_the_picture_of_the_rounds_shows_every_measure():
    def measured(value: float) -> dict:
        return {"value": value, "low": value - 0.1, "high": value + 0.05, "n": 80}

    played = [
        rounds.Round(n, {"measures": {
            rounds.ACCURACY: {"before": measured(0.7 + n / 20), "after": measured(0.75 + n / 20)},
            rounds.SUMS: {"before": None, "after": measured(0.5 + n / 10)},
        }})
        for n in (1, 2)
    ]  # fmt: skip
    root = ElementTree.fromstring(rounds.plot(played))
    words = "".join(root.itertext())
    assert "pairs" in words and "sums" in words and "Held out" in words
    lines = [item.get("d") for item in root.iter() if item.get("class") in ("sb", "th") and item.get("d")]
    assert [line.count("L") for line in lines] == [2, 1]
