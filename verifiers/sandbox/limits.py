"""What one sandboxed run may use, and how it ended.

The law: every run ends, within its limits, in one named way; `lost` means our own machinery died and says nothing of
the program. Not covered here: how limits are enforced (confine.py, zygote.py, run.py).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from gristmill.dataops.dataset import InputError

Status = Literal["exited", "signalled", "timeout", "cpu", "memory", "output", "killed", "lost"]


@dataclass(frozen=True)
class Limits:
    """Limits of one run. Raises InputError for one that is no positive number (`processes` may be 0).

    `wall` and `cpu` are seconds (`cpu` is rounded up to whole seconds, and counts per process); `memory` is the
    address space of a process in bytes, the interpreter's own 60 MB or so included; `output` is bytes of stdout, of
    stderr and of one frame on the channel, each; `disk` is bytes of all files together; `files` open descriptors;
    `processes`: 0 forbids starting any, else at most `threads + processes` threads and processes are there at once (the
    kernel counts them together); `threads` the threads of one process, its first included.
    """

    wall: float = 10.0
    cpu: float = 8.0
    memory: int = 1 << 30
    output: int = 1 << 20
    disk: int = 16 << 20
    files: int = 64
    processes: int = 0
    threads: int = 64

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name == "processes" else 1e-3
            if isinstance(value, bool) or not math.isfinite(value) or value < least:
                raise InputError(f"the limit {name} is {value!r}; give a number of at least {least:g}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `code` is the exit code (exited) or the signal's number (signalled), None otherwise.

    stdout and stderr hold at most `Limits.output` bytes each; `seconds` is wall time from start to end.
    """

    status: Status
    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
