"""Killable workers: processes that do symbolic work, with a time limit that always holds.

The idea: one clean child imports sympy once and forks a worker whenever one is wanted. A caller sends JSON over a
socket and waits; past the deadline the worker is killed with SIGKILL and the next call gets a new one, forked in
milliseconds. A worker that dies in the middle of a call is replaced and the call made again, once.

The laws: a call returns within its seconds or raises `Lost` (one whose worker died has as many again); no worker
outlives the process that asked for it, whatever kills that process; a forked child makes its own workers; nothing that
a worker says is evaluated. Calls may come from any thread, and from asyncio through `asyncio.to_thread`. The wait for a
free worker does not count.
Not covered: hostile code. A worker parses and computes; it is limited in memory, not in what it may open. Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: Address space of one worker, in bytes. sympy with mpmath takes about 150 MB of it.
MEMORY = 1 << 30
#: Frames Python may nest in a worker; sympy's own recursion over a tree takes several a level.
RECURSION = 6_000
#: Largest message either way, in bytes.
MESSAGE = 1 << 22
_PR_SET_PDEATHSIG = 1
_STARTUP_SECONDS = 60.0


class Lost(Exception):
    """No result: the worker ran past its deadline (`timeout` is True) or died twice (`timeout` is False)."""

    def __init__(self, why: str, *, timeout: bool) -> None:
        super().__init__(why)
        self.timeout = timeout


@dataclass(frozen=True)
class Worker:
    """One process: its pid and this side of its socket."""

    pid: int
    line: socket.socket


class Pool:
    """At most `size` workers that run `handler` (MODULE:FUNCTION, from a JSON value to a JSON value).

    Nothing is started before the first call. `call` may be used from several threads.
    """

    def __init__(self, handler: str, size: int | None = None) -> None:
        self.handler = handler
        self.size = (os.cpu_count() or 1) if size is None else size
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        self._free: list[Worker] = []
        self._made: set[Worker] = set()
        self._turn = threading.BoundedSemaphore(self.size)
        self._lock = threading.Lock()  # of the control socket and of the two collections
        self._control: socket.socket | None = None
        self._nursery: subprocess.Popen[bytes] | None = None

    def call(self, request: Any, *, seconds: float) -> Any:
        """What the handler makes of `request`. Raises Lost past `seconds`, after two deaths of the worker or where the
        handler fails, and RuntimeError where no worker can be started."""
        payload = json.dumps(request).encode()
        if len(payload) > MESSAGE:
            raise Lost("the request is too large", timeout=False)
        with self._turn:
            for _ in range(2):
                worker = self._take()
                deadline = time.monotonic() + seconds
                try:
                    _send(worker.line, payload, max(seconds, 0.0))
                    reply = json.loads(_receive(worker.line, deadline))
                except (TimeoutError, BlockingIOError):
                    self._end(worker)
                    raise Lost(f"no answer within {seconds} s", timeout=True) from None
                except (OSError, EOFError, ValueError):
                    self._end(worker)
                    continue
                except BaseException:  # a caller interrupted in the middle: the worker's state is not known
                    self._end(worker)
                    raise
                if "failed" in reply:  # out of memory or out of stack: true again the next time
                    self._end(worker)
                    raise Lost(reply["failed"], timeout=False)
                with self._lock:
                    if worker in self._made:
                        self._free.append(worker)
                return reply["result"]
            raise Lost("the worker died twice", timeout=False)

    def pids(self) -> list[int]:
        """The processes of this pool: the child that forks, and the workers."""
        with self._lock:
            nursery = [self._nursery.pid] if self._nursery is not None else []
            return nursery + [worker.pid for worker in self._made]

    def close(self) -> None:
        """End all processes. A later call starts new ones."""
        with self._lock:
            self._shut()

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent, without ending it."""
        for worker in self._made:
            worker.line.close()
        if self._control is not None:
            self._control.close()
        if self._nursery is not None:
            self._nursery.returncode = 0  # not this process's child: nothing to wait for
        self._reset()

    def _take(self) -> Worker:
        with self._lock:
            if self._free:
                return self._free.pop()
            try:
                return self._fork()
            except (OSError, EOFError):  # the child that forks was killed, and its workers died with it
                pass
            try:
                return self._fork()
            except (OSError, EOFError) as error:
                raise RuntimeError(f"workers for {self.handler} do not start; see their error on stderr") from error

    def _fork(self) -> Worker:
        control = self._start() if self._control is None else self._control
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(control, [b"+"], [theirs.fileno()])
            pid = struct.unpack("!q", _exactly(control, 8, time.monotonic() + _STARTUP_SECONDS))[0]
        except BaseException:  # interrupted or not: what the other side says next belongs to no question
            ours.close()
            self._shut()
            raise
        worker = Worker(pid, ours)
        self._made.add(worker)
        return worker

    def _end(self, worker: Worker) -> None:
        """Kill a worker and have it reaped; only its parent may, so that no other process has got its pid."""
        with self._lock:
            worker.line.close()
            if worker not in self._made or self._control is None:
                return
            self._made.discard(worker)
            try:
                self._control.sendall(b"-" + struct.pack("!q", worker.pid))
                _exactly(self._control, 8, time.monotonic() + _STARTUP_SECONDS)
            except (OSError, EOFError):
                self._shut()
            except BaseException:
                self._shut()
                raise

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), self.handler]
        # One hash seed: the order of sympy's sets, and so what it finds in time, is the same in every run.
        settings = {**os.environ, "PYTHONHASHSEED": "0"}
        with theirs:
            self._nursery = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=settings
            )
        self._control = ours
        return ours

    def _shut(self) -> None:
        for worker in self._free:  # a busy one's socket is its caller's to close: its number must not go to another
            worker.line.close()
        self._made, self._free = set(), []
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._nursery is not None:
            try:
                self._nursery.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None


_ALL: weakref.WeakSet[Pool] = weakref.WeakSet()
_POOLS: dict[str, Pool] = {}
_POOLS_LOCK = threading.Lock()


def pool(handler: str) -> Pool:
    """The pool of this process for a handler."""
    with _POOLS_LOCK:
        if handler not in _POOLS:
            _POOLS[handler] = Pool(handler)
        return _POOLS[handler]


@atexit.register
def close_all() -> None:
    """End the workers of this process."""
    for each in list(_ALL):
        each.close()


def _after_fork() -> None:
    global _POOLS_LOCK
    _POOLS_LOCK = threading.Lock()
    for each in list(_ALL):
        each.forget()


os.register_at_fork(after_in_child=_after_fork)


def _send(line: socket.socket, payload: bytes, seconds: float | None) -> None:
    line.settimeout(seconds)
    line.sendall(struct.pack("!I", len(payload)) + payload)


def _receive(line: socket.socket, deadline: float | None) -> bytes:
    size = struct.unpack("!I", _exactly(line, 4, deadline))[0]
    if size > MESSAGE:
        raise ValueError("the message is too large")
    return _exactly(line, size, deadline)


def _exactly(line: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            line.settimeout(left)
        else:
            line.settimeout(None)
        part = line.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _nursery(control: socket.socket, handler: str) -> None:
    """The child that forks: `+` with a socket makes a worker, `-` with a pid ends one; the end of file ends all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the parent; its end of the socket ends this process
    module, _, name = handler.partition(":")
    function = getattr(importlib.import_module(module), name)
    while True:
        order, fds, _, _ = socket.recv_fds(control, 1, 1)
        if order == b"+":
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(socket.socket(fileno=fds[0]), function, parent)
            os.close(fds[0])
            control.sendall(struct.pack("!q", pid))
        elif order == b"-":
            pid = struct.unpack("!q", _exactly(control, 8, None))[0]
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            control.sendall(struct.pack("!q", pid))
        else:
            return  # workers get SIGKILL from the kernel as this process ends


def _work(line: socket.socket, function: Callable[[Any], Any], parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(RECURSION)
    with contextlib.suppress(EOFError, OSError):
        for request in _requests(line):
            try:
                reply = {"result": function(request)}
            except (MemoryError, RecursionError) as error:
                reply = {"failed": type(error).__name__}
            except Exception as error:  # the named boundary: whatever a library raises is a call without a result
                reply = {"failed": f"{type(error).__name__}: {error}"[:300]}
            _send(line, json.dumps(reply).encode(), None)
    os._exit(0)


def _requests(line: socket.socket) -> Iterator[Any]:
    while True:
        yield json.loads(_receive(line, None))


if __name__ == "__main__":
    _nursery(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
