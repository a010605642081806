"""What a forked child does before and after it runs a guest: all restrictions, then the guest, then the end.

Standard library only (see namespaces.py). The law: when the guest gets control the process holds descriptors 0 to 3
alone, no capability, an empty file system of its own to write to, its limits and the system call filter.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import math
import os
import resource
import signal
import socket
import struct
import sys
import threading
import traceback
from typing import Any

from gristmill.verifiers.sandbox import seccomp
from gristmill.verifiers.sandbox.namespaces import (
    MS_NODEV,
    MS_NOSUID,
    NEWNS,
    NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    call,
    drop_capabilities,
    mount,
    prctl,
)

#: Exit code of a run that ended in a MemoryError.
OUT_OF_MEMORY = 173
#: Since Linux 5.14 threads are counted per user namespace; before, one user's runs and all else would add up.
COUNTED_APART = [int(part) for part in os.uname().release.split(".")[:2]] >= [5, 14]
_HEADER = struct.Struct("!I")


class Channel:
    """The guest's end of its channel to the grader: frames of bytes, each after its length in 4 bytes."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)

    def send(self, frame: bytes) -> None:
        """Send one frame. Raises OSError where the grader has gone."""
        self._socket.sendall(_HEADER.pack(len(frame)) + frame)

    def receive(self) -> bytes | None:
        """Wait for the next frame; None when the grader sends no more."""
        header = self._exactly(_HEADER.size)
        return None if header is None else self._exactly(_HEADER.unpack(header)[0])

    def _exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                return None
            parts += part
        return bytes(parts)


def confine(limits: dict[str, Any], fds: list[int], isolation: str, filters: dict[bool, bytes], folder: str) -> None:
    """Restrict this process, just forked, for good; `folder` is where it may write files.

    Of `fds` the first, the leash, stays open for the caller to tell a failure and close; the rest become 0, 1, 2, 3.
    """
    processes = limits["processes"] > 0
    # A process group of its own: kill(0, ...) reaches the whole group, across pid namespaces.
    os.setsid()
    if isolation == "none":
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        call("unshare", NEWNS)
        size = f"size={math.ceil(limits['disk'])},nr_inodes=4096,mode=700"
        mount("none", folder, "tmpfs", MS_NOSUID | MS_NODEV, size)
    os.chdir(folder)
    if isolation != "none":
        # A user namespace per run, so that the count of threads and processes is the run's own (Linux 5.14).
        call("unshare", NEWUSER)
    leash = fds[0]
    if leash < 4:
        leash = fcntl.fcntl(leash, fcntl.F_DUPFD_CLOEXEC, 4)
    for target, fd in enumerate(fds[1:]):
        os.dup2(fd, target, inheritable=True)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(4, leash)
    os.closerange(leash + 1, most)
    _limit(limits, isolation)
    prctl(PR_SET_DUMPABLE, 0)
    if isolation != "none":
        drop_capabilities()
        seccomp.install(filters[processes])
    else:
        seccomp.install(seccomp.program(processes, only=None if processes else os.getpid()))


def _limit(limits: dict[str, Any], isolation: str) -> None:
    cpu, disk = math.ceil(limits["cpu"]), math.ceil(limits["disk"])
    memory, files = math.ceil(limits["memory"]), math.ceil(limits["files"])
    wanted = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_CORE: 1,  # below any file's least size, and what keeps a dump from a program that takes them
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_STACK: 8 << 20,
    }
    if isolation != "none" and COUNTED_APART:
        wanted[resource.RLIMIT_NPROC] = math.ceil(limits["threads"] + limits["processes"])
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def run_guest(guest: Any, role: str, channel_fd: int = 3) -> int:
    """Run a guest to the end of an ordinary interpreter: threads joined, exit functions called, output flushed.

    Returns the exit code; an error's traceback goes to stderr.
    """
    gc.enable()
    code = 0
    try:
        guest(role, Channel(channel_fd))
    except SystemExit as stop:
        code = _exit_code(stop.code)
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    return code


def _exit_code(told: object) -> int:
    if told is None:
        return 0
    if isinstance(told, int):
        return told & 0xFF
    sys.stderr.write(f"{told}\n")
    return 1
