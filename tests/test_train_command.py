"""`gristmill train`: datasets by name, fields as JSON, and a step's own words where it refuses."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import signal
import subprocess
import sys

import pytest
from packed import chain, pack
from tinychat import base, chat_tokenizer, chats, words

from gristmill.dataops.dataset import InputError
from gristmill.dataops.store import Store
from gristmill.flows.cli import main
from gristmill.flows.commands.train import _text, put
from gristmill.flows.ranks import launch
from gristmill.flows.train import resolved
from gristmill.training.merge import MergeSpec
from gristmill.training.pretraining.spec import PretrainSpec
from gristmill.training.proximal.settings import PPOSpec
from gristmill.training.sft import SftSpec
from gristmill.training.step import LESS, out_of_memory


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


def test_what_is_told_is_whole_and_indented():
    told = {
        "path": "/store/base/k", "digest": "d" * 150, "steps": 12_000, "loss": 0.123456789, "template": None,
        "validation": {"chats:ab": {"before": 1.5, "after": 0.25}}, "curve": list(range(500)), "ends": [1, 2],
    }  # fmt: skip
    assert _text(told).splitlines() == [
        "/store/base/k",
        f"digest  {'d' * 150}",
        "steps   12,000",
        "loss    0.123457",
        "validation",
        "  chats:ab",
        "    before  1.5",
        "    after   0.25",
        "curve   500 values (--json has them)",
        "ends    1, 2",
    ]


@pytest.mark.parametrize(
    ("kind", "named", "others"),
    [
        (PretrainSpec, {"accumulate", "checkpointing", "parallel", "rows"}, {"lora", "batch_tokens"}),
        (PPOSpec, {"checkpointing", "batch_tokens", "rollout_tokens"}, {"lora", "accumulate", "rows", "parallel"}),
        (SftSpec, {"accumulate", "checkpointing", "rows", "lora"}, {"parallel", "group"}),
        (MergeSpec, set(), set(LESS)),
    ],
)
def test_out_of_memory_names_settings_that_the_step_has(kind, named, others):
    fields = {field.name for field in dataclasses.fields(kind)}
    assert named <= fields and not others & fields
    said = out_of_memory("CUDA out of memory. Tried to allocate 2 GiB. More.", kind)
    assert said.startswith("the device has too little memory (CUDA out of memory): ")
    assert set(re.findall(r"`(\w+)`", said)) == named


def test_a_step_that_asks_a_model_reads_one_dataset_and_names_who_is_asked(root, capsys):
    asked = ["train", "generate", "--root", str(root), "--start", "base", "--json"]
    assert main([*asked, "--data", "chats", "--data", "chats"]) == 2
    assert "generate reads one dataset" in json.loads(capsys.readouterr().out)["error"]
    assert main([*asked, "--data", "chats=2"]) == 2
    assert "without a weight" in json.loads(capsys.readouterr().out)["error"]
    assert main([*asked, "--data", "chats"]) == 2  # read, and refused for what it holds
    assert "prompt" in json.loads(capsys.readouterr().out)["error"]


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


def stopped(command: list[str], number: int) -> tuple[int, str, str]:
    """Status, stdout and stderr of a training that is stopped once it is at work; by itself it would take very long."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = []
    try:
        for line in iter(process.stderr.readline, ""):
            seen.append(line)
            if line.startswith("step "):
                break
        process.send_signal(number)  # a process that has ended takes it too, and its status below is another
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out, "".join(seen) + err


def test_a_signal_stops_the_step_with_its_state_and_the_command_goes_on(root):
    command = [sys.executable, "-m", "gristmill.flows.cli"]
    command += arguments(root, "--name", "long", "--set", "steps=50000")
    code, out, err = stopped(command, signal.SIGINT)
    assert code == 130 and "goes on from" in json.loads(out)["error"], err
    (state,) = root.glob(".training/long-*/checkpoint-*")
    assert "Traceback" not in err and (state / "whole").exists()
    code, out, err = stopped(command, signal.SIGTERM)
    assert code == 143 and "goes on from" in json.loads(out)["error"], err
    assert f"going on from {state}" in err


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    pack(root, chain(16, 32, 16), seq_len=32, vocab_size=16)
    command = [
        "train", "pretrain", "--root", str(root), "--data", "packed", "--processes", "2", "--json",
        "--set", "rows=4", "--set", "model.depth=1",
    ]  # fmt: skip
    return root, command


def test_several_processes_speak_and_stop_as_one(tokens, capfd):
    root, command = tokens
    assert main([*command, "--set", "steps=2"]) == 0
    printed = capfd.readouterr()
    made = Store(root).get("base@latest")
    assert json.loads(printed.out)["digest"] == made.digest and made.manifest["made"]["processes"] == 2
    assert main([*command, "--set", "steps=2", "--set", "rows=3"]) == 2
    printed = capfd.readouterr()
    assert json.loads(printed.out)["error"] == "pretrain: spec: 3 rows do not divide among 2 processes in 1 pieces"
    assert len(printed.err.splitlines()) == 1, printed.err

    endless = [sys.executable, "-m", "gristmill.flows.cli", *command, "--set", "steps=1000000"]
    code, out, err = stopped(endless, signal.SIGTERM)
    assert code == 143 and "goes on from" in json.loads(out)["error"], err
    (at,) = re.findall(r"stopped at step ([\d,]+); the same spec goes on from there", err)
    assert "Traceback" not in err
    code, _, err = stopped(endless, signal.SIGTERM)
    assert code == 143 and f"going on at step {at} " in err, err


FAILING = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
print("out of", rank, os.environ["WORLD_SIZE"], flush=True)
print("words of", rank, file=sys.stderr, flush=True)
if rank == 0:  # as one that waits for the others where no signal reaches
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
ENDS
"""


@pytest.mark.parametrize(
    ("ends", "found", "shown"),
    [
        ("print('error: too large', file=sys.stderr); sys.exit(2)", (2, "too large"), []),
        ("raise ValueError('a mistake')", (1, ""), ["process 1: words of 1", "process 1: ValueError: a mistake"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", (137, ""), ["process 1: words of 1"]),
    ],
)
def test_one_that_fails_ends_all_and_its_own_words_are_told(monkeypatch, capfd, ends, found, shown):
    monkeypatch.setattr("gristmill.flows.ranks.GRACE", 0.5)
    ended = launch([sys.executable, "-c", FAILING.replace("ENDS", ends)], 2)
    assert (ended.status, ended.error) == found and ended.out == "out of 0 2\n"
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "words of 0" and set(shown) <= set(lines)
    assert shown or lines == ["words of 0"]
