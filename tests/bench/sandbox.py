"""Empty sandboxed runs per second and core against a fresh sandboxed interpreter per run.

Processor seconds count all that a run costs: this process, the zygote and every child. The peers are what a verifier
does without a pool: `bwrap` or `unshare` around `python -I -c pass`, with the same read-only system and namespaces but
without limits, system call filter or captured output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gristmill.verifiers.sandbox.namespaces import PR_SET_CHILD_SUBREAPER, prctl
from gristmill.verifiers.sandbox.pool import Sandbox

RUNS, FRESH = 300, 40
TICKS = os.sysconf("SC_CLK_TCK")


def sandboxed_runs() -> Iterator[dict[str, Any]]:
    """Runs per processor second, and the bar of three times a fresh interpreter."""
    interpreter = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    python = [interpreter, "-I", "-c", "pass"]
    fresh = {
        "bubblewrap": ["bwrap", *"--unshare-all --die-with-parent --ro-bind / / --tmpfs /tmp".split(), *python],  # noqa: SIM905
        "namespaces": ["unshare", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", *python],
    }
    folder = tempfile.TemporaryDirectory()
    guest = Path(folder.name) / "guest.py"
    guest.write_text("def run(role, channel): pass")
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # bwrap leaves without waiting for its child: its time comes to us by this
    for isolation, command in fresh.items():
        if shutil.which(command[0]) is None:
            continue
        with Sandbox(guest, isolation=isolation) as box:
            _runs(box, 20)
            # Processor seconds of a pool are those of its tree, which it has not waited for: read before and after.
            pooled, pooled_wall = _timed(lambda box=box: _runs(box, RUNS), lambda box=box: _tree(_launcher(box)))
        peer, peer_wall = _timed(lambda command=command: _fresh(command), _waited_for)
        ours, theirs = RUNS / pooled, FRESH / peer
        ratio = round(ours / theirs, 1)
        yield {
            "peer": f"{command[0]} python -I -c pass", "measure": f"empty runs per processor second, {isolation}",
            "ours": round(ours), "peer_value": round(theirs), "ratio": ratio, "bar": 3, "met": ratio >= 3,
            "cpu_ms_per_run": round(1e3 * pooled / RUNS, 2), "wall_ms_per_run": round(1e3 * pooled_wall / RUNS, 2),
            "peer_wall_ms": round(1e3 * peer_wall / FRESH, 2),
        }  # fmt: skip
    prctl(PR_SET_CHILD_SUBREAPER, 0)
    folder.cleanup()


def _runs(box: Sandbox, count: int) -> None:
    for _ in range(count):
        outcome = box.start("").finish()
        assert (outcome.status, outcome.code) == ("exited", 0), outcome


def _fresh(command: list[str]) -> None:
    for _ in range(FRESH):
        subprocess.run(command, check=True, env={}, stdin=subprocess.DEVNULL)
    time.sleep(0.05)  # for the last orphans to end; what else runs in this process is not waited for
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _timed(work: Callable[[], None], others: Callable[[], float]) -> tuple[float, float]:
    """Processor seconds of this process and of others, and wall seconds, that some work takes."""
    before, clock = time.process_time() + others(), time.perf_counter()
    work()
    return time.process_time() + others() - before, time.perf_counter() - clock


def _waited_for() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _launcher(box: Sandbox) -> int:
    assert box._zygote is not None
    return box._zygote.process.pid


def _tree(pid: int) -> float:
    """Processor seconds of a process, all below it and all those have waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    below = (int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split())
    return sum(map(int, fields[11:15])) / TICKS + sum(map(_tree, below))
