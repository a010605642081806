"""`gristmill up`: what dies comes back, one at a time on a root, and nothing is left when it ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.flows.supervisor import Service, Supervisor, Taken, marked

#: A service whose child is in a session of its own, as a training step is, and one that takes no notice of SIGTERM.
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
#: A supervisor that nobody asks to stop.
ALONE = """
import os, sys, time
from pathlib import Path
from gristmill.flows.supervisor import Service, Supervisor
supervisor = Supervisor(Path(sys.argv[1]), os.environ, lambda name, line: print(supervisor.word, line, flush=True))
supervisor.hold({"prefect": "here"})
for name, code in zip("ab", sys.argv[2:]):
    supervisor.start(Service(name, [sys.executable, "-c", code]))
while True:
    supervisor.tend()
    time.sleep(0.05)
"""


def until(done: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def supervised(folder: Path, *codes: str, **more: Any) -> Iterator[tuple[Supervisor, list[str]]]:
    """A supervisor of services a, b, ... that have said that they are ready."""
    heard: list[str] = []
    supervisor = Supervisor(folder, os.environ, lambda name, line: heard.append(f"{name} {line}"))
    try:
        for name, code in zip("abc", codes, strict=False):
            supervisor.start(Service(name, [sys.executable, "-c", code], **more))
        until(lambda: len(heard) == len(codes))
        yield supervisor, heard
    finally:
        if not supervisor.log.closed:
            supervisor.stop("abc")


def test_all_stop_in_order_with_what_they_started(tmp_path: Path) -> None:
    with supervised(tmp_path, PARENT, STUBBORN, grace=0.5) as (supervisor, heard):
        assert len(until(lambda: len(found := marked(supervisor.word)) == 3 and found)) == 3
        supervisor.stop("ba")
    assert [line for line in heard if line.startswith("up")] == ["up b has stopped", "up a has stopped"]
    assert marked(supervisor.word) == []
    assert (tmp_path / "up.log").read_text().splitlines()[-1].endswith("Z up       a has stopped")


def test_what_dies_starts_again_without_what_it_left(tmp_path: Path) -> None:
    with supervised(tmp_path, PARENT) as (supervisor, heard):
        before = set(until(lambda: len(found := marked(supervisor.word)) == 2 and found))
        supervisor.running["a"].kill()
        assert until(supervisor.tend) == ["a"]
        until(lambda: heard.count("a ready") == 2)
        assert not before & set(marked(supervisor.word))
        assert any("ended with status -9; it starts again in 0.5 s" in line for line in heard)


def test_one_that_keeps_dying_waits_longer_each_time(tmp_path: Path) -> None:
    with supervised(tmp_path, "print('ready')") as (supervisor, heard):
        until(lambda: supervisor.tend() and supervisor.failures["a"] == 2)
    waits = [line.split()[-2] for line in heard if "starts again" in line]
    assert waits[:2] == ["0.5", "1"]


def test_a_killed_supervisor_leaves_nothing_and_the_next_one_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path), PARENT, STUBBORN]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    word = {first.stdout.readline().split()[0] for _ in range(2)}.pop()
    until(lambda: len(marked(word)) == 3)
    with pytest.raises(Taken) as taken:
        Supervisor(tmp_path, os.environ, print)
    assert taken.value.holder["pid"] == first.pid and taken.value.holder["prefect"] == "here"
    first.kill()
    first.wait()
    with supervised(tmp_path, PARENT):
        assert marked(word) == []


def test_a_killed_watchdog_is_replaced_and_one_killed_with_its_master_too(tmp_path: Path) -> None:
    with supervised(tmp_path, PARENT) as (supervisor, _):
        first = supervisor.watchdog
        first.kill()
        until(lambda: supervisor.tend() or supervisor.watchdog is not first)
        assert supervisor.watchdog.poll() is None
        supervisor.running["a"].kill()
        until(supervisor.tend)
    command = [sys.executable, "-c", ALONE, str(tmp_path), PARENT]
    alone = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert alone.stdout is not None
    word = alone.stdout.readline().split()[0]
    [watchdog] = (
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline")
        if _read(path).endswith(f"\0{word}\0".encode())
    )  # fmt: skip
    os.kill(alone.pid, signal.SIGSTOP)
    os.kill(watchdog, signal.SIGKILL)
    alone.kill()
    alone.wait()
    assert len(marked(word)) == 2
    with supervised(tmp_path):
        assert marked(word) == []


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_up_heals_and_ends(tmp_path: Path) -> None:
    """All of it: it says where it is, refuses a second, comes back after all its processes were killed, and stops."""
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = [str(probe.getsockname()[1]) for probe in (one, two)]
    command = [sys.executable, "-m", "gristmill.flows.cli", "up", "--root", str(tmp_path), "--json"]
    up = subprocess.Popen(
        [*command, "--port", ports[0], "--feedback-port", ports[1]], stdout=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        told = json.loads(up.stdout.readline())
        assert set(told["deployments"]) >= {
            "pretrain-data/nightly",
            "refilter/weekly",
            "sweep/hourly",
            "align/on-feedback",
        }
        assert told["prefect"] == f"http://127.0.0.1:{ports[0]}"
        word = json.loads((tmp_path / "up.lock").read_text())["word"]
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 2 and f"stop process {up.pid}" in json.loads(second.stdout)["error"]
        log = tmp_path / "up.log"
        served = log.read_text().count("serves all of these")
        names = ("server", "runner", "feedback")
        before = {name: marked(f"{word}:{name}")[0] for name in names}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: log.read_text().count("serves all of these") > served, 240)
        health = f"http://127.0.0.1:{ports[0]}/api/health"
        assert json.load(urllib.request.urlopen(health, timeout=30)) is True
        assert all(marked(f"{word}:{name}")[0] != before[name] for name in names)
        up.terminate()
        assert up.wait(60) == 0
        assert marked(word) == []
    finally:
        up.kill()
        up.wait()
