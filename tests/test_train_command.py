"""`gristmill train`: datasets by name, fields as JSON, and a step's own words where it refuses."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from tinychat import base, chat_tokenizer, chats, words

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store
from gristmill.flows.cli import main
from gristmill.flows.commands.train import put
from gristmill.flows.train import resolved


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    rng = random.Random(0)
    asked = [" ".join(rng.choices(words(6), k=3)) for _ in range(60)]
    chat = chat_tokenizer(root, count=16)
    base(root, chat)
    chats(root, chat, [(question, question.split()[0]) for question in asked], name="chats")
    return root


def arguments(root, *more: str) -> list[str]:
    return [
        "train", "sft", "--root", str(root), "--data", "chats", "--start", "base", "--tokenizer", "chat",
        "--set", "steps=3", "--set", "optimiser.learning_rate=1e-3", "--json", *more,
    ]  # fmt: skip


def test_a_step_is_run_on_datasets_by_name_and_its_result_is_tagged(root, capsys):
    assert main(arguments(root, "--name", "tuned")) == 0
    told = json.loads(capsys.readouterr().out)
    model = Store(root).get("tuned")
    assert (told["digest"], told["steps"]) == (model.digest, 3)
    assert model.manifest["ops"][0]["params"]["optimiser"]["learning_rate"] == 1e-3
    assert [item["name"] for item in model.manifest["inputs"]] == ["chats", "base", "chat"]


def test_dry_run_publishes_nothing(root, capsys):
    assert main(arguments(root, "--name", "dry", "--dry-run")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 3 and told["memory"]["total"] > 0
    assert "dry" not in Store(root).names()


def test_what_a_step_refuses_is_one_line(root, capsys):
    assert main(arguments(root, "--set", "rows=0")) == 2
    told = json.loads(capsys.readouterr().out)
    assert told == {"error": "sft: spec: rows is 0; it must be above 0"}
    assert main(arguments(root, "--data", "nothing")) == 2
    assert "no dataset named 'nothing'" in capsys.readouterr().out
    assert main(arguments(root, "--spec", str(root / "none.json"))) == 2


def test_specs_name_data_anywhere_and_keep_what_stands_beside():
    spec: dict = {}
    for item in ("a.b=1", 'a.c={"d": 2}', "name=plain words", "flag=true"):
        put(spec, item)
    assert spec == {"a": {"b": 1, "c": {"d": 2}}, "name": "plain words", "flag": True}
    for wrong in ("a", "=1", "name.x=1"):
        with pytest.raises(InputError):
            put(spec, wrong)


def test_references_become_paths_and_digests(root):
    store = Store(root)
    chats_there = store.get("chats")
    found = resolved(store, {"data": [{"dataset": "chats", "weight": 2}], "slices": {"a": {"dataset": "chats"}}})
    named = {"path": chats_there.path, "digest": chats_there.digest}
    assert found == {"data": [named | {"weight": 2}], "slices": {"a": named}}


def test_a_signal_stops_the_step_with_its_state_and_the_command_goes_on(root):
    command = [sys.executable, "-m", "gristmill.flows.cli"]
    command += arguments(root, "--name", "long", "--set", "steps=400", "--set", "save_seconds=0.2")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(root.glob(".training/long-*/checkpoint-*/whole")):
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "goes on from it" in json.loads(out)["error"]
    assert main(command[3:]) == 0
    assert Dataset.load(Store(root).get("long").path).manifest["stats"]["steps"] == 400
