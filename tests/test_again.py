"""What may pass is tried again, what cannot is not; and a step does not go on when whoever waits for it is dead."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gristmill.dataops.dataset import InputError
from gristmill.flows import posttrain
from gristmill.flows.stages import Blocked

#: A training step that says where it is, and stops on SIGTERM.
STEP = """
import dataclasses, os, sys, time
from gristmill.training.step import main
@dataclasses.dataclass
class Spec:
    path: str
def run(spec):
    with open(spec.path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.replace(spec.path + ".new", spec.path)
    time.sleep(600)
sys.exit(main(Spec, run, lambda spec: {}))
"""
WAITS = "import sys; from gristmill.flows.ranks import launch; launch(sys.argv[1:])"


def test_a_step_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    spec, told = tmp_path / "spec.json", tmp_path / "told"
    spec.write_text(f'{{"path": "{told}"}}')
    waits = subprocess.Popen([sys.executable, "-c", WAITS, sys.executable, "-c", STEP, "--spec", str(spec)])
    try:
        until(told.exists)
        step = int(told.read_text())
        assert (Path("/proc") / str(step)).exists()
    finally:
        waits.kill()
        waits.wait()
    until(lambda: not running(step))
    # Nor does one begin whose parent is gone already.
    told.unlink()
    gone = {**os.environ, "GRISTMILL_PARENT": str(waits.pid)}
    done = subprocess.run([sys.executable, "-c", STEP, "--spec", str(spec)], env=gone, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM and "is gone" in done.stderr and not told.exists()


@pytest.mark.parametrize("error", [RuntimeError("killed"), OSError("disk"), InputError("bad"), None])
def test_a_step_of_an_alignment_is_tried_again_unless_it_is_bad_input(
    prefect: str, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    from prefect import flow

    monkeypatch.setattr(posttrain, "AGAIN", (0.0, 0.0))
    tried = []

    def work() -> str:
        tried.append(1)
        if len(tried) < 3 and error is not None:
            raise error
        return "done"

    @flow
    def one() -> str:
        return posttrain._step("step", work)

    if isinstance(error, InputError):
        with pytest.raises(InputError):
            one()
        assert len(tried) == 1
    else:
        assert one() == "done" and len(tried) == (1 if error is None else 3)


def test_a_gate_that_blocks_is_no_failure_to_try_again() -> None:
    from prefect.states import Failed

    assert not posttrain._may_pass(None, None, Failed(data=Blocked("no", None)))  # type: ignore[arg-type]
    assert posttrain._may_pass(None, None, Failed(data=RuntimeError("evaluate ended with status 137")))


def test_a_limit_that_is_not_there_is_an_error(prefect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    monkeypatch.setattr(posttrain, "GPU_LIMIT", "no-such-limit")
    with pytest.raises(ConcurrencySlotAcquisitionError, match="must be created"), posttrain._gpu():
        pass


def running(pid: int) -> bool:
    """Whether a process runs, and is not merely not yet waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(done) -> None:
    """Wait for it."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
