"""A PPO run that was stopped, anywhere and any way, ends in the bytes it would have ended in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ppo_toys import scorer, toy

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.ppo import run
from gristmill.training.proximal.respond import respond
from gristmill.training.proximal.settings import PPOSpec
from gristmill.training.proximal.update import update
from gristmill.training.step import Stopped

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="training on a GPU is not reproducible to the byte")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where it has to wait for its core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, Dataset]:
    """A spec whose every part matters to what comes next, and its checkpoint in one go."""
    spec = toy(tmp_path_factory.mktemp("whole")) | {
        "scorers": [scorer("picky")], "iterations": 4, "kl": {"coefficient": 0.1, "target": 0.5, "horizon": 20},
        "optimiser": {"learning_rate": 3e-3, "skip_above": 3.0, "warmup": 0.5}, "save_seconds": 1e-9,
    }  # fmt: skip
    return spec, run(PPOSpec(**spec))


def same(one: Dataset, other: Dataset) -> bool:
    """Weights, metrics, curve and tokenizer by the digest; the rollouts by theirs."""
    rollouts = [item.manifest["stats"]["rollouts"]["digest"] for item in (one, other)]
    return one.digest == other.digest and rollouts[0] == rollouts[1]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_while_sampling_and_between_optimiser_steps(tmp_path, whole, monkeypatch, capsys):
    spec = PPOSpec(**whole[0] | {"root": str(tmp_path), "save_seconds": 1e6})
    steps = []

    def stopped_sampling(job, given, tasks, judges, iteration, between):
        if iteration == 1:
            monkeypatch.undo()
            terminate()
        return respond(job, given, tasks, judges, iteration, between)

    def stopped_updating(both, optimizer, wanted, spec, kept, after):
        def then() -> None:
            steps.append(kept.done)
            if kept.iteration == 2 and kept.done == 3:
                monkeypatch.undo()
                terminate()
            after()

        update(both, optimizer, wanted, spec, kept, then)

    monkeypatch.setattr("gristmill.training.ppo.respond", stopped_sampling)
    with pytest.raises(Stopped, match="iteration 2"):
        run(spec)
    assert not (tmp_path / "ppo").exists() and list((tmp_path / ".training").glob("*.pt"))
    monkeypatch.setattr("gristmill.training.ppo.update", stopped_updating)
    with pytest.raises(Stopped, match="iteration 3"):
        run(spec)
    assert "going on at iteration 2" in capsys.readouterr().err and steps == [1, 2, 3, 4, 1, 2, 3]
    assert same(run(spec), whole[1])
    assert "going on at iteration 3" in capsys.readouterr().err
    assert not list((tmp_path / ".training").iterdir())


@pytest.mark.parametrize("lost", ["last", "all", "published"])
def test_killed_with_an_old_state_or_none(tmp_path, whole, monkeypatch, lost):
    """What ran after the last state was written runs again; what a dead run left behind does not get in the way."""
    spec = PPOSpec(**whole[0] | {"root": str(tmp_path)})
    if lost == "published":  # the rollouts stand, the checkpoint does not
        monkeypatch.setattr(
            "gristmill.training.ppo.publish_files", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    else:
        kept_states = []

        def dying(both, optimizer, wanted, spec, kept, after):
            def then() -> None:
                if (kept.iteration, kept.done) == (2, 2):
                    kept_states.append(next((tmp_path / ".training").glob("*.pt")).read_bytes())
                if (kept.iteration, kept.done) == (3, 1):
                    raise KeyboardInterrupt  # before its state is written
                after()

            update(both, optimizer, wanted, spec, kept, then)

        monkeypatch.setattr("gristmill.training.ppo.update", dying)
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    monkeypatch.undo()
    (state,) = (tmp_path / ".training").glob("*.pt")
    if lost == "last":
        state.write_bytes(kept_states[0])  # as if no later one had been written
    elif lost == "all":
        state.unlink()
    assert same(run(spec), whole[1])


def test_a_state_or_rollouts_that_cannot_be_read_are_refused(tmp_path, whole, monkeypatch):
    spec = PPOSpec(**whole[0] | {"root": str(tmp_path)})

    def dying(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("gristmill.training.ppo.update", dying)
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    monkeypatch.undo()
    (table,) = (tmp_path / ".training").glob("*.rollouts/*.arrow")
    good = table.read_bytes()
    table.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="cannot be read.*start anew"):
        run(spec)
    table.write_bytes(good)
    (state,) = (tmp_path / ".training").glob("*.pt")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match="remove it to start anew"):
        run(spec)


def test_sigterm_and_kill_in_a_process_of_its_own(tmp_path, whole):
    """As a scheduler would: SIGTERM, then kill -9, then to the end; in between nothing is published."""
    spec = whole[0] | {"root": str(tmp_path / "root")}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "gristmill.training.ppo", "--spec", str(tmp_path / "spec.json")]
    tests = str(Path(__file__).parent)
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def start(line: str, number: int) -> tuple[int, str]:
        """Run until a line of progress begins so, send the signal; the exit status and what was said after it."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, env=environment | {"PPO_TOYS_SLEEP": "2"}, text=True, **pipes)
        try:
            assert any(said.startswith(line) for said in iter(process.stderr.readline, ""))
            process.send_signal(number)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        assert out == ""
        return process.returncode, err

    status, err = start("iteration 1/", signal.SIGTERM)
    assert status == 143 and "the same spec goes on from there" in err and "Traceback" not in err
    status, _ = start("iteration 2/", signal.SIGKILL)
    assert status == -signal.SIGKILL and not (tmp_path / "root" / "ppo").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "going on at iteration" in done.stderr
    assert same(Dataset.load(json.loads(done.stdout)["path"]), whole[1])
