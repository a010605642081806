"""Pretraining by two processes under torchrun: what one process learns, stopped together, and gone on exactly."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import pretrain
from packed import chain, pack
from safetensors.torch import load_file

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.model import Objective, Shape, build, configuration
from gristmill.training.pretrain import dry, run
from gristmill.training.pretraining.loop import Kept, optimizer_of
from gristmill.training.pretraining.parallel import Peers, joined
from gristmill.training.pretraining.spec import PretrainSpec
from gristmill.training.schedule import Optimiser
from gristmill.training.spec import read_spec
from gristmill.training.state import load_state, save_state
from gristmill.training.stream import World

PROCESSES, STEPS = 2, 120


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As torchrun's processes have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    """Rows with very different numbers of targets, so that a mean of means is another mean."""
    rows = chain(48, 64, 32)
    rows[::2] = [[documents[0][:3]] for documents in rows[::2]]
    return pack(tmp_path_factory.mktemp("data"), rows, seq_len=64, vocab_size=32)


def write_spec(folder: Path, data: Dataset, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    named = {"path": data.path, "digest": data.digest}
    values = {
        "data": [named], "validation": [named], "root": str(folder), "model": {"depth": 1}, "rows": 8, "accumulate": 2,
        "steps": STEPS, "optimiser": {"z_loss": 1e-3, "skip_above": 4.0, "learning_rate": 5e-4}, **changes,
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(values))
    return folder / "spec.json"


def torchrun(spec: Path) -> subprocess.Popen[str]:
    """As `python -m`."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    command = [sys.executable, "-m", *launch, "-m", "gristmill.training.pretrain", "--spec", str(spec)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(spec: Path) -> tuple[Dataset, str]:
    """The checkpoint of processes that were forked, and what the first said."""
    (status, out, err), *others = pretrain(spec, PROCESSES)
    assert (status, *(other[:2] for other in others)) == (0, *[(0, "")] * (PROCESSES - 1)), err
    return Dataset.load(json.loads(out)["path"]), err  # one line on stdout, though there are two processes


def steps_of(checkpoint: Dataset) -> dict[str, np.ndarray]:
    lines = Path(checkpoint.file("metrics.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def weights_of(checkpoint: Dataset) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.file("model.safetensors"))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Dataset:
    return run(read_spec(write_spec(tmp_path_factory.mktemp("alone"), data), PretrainSpec))


@pytest.fixture(scope="module")
def together(data, tmp_path_factory) -> dict[str, Dataset]:
    """Two processes, never stopped."""
    process = torchrun(write_spec(tmp_path_factory.mktemp("ddp"), data, parallel="ddp"))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    spec = write_spec(tmp_path_factory.mktemp("fsdp"), data, parallel="fsdp", checkpointing=True)
    fsdp, more = finished(spec)
    for said in (err, more):
        assert said.count("step 1/") == 1 and "parameters on 2 x cpu" in said
    return {"ddp": Dataset.load(json.loads(out)["path"]), "fsdp": fsdp}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(alone, together, kind):
    one, two = steps_of(alone), steps_of(together[kind])
    for exact in ("step", "tokens", "taken", "learning_rate"):
        assert np.array_equal(one[exact], two[exact]), exact
    for close in ("loss", "grad_norm", "unigram_entropy"):
        np.testing.assert_allclose(two[close], one[close], rtol=1e-5, err_msg=close)
    assert one["loss"][-1] < 0.8 * one["loss"][0]
    first, second = weights_of(alone), weights_of(together[kind])
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-5, msg=name)
    held = [list(dataset.manifest["stats"]["validation"].values()) for dataset in (alone, together[kind])]
    assert held[1] == pytest.approx(held[0], rel=1e-5)


def test_how_it_ran_is_told_and_is_no_identity(alone, together):
    datasets = [alone, *together.values()]
    assert len({dataset.key for dataset in datasets}) == 1
    assert [dataset.manifest["made"]["processes"] for dataset in datasets] == [1, 2, 2]
    assert [dataset.manifest["made"]["parallel"] for dataset in datasets] == ["ddp", "ddp", "fsdp"]
    assert [dataset.manifest["reproducible"] for dataset in datasets] == [not torch.cuda.is_available(), False, False]
    assert {dataset.manifest["stats"]["tokenizer"] for dataset in datasets} == {"t"}


@pytest.mark.parametrize(("kind", "whom"), [("ddp", 0), ("fsdp", 1)])
def test_a_signal_to_one_stops_all_at_one_step_and_they_go_on_from_there(data, together, tmp_path, kind, whom):
    spec = write_spec(tmp_path, data, parallel=kind, checkpointing=kind == "fsdp")
    ended = pretrain(spec, PROCESSES, stop=(whom, 7))
    assert [(status, out) for status, out, _ in ended] == [(143, "")] * PROCESSES
    assert all(err.endswith("stopped at step 7; the same spec goes on from there\n") for *_, err in ended)
    (saved,) = (tmp_path / ".training").iterdir()

    with pytest.raises(InputError, match="world 2 there, 1 here"):
        run(read_spec(spec, PretrainSpec))

    checkpoint, err = finished(spec)
    assert f"going on at step 7 from {saved}" in err
    assert checkpoint.digest == together[kind].digest  # to the bit, and for ddp to what torchrun's processes made
    assert not list(saved.parent.iterdir())


def test_sigterm_to_torchrun_stops_all_at_one_step(data, tmp_path):
    process = torchrun(write_spec(tmp_path, data, steps=10**7))
    try:
        assert any(line.startswith("step 1/") for line in iter(process.stderr.readline, ""))  # it is training
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode != 0 and out == ""
    stopped = re.findall(r"stopped at step ([\d,]+); the same spec goes on from there", err)
    assert len(stopped) == PROCESSES and len(set(stopped)) == 1
    assert len(list((tmp_path / ".training").iterdir())) == 1


def test_rows_that_cannot_be_shared_out_are_refused(data, tmp_path):
    for status, out, err in pretrain(write_spec(tmp_path, data, rows=6), PROCESSES):
        assert (status, out) == (2, "")
        assert err == "error: spec: 6 rows do not divide among 2 processes in 2 pieces\n"
    assert not (tmp_path / "base").exists()


def test_alone_there_is_nothing_to_agree_on(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined() as peers:
        assert peers.world == World(0, 1) and peers.first
        assert peers.any(False, True) == [False, True] and peers.lead(2.5) == 2.5
        assert peers.total(torch.tensor([1, 2])).tolist() == [1, 2]


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_state_with_one_flipped_byte_is_refused(tmp_path, place):
    peers = Peers(World(), torch.device("cpu"))
    model = Objective(build(configuration(Shape(depth=1), 32), 0))
    optimizer = optimizer_of(model, Optimiser())
    loss = sum(parameter.sum() for parameter in model.parameters())
    loss.backward()
    optimizer.step()
    path = tmp_path / ".training" / "base.pt"
    save_state(path, model, optimizer, Kept.read(None, 32).as_json(), peers)
    assert Kept.read(load_state(path, model, optimizer), 32).step == 0
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="remove it to start anew"):
        load_state(path, model, optimizer)


def test_a_dry_run_says_what_a_run_would_take(data, tmp_path):
    model = build(configuration(Shape(depth=1), 32, seq_len=64), 0)
    count = sum(parameter.numel() for parameter in model.parameters())
    told = dry(read_spec(write_spec(tmp_path, data), PretrainSpec))
    assert (told["parameters"], told["steps"], told["seconds"]) == (count, STEPS, None)
    assert (told["tokens_per_step"], told["processes"]) == (8 * 64, 1)
    assert told["memory"]["weights"] == 4 * count and told["memory"]["optimizer"] == 8 * count
    assert told["memory"]["total"] == sum(size for name, size in told["memory"].items() if name != "total")
    pieces = dry(read_spec(write_spec(tmp_path, data, accumulate=4), PretrainSpec))
    assert pieces["memory"]["activations"] == told["memory"]["activations"] / 2
    deep, lean = (
        dry(read_spec(write_spec(tmp_path, data, model={"depth": 3}, checkpointing=flag), PretrainSpec))
        for flag in (False, True)
    )
    assert lean["memory"]["activations"] < deep["memory"]["activations"] / 2
    assert not (tmp_path / "base").exists() and not (tmp_path / ".training").exists()
