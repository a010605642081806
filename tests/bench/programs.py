"""Sandboxed verdicts a second over HumanEval's own solutions, against a fresh sandboxed `python` for each.

Two peers, both with program and tests in one file, which ours holds apart: a new interpreter in the same sandbox (same
namespaces, limits and system call filter), and one in bubblewrap with `prlimit`, which has no system call filter and no
bound on its files. As many at once as our own verifier runs; the start of pools is not counted.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.verifiers.programs.verify import LIMITS, guest, programs
from gristmill.verifiers.sandbox.pool import Sandbox
from tests.realdata import real

PYTHON = [os.path.realpath(sys._base_executable), "-I"]
BUBBLEWRAP = [
    "prlimit", "--as=1073741824", "--cpu=10", "--nofile=64",
    "bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr",
    "--ro-bind", sys.base_prefix, sys.base_prefix,
    "--tmpfs", sysconfig.get_paths(vars={"base": sys.base_prefix})["purelib"],  # as ours: no third-party packages
    "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
    "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *PYTHON, "-",
]  # fmt: skip


def verdicts() -> Iterator[dict[str, Any]]:
    """Verdicts per second, the best of five turns each."""
    with gzip.open(real("verify/HumanEval.jsonl.gz"), "rt") as lines:
        tasks = [json.loads(line) for line in lines]
    rows = [
        task | {"response": task["canonical_solution"],
                "tests": {"code": task["test"], "entry_point": task["entry_point"]}}
        for task in tasks
    ]  # fmt: skip
    whole = [
        f"{task['prompt']}{task['canonical_solution']}\n{task['test']}\ncheck({task['entry_point']})".encode()
        for task in tasks
    ]
    workers = (os.cpu_count() or 1) + 2
    with Sandbox(guest(), limits=LIMITS) as box, ThreadPoolExecutor(workers) as threads:
        verify = programs(sandbox_context=box)

        def same(text: bytes) -> bool:
            return box.command([*PYTHON, "program.py"], files={"program.py": text}).code == 0

        def bare(text: bytes) -> bool:
            return subprocess.run(BUBBLEWRAP, input=text, capture_output=True, check=False).returncode == 0

        runs: dict[str, Callable[[], bool]] = {
            "ours": lambda: all(verdict.score == 1.0 for verdict in verify.rows(rows)),
            "a new python in the same sandbox": lambda: all(threads.map(same, whole)),
            "a new python in bubblewrap": lambda: all(threads.map(bare, whole)),
        }
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(5):  # in turns, so that a busy moment does not hit one side alone
            for name, run in runs.items():
                clock = time.perf_counter()
                assert run(), name
                best[name] = min(best[name], time.perf_counter() - clock)
        isolation = box.isolation
    ours = len(rows) / best.pop("ours")
    for name, seconds in best.items():
        ratio = round(ours * seconds / len(rows), 1)
        yield {
            "peer": name, "measure": f"verdicts/s, HumanEval solutions, {isolation}", "programs": len(rows),
            "ours": round(ours, 1), "peer_value": round(len(rows) / seconds, 1), "ratio": ratio, "bar": 3,
            "met": ratio >= 3 and ours >= 150,
        }  # fmt: skip
