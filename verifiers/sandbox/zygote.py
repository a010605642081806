"""The clean interpreter inside the isolation that forks one child per run and never runs a program itself.

Standard library only (see namespaces.py). `start` is called by the line of code that launch.py gives to `python -c`;
it enters the isolation, reads the guests and serves requests until the grader's end of the control socket closes.

A request is one message {"role", "guest", "limits"} with five descriptors: leash, stdin, stdout, stderr, channel. On
the leash the zygote tells, once, how the child ended; the grader closes its writing side to have the child killed.
The law: no child outlives its request's leash, its wall time or the zygote.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.verifiers.sandbox import namespaces, seccomp
from gristmill.verifiers.sandbox.confine import confine, run_guest

#: What programs use most: imported once here, so that no run pays for it. Each one more makes every fork dearer:
#: asyncio and unittest alone would cost every run a third of a millisecond.
WARM = (  # noqa: SIM905
    "abc array ast base64 bisect builtins calendar cmath codecs collections copy dataclasses datetime "
    "decimal enum fractions functools hashlib heapq inspect io itertools json keyword linecache math numbers "
    "operator os random re statistics string struct sys textwrap threading time timeit traceback types "
    "typing unicodedata uuid zlib"
).split()
MESSAGE = 1 << 16


def start(config: dict[str, Any], control_fd: int, stage: str) -> None:
    """Enter the isolation that `config` names and serve; what goes wrong before that is told on the control socket."""
    control = socket.socket(fileno=control_fd)
    try:
        me = _isolate(config, control_fd, stage)
        guests = _guests(config)
    except Exception as error:
        with contextlib.suppress(OSError):
            control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    control.send(json.dumps({"ready": True}).encode())
    _Zygote(config, control, guests, me).serve()


def _isolate(config: dict[str, Any], control_fd: int, stage: str) -> int:
    """Go in; returns, in the zygote, a pidfd of it in its own pid namespace, -1 without one."""
    kind = config["isolation"]
    if kind == "none":
        namespaces.prctl(namespaces.PR_SET_PDEATHSIG, signal.SIGKILL)
        namespaces.prctl(namespaces.PR_SET_CHILD_SUBREAPER, 1)
        os.chdir("/")
        return -1
    if stage == "outer":
        if os.geteuid() == 0:
            namespaces.become_nobody(config["needed"])
        os.chdir("/")
        if kind == "bubblewrap":
            os.execv(config["bubblewrap"][0], config["bubblewrap"])
        namespaces.enter(config["binds"], config["links"], config["hidden"])
    else:
        namespaces.new_user(namespaces.NEWNS | namespaces.NEWPID)
        namespaces.cover(["/proc", *config["hidden"]])
    namespaces.prctl(namespaces.PR_SET_PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child:
        os.close(control_fd)
        os.waitpid(child, 0)
        os._exit(0)
    namespaces.prctl(namespaces.PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.pidfd_open(os.getpid())


def _guests(config: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """Read the guests' texts and import what programs use, then forget how."""
    sys.path.extend(config["path"])
    for name in (*WARM, *config["packages"]):
        importlib.import_module(name)
    guests = {}
    for name, text in config["guests"].items():
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(text, f"{name}.py", "exec"), module.__dict__)
        guests[name] = module.run
    os.environ.clear()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX: an arena per thread would use up the address space
    gc.collect()
    gc.disable()
    gc.freeze()
    return guests


class _Zygote:
    """The loop and the children it watches."""

    def __init__(self, config: dict[str, Any], control: socket.socket, guests: dict[str, Any], me: int) -> None:
        self.isolation: str = config["isolation"]
        self.folder: str = config["folder"]
        self.control, self.guests, self.me = control, guests, me
        self.filters = {flag: seccomp.program(flag) for flag in (False, True)}
        self.poll = select.epoll()
        self.poll.register(control.fileno(), select.EPOLLIN)
        self.by_pidfd: dict[int, list[Any]] = {}  # pidfd: [pid, leash, deadline, timed out]
        self.by_leash: dict[int, int] = {}

    def serve(self) -> None:
        """Until the control socket ends."""
        while True:
            nearest = min((child[2] for child in self.by_pidfd.values() if not child[3]), default=None)
            wait = -1 if nearest is None else max(0.0, nearest - time.monotonic())
            ready = {fd for fd, _ in self.poll.poll(wait)}
            for fd in ready & self.by_leash.keys():  # the grader let go
                self._kill(self.by_leash[fd])
                self.poll.unregister(fd)
            for fd in ready & self.by_pidfd.keys():
                self._reap(fd)
            if self.control.fileno() in ready:  # last: it may open descriptors with the numbers of closed ones
                self._request()
            now = time.monotonic()
            for pidfd, child in self.by_pidfd.items():
                if child[2] <= now and not child[3]:
                    child[3] = True
                    self._kill(pidfd)

    def _request(self) -> None:
        message, fds, _, _ = socket.recv_fds(self.control, MESSAGE, 5)
        if not message:
            for pidfd in list(self.by_pidfd):
                self._kill(pidfd)
            if self.isolation == "none":
                self._end_orphans()
            os._exit(0)
        request = json.loads(message)
        leash = fds[0]
        try:
            if self.me >= 0:
                # A second unshare needs the first undone: back to our own pid namespace for children.
                namespaces.call("setns", self.me, namespaces.NEWPID)
                namespaces.call("unshare", namespaces.NEWPID)
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            self._child(request, fds)
        for fd in fds[1:] if pid > 0 else fds:
            os.close(fd)
        if pid > 0:
            pidfd = os.pidfd_open(pid)
            self.by_pidfd[pidfd] = [pid, leash, time.monotonic() + request["limits"]["wall"], False]
            self.by_leash[leash] = pidfd
            self.poll.register(pidfd, select.EPOLLIN)
            self.poll.register(leash, select.EPOLLIN)

    def _child(self, request: dict[str, Any], fds: list[int]) -> None:
        leash, code = fds[0], 1
        try:
            confine(request["limits"], fds, self.isolation, self.filters, request["folder"] or self.folder)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(leash, json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
            os._exit(1)
        os.close(leash)
        try:
            guest = self.guests.get(request["guest"])
            code = 0 if guest is None else run_guest(guest, request["role"])
        finally:
            os._exit(code)

    def _kill(self, pidfd: int) -> None:
        pid = self.by_pidfd[pidfd][0]
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if self.isolation == "none" else os.kill)(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _reap(self, pidfd: int) -> None:
        if self.isolation == "none":
            self._kill(pidfd)  # while its number is still taken, end the rest of its group
        pid, leash, _, timed_out = self.by_pidfd.pop(pidfd)
        del self.by_leash[leash]
        for fd in (pidfd, leash):
            with contextlib.suppress(FileNotFoundError):  # a leash let go of is no longer watched
                self.poll.unregister(fd)
        _, status, usage = os.wait4(pid, 0)
        told = {
            "code": os.waitstatus_to_exitcode(status),
            "timeout": timed_out,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss": usage.ru_maxrss * 1024,
        }
        if self.isolation == "none":
            self._end_orphans()
        with contextlib.suppress(OSError):
            os.write(leash, json.dumps(told).encode())
        os.close(pidfd)
        os.close(leash)

    def _end_orphans(self) -> None:
        """Without a pid namespace: end what runs left behind, which the kernel has given to us as their reaper."""
        known = {child[0] for child in self.by_pidfd.values()}
        listed = Path(f"/proc/self/task/{os.getpid()}/children")
        while orphans := set(map(int, listed.read_text().split())) - known:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
