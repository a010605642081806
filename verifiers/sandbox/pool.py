"""A warm pool of sandboxed runs: one zygote per pool, one forked child per run, never used twice.

The laws: a run begins in a process that has run no program before; a killed zygote is replaced and the runs it had are
`lost`; after a fork of this process the child starts a zygote of its own. What each isolation guarantees stands in
docs/sandbox.md. Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.sandbox.launch import STALLED, Zygote, launch, stop
from gristmill.verifiers.sandbox.limits import Limits, Outcome
from gristmill.verifiers.sandbox.run import Run, how_it_ended
from gristmill.verifiers.sandbox.zygote import MESSAGE

ISOLATIONS = ("bubblewrap", "namespaces", "none")
#: A guest for pools that run command lines only.
NO_GUEST = Path(__file__).parent / "command.py"
_ALL: weakref.WeakSet[Sandbox] = weakref.WeakSet()


class Sandbox:
    """A resource: `with Sandbox(guest) as box`. Safe for threads; `callers` threads at once have runs, others wait.

    `guest` is a file with `run(role, channel)`; `isolation` is auto (bubblewrap, else namespaces), bubblewrap,
    namespaces or none; `packages` are installed third-party packages that programs may import. Raises InputError where
    that isolation is not to be had here.
    """

    def __init__(
        self,
        guest: Path = NO_GUEST,
        *,
        limits: Limits | None = None,
        isolation: str = "auto",
        packages: Sequence[str] = (),
        callers: int | None = None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self._guest, self._packages = guest, tuple(packages)
        self._callers = max(8, 2 * (os.cpu_count() or 1)) if callers is None else callers
        self._closed = False
        self._reset()
        self.isolation = self._choose(isolation)
        _ALL.add(self)

    def _reset(self) -> None:
        self._zygote: Zygote | None = None
        self._lock = threading.Lock()
        self._slots = threading.Condition()
        self._held: Counter[int] = Counter()  # runs by thread

    def start(self, role: str, *, limits: Limits | None = None, stdin: bytes | None = None) -> Run:
        """Fork a run of the guest. Waits while `callers` other threads have runs; a thread with one waits no more."""
        return self._start("guest", role, self.limits if limits is None else limits, stdin)

    def command(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes | None = None,
        limits: Limits | None = None,
    ) -> Outcome:
        """Run a command line in a folder that holds `files` (names relative to it; they may be executed).

        Processes are allowed: 16 where the limits say 0. Raises InputError for a command that cannot be started and for
        files that do not fit.
        """
        wanted = self.limits if limits is None else limits
        wanted = replace(wanted, processes=wanted.processes or 16)
        files = {} if files is None else files
        for name in files:
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"the file name {name!r} leads out of the run's folder; give one relative to it")
        run = self._start("command", "command", wanted, stdin)
        try:
            run.send(json.dumps({"argv": list(argv), "files": list(files)}).encode())
            for content in files.values():
                run.send(content)
            frame = run.receive(wanted.wall)
            outcome = run.finish()
        finally:
            run.finish(kill=True)
        if outcome.status != "exited":
            return outcome
        if frame is None:  # its first process, which is ours, ended without a word
            return replace(outcome, status="lost", code=None)
        told = json.loads(frame)
        if "error" in told:
            raise InputError(f"the command cannot be started: {told['error']}")
        status, code = how_it_ended(told, wanted)
        if status == "lost":  # SIGKILL, which here may come from the program's own processes
            status, code = "signalled", signal.SIGKILL
        return replace(outcome, status=status, code=code)

    def close(self) -> None:
        """End the zygote and every run; later starts raise ValueError."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        with self._lock:
            if self._zygote is not None:
                stop(self._zygote)
            self._zygote = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _choose(self, isolation: str) -> str:
        if isolation not in ("auto", *ISOLATIONS):
            raise InputError(f"no isolation is called {isolation!r}; there are auto, {', '.join(ISOLATIONS)}")
        reasons = []
        for kind in ("bubblewrap", "namespaces") if isolation == "auto" else (isolation,):
            self.isolation = kind
            try:
                outcome = self._start("", "", self.limits, None).finish()
            except InputError as error:
                reasons.append(str(error))
                continue
            if outcome.status == "exited" and outcome.code == 0:
                return kind
            self._stop()
            reasons.append(f"no sandbox by {kind}: a trial run was {outcome.status}: {outcome.stderr.decode()}")
        raise InputError(
            f"programs are not run here: {'; '.join(reasons)}. Install bubblewrap or allow unprivileged user "
            "namespaces, or, if you trust every program, run them without isolation: --unsafe"
        )

    def _start(self, guest: str, role: str, limits: Limits, stdin: bytes | None) -> Run:
        """Take a slot and a folder, which the run's end gives back, and ask for the run."""
        folder = tempfile.mkdtemp(prefix="sandbox-") if self.isolation == "none" else None
        me, process, slots, held = threading.get_ident(), os.getpid(), self._slots, self._held
        with slots:
            slots.wait_for(lambda: me in held or len(held) < self._callers)
            held[me] += 1

        def ended() -> None:
            if os.getpid() != process:  # a copy of the run in a forked child
                return
            with slots:
                held[me] -= 1
                if not held[me]:
                    del held[me]
                slots.notify_all()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

        request = json.dumps({"role": role, "guest": guest, "limits": vars(limits), "folder": folder}).encode()
        try:
            if len(request) > MESSAGE:
                raise ValueError(f"the role has {len(request)} bytes with all else; it may have {MESSAGE}")
            return self._ask(request, limits, stdin, ended)
        except BaseException:
            ended()
            raise

    def _ask(self, request: bytes, limits: Limits, stdin: bytes | None, ended: Callable[[], None]) -> Run:
        """Make the descriptors and send a request with the inner ends; a dead zygote is replaced on the way."""
        with contextlib.ExitStack() as inside, contextlib.ExitStack() as outside:
            leash, leash_inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ends = {"leash": _kept(outside, leash.detach())}
            fds = [_kept(inside, leash_inside.detach()), _kept(inside, _input(stdin))]
            for name in ("out", "err"):
                read, write = os.pipe()
                ends[name] = _kept(outside, read)
                fds.append(_kept(inside, write))
            channel, channel_inside = socket.socketpair()
            ends["channel"] = _kept(outside, channel.detach())
            fds.append(_kept(inside, channel_inside.detach()))
            zygote = self._send(request, fds)
            run = Run(limits, ends, zygote, ended)
            outside.pop_all()
            return run

    def _send(self, request: bytes, fds: list[int]) -> Zygote:
        """Hand a request over to a living zygote. Raises OSError or InputError where three in a row do not take it."""
        tries = 3
        while True:
            tries -= 1
            zygote = None
            try:
                zygote = self._ready()
                socket.send_fds(zygote.control, [request], fds)
                return zygote
            except (OSError, InputError):  # killed, perhaps at its start, or too long without reading: the next
                if zygote is not None:
                    zygote.process.kill()
                    zygote.ended.wait(STALLED)
                if not tries:
                    raise

    def _ready(self) -> Zygote:
        """A zygote that lives, as far as is known."""
        with self._lock:
            if self._closed:
                raise ValueError("this sandbox is closed")
            if self._zygote is None or not self._zygote.alive():
                if self._zygote is not None:
                    self._zygote.control.close()
                self._zygote = launch(self.isolation, self._guest, self._packages)
            return self._zygote

    def _after_fork(self) -> None:
        """In a forked child the zygote is the parent's: let go of it."""
        if self._zygote is not None:
            self._zygote.control.close()
        self._reset()


def _kept(stack: contextlib.ExitStack, fd: int) -> int:
    """A descriptor that is closed with the stack."""
    stack.callback(os.close, fd)
    return fd


def _input(stdin: bytes | None) -> int:
    """A descriptor to read a run's standard input from: sealed memory, so that nobody has to feed a pipe."""
    if stdin is None:
        return os.open(os.devnull, os.O_RDONLY)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(stdin)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd


_SHARED: dict[tuple[Any, ...], Sandbox] = {}
_SHARED_LOCK = threading.Lock()


def shared(
    guest: Path = NO_GUEST, *, limits: Limits | None = None, isolation: str = "auto", packages: Sequence[str] = ()
) -> Sandbox:
    """This process's pool for a guest, opened when first asked for and closed at exit."""
    key = (str(guest), limits, isolation, tuple(packages))
    with _SHARED_LOCK:
        if key not in _SHARED:
            _SHARED[key] = Sandbox(guest, limits=limits, isolation=isolation, packages=packages)
        return _SHARED[key]


def _forget() -> None:
    global _SHARED_LOCK
    _SHARED_LOCK = threading.Lock()
    for box in list(_ALL):
        box._after_fork()


def _close_all() -> None:
    for box in list(_ALL):
        box.close()


os.register_at_fork(after_in_child=_forget)
atexit.register(_close_all)
