"""A run of preference optimisation or of a reward model that is stopped ends in the bytes of one that was not; one of
two processes learns what one alone would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from preferred import one_thread, pairs, replies, thumbs
from tinychat import base, chat_tokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.training import preference, reward
from gristmill.training.checkpoint import load_model
from gristmill.training.preferences.spec import PreferenceSpec
from gristmill.training.reward import RewardSpec
from gristmill.training.step import Stopped

STEPS = 80


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    chat = chat_tokenizer(root)
    with one_thread():
        yield {
            "chat": chat, "start": base(root, chat), "pairs": pairs(root, chat, replies(64)),
            "thumbs": thumbs(root, chat, replies(64)), "held": pairs(root, chat, replies(16, start=512), name="held"),
        }  # fmt: skip


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def fields(world, root: Path, **more) -> dict:
    given = {
        "data": [named(world["thumbs" if more.get("loss") == "kto" else "pairs"])], "start": named(world["start"]),
        "tokenizer": named(world["chat"]), "steps": STEPS, "root": str(root), "optimiser": {"learning_rate": 1e-3},
    }  # fmt: skip
    return given | more


def weights(model: Dataset) -> str:
    return next(e["sha256"] for e in model.manifest["files"] if e["file"] == "files/model.safetensors")


def stop_at_a_state(root: Path) -> None:
    """SIGTERM to this process as soon as a whole state stands."""
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(root.glob(".training/*/checkpoint-*/whole")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "sigmoid"}, {"loss": "kto"}, {"loss": "sigmoid", "lora": {"rank": 4}},
        {"loss": "orpo", "lora": {"rank": 4, "dropout": 0.2}}, {"reward": True},
        {"reward": True, "lora": {"rank": 4, "dropout": 0.2}},
    ],
    ids=["dpo", "kto", "dpo-lora", "orpo-lora", "reward", "reward-lora"],
)  # fmt: skip
def test_a_stopped_run_ends_in_the_same_bytes(world, tmp_path, settings):
    more = {name: value for name, value in settings.items() if name != "reward"}
    kind, run = (RewardSpec, reward.run) if "reward" in settings else (PreferenceSpec, preference.run)
    if settings.get("loss") != "kto":
        more["validation"] = [named(world["held"])]
    whole = run(kind(**fields(world, tmp_path / "whole", **more)))
    root = tmp_path / "stopped"
    spec = kind(**fields(world, root, save_seconds=0.05, **more))
    watcher = threading.Thread(target=stop_at_a_state, args=(root,))
    watcher.start()
    with pytest.raises(Stopped, match="goes on from there"):
        run(spec)
    watcher.join()
    (state,) = root.glob(".training/*/checkpoint-*")
    assert 0 < int(state.name.rpartition("-")[2]) < STEPS
    resumed = run(spec)
    assert resumed.key == whole.key and weights(resumed) == weights(whole)
    for name in ("validation", "too_long", "first_loss", "last_loss", "steps"):
        assert resumed.manifest["stats"][name] == whole.manifest["stats"][name]
    lines = [json.loads(line) for line in Path(resumed.file("metrics.jsonl")).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert not list((root / ".training").iterdir()), "the states are removed"


def test_the_command_stops_at_sigterm_and_goes_on(world, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(fields(world, tmp_path, steps=150, save_seconds=0.05)))
    command = [sys.executable, "-m", "gristmill.training.preference", "--spec", str(spec)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone)
    until = time.monotonic() + 120
    while not list(tmp_path.glob(".training/*/checkpoint-*/whole")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same spec goes on from there" in err
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=alone)
    assert done.returncode == 0 and "going on from" in done.stderr
    told = json.loads(done.stdout)
    assert told["steps"] == 150 and Dataset.load(told["path"]).digest == told["digest"]


@pytest.mark.parametrize(
    "more", [{"loss": "sigmoid", "lora": {"rank": 4}}, {"loss": "simpo"}], ids=["dpo-lora", "simpo"]
)
def test_two_processes_learn_what_one_does(world, tmp_path, more):
    given = fields(world, tmp_path / "two", steps=3, validation=[named(world["held"])], **more)
    one = preference.run(PreferenceSpec(**given | {"root": str(tmp_path / "one")}))
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(given))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["gristmill.training.preference", "--spec", str(spec)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=alone)
    assert done.returncode == 0, done.stderr
    two = Dataset.load(json.loads(done.stdout)["path"])
    assert two.key == one.key
    a, b = load_model(one).state_dict(), load_model(two).state_dict()
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)
    found, other = (next(iter(model.manifest["stats"]["validation"].values())) for model in (one, two))
    for name in ("loss", "margin", "chosen_logp"):
        assert other["after"][name] == pytest.approx(found["after"][name], rel=1e-3, abs=1e-4)
