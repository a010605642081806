"""What the tests of the sandbox share: a guest that runs the code it is sent, and pools of every isolation."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.sandbox.limits import Limits, Outcome
from gristmill.verifiers.sandbox.pool import Sandbox

#: Runs each frame as code. `answer` sends a value back; `refused` names the error a call fails with, "" for none.
GUEST = """
import ctypes, errno, json, os

def refused(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""

def syscall(number, *arguments):
    if ctypes.CDLL(None, use_errno=True).syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def run(role, channel):
    names = {"answer": lambda value: channel.send(json.dumps(value, default=repr).encode())}
    names |= {"channel": channel, "refused": refused, "syscall": syscall, "role": role}
    while (code := channel.receive()) is not None:
        exec(code, names)
"""


def opened(folder: Path, isolation: str, **options: Any) -> Sandbox:
    """A pool of one isolation; skips where that isolation cannot be had on this machine."""
    guest = folder / "guest.py"
    guest.write_text(GUEST)
    if isolation == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        return Sandbox(guest, isolation=isolation, **options)
    except InputError as error:
        pytest.skip(f"no isolation by {isolation} on this machine: {error}")


def ask(box: Sandbox, code: str, *, limits: Limits | None = None, stdin: bytes | None = None) -> tuple[Any, Outcome]:
    """Run code in a fresh run: what it answered (None: nothing) and how it ended."""
    run = box.start("role", limits=limits, stdin=stdin)
    run.send(textwrap.dedent(code).encode())
    frame = run.receive(60)
    return (None if frame is None else json.loads(frame)), run.finish()


def answer(box: Sandbox, code: str, **options: Any) -> Any:
    """What code answered in a run that then ended well."""
    value, outcome = ask(box, code, **options)
    assert (outcome.status, outcome.code, outcome.stderr) == ("exited", 0, b"")
    return value


def below(pid: int) -> list[int]:
    """All processes below one, nearest first."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return [*children, *(deeper for child in children for deeper in below(child))]


def alive(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def inside(box: Sandbox) -> list[int]:
    """The processes of a pool below its launcher, as this machine numbers them."""
    assert box._zygote is not None
    return [box._zygote.process.pid, *below(box._zygote.process.pid)]


def here() -> tuple[int, int, int]:
    """Descriptors, processes and mounts of this process."""
    return descriptors(os.getpid()), len(below(os.getpid())), mounts(os.getpid())


def descriptors(pid: int) -> int:
    """How many descriptors a process has."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def mounts(pid: int) -> int:
    """How many mounts a process sees."""
    return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
