"""One run as the grader sees it: frames to and from the guest, its output within its limit, and how it ended.

The laws: no call waits longer than the run's wall time and a short grace; what the program writes is bounded as it
arrives; every descriptor is closed by `finish`, which also kills whatever the run has started.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from gristmill.verifiers.sandbox.confine import OUT_OF_MEMORY
from gristmill.verifiers.sandbox.launch import Zygote
from gristmill.verifiers.sandbox.limits import Limits, Outcome, Status

_HEADER = struct.Struct("!I")
#: Seconds after its wall time after which a run that was not reported to have ended is given up as lost.
GRACE = 5.0
#: Bytes of frames that may wait unread beyond the longest one allowed.
UNREAD = 1 << 19
#: Share of the memory limit that must have been resident for a crash to count as lack of memory.
NEARLY_ALL = 0.8


class Run:
    """One child. Made by `Sandbox.start`; for one thread at a time."""

    def __init__(self, limits: Limits, ends: dict[str, int], zygote: Zygote, ended: Callable[[], None]) -> None:
        """`ends` are our descriptors of leash, channel, out and err; `ended` is called once, when they are closed."""
        self.limits = limits
        self._began, self._process = time.monotonic(), os.getpid()
        self._leash = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, ends["leash"])
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, ends["channel"])
        self._out, self._err = ends["out"], ends["err"]
        self._zygote, self._ended = zygote, ended
        for fd in ends.values():
            os.set_blocking(fd, False)
        self._frames, self._unsent = bytearray(), bytearray()
        self._text = {self._out: bytearray(), self._err: bytearray()}
        self._watched = {ends[name]: select.POLLIN for name in ("leash", "channel", "out", "err")}
        self._told: dict[str, Any] | None = None  # how the child ended; {} where nobody could say
        self._reason: Status | None = None  # why we had it killed
        self._outcome: Outcome | None = None

    def send(self, frame: bytes) -> None:
        """Send one frame; returns when all is sent or the child has gone."""
        if self._outcome is None:
            self._unsent += _HEADER.pack(len(frame)) + frame
            self._pump(lambda: not self._unsent or self._channel.fileno() not in self._watched, None)

    def receive(self, seconds: float) -> bytes | None:
        """The next frame; None where there is none within `seconds`, or the child has gone or sent too long a one."""
        if self._outcome is not None:
            return None
        closed = self._channel.fileno()
        self._pump(lambda: self._whole() or closed not in self._watched, seconds)
        if not self._whole():
            return None
        size = _HEADER.unpack_from(self._frames)[0]
        frame = bytes(self._frames[4 : 4 + size])
        del self._frames[: 4 + size]
        return frame

    def finish(self, kill: bool = False) -> Outcome:
        """Wait for the end, with `kill` bring it about, and say how it ended; safe to call again."""
        if self._outcome is not None:
            return self._outcome
        if kill:
            self._kill("killed")
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._pump(lambda: self._told is not None, None)
        for fd in self._text:  # what was written before the end
            if fd in self._watched:
                self._read_text(fd)
        self._close()
        self._outcome = self._judge()
        return self._outcome

    def __del__(self) -> None:
        if getattr(self, "_outcome", True) is None:
            self._close()

    def _close(self) -> None:
        if os.getpid() == self._process:  # a forked process has a copy, which keeps the socket open but has no say
            with contextlib.suppress(OSError):
                self._leash.shutdown(socket.SHUT_RDWR)
        self._leash.close()
        self._channel.close()
        os.close(self._out)
        os.close(self._err)
        self._ended()

    def _kill(self, reason: Status) -> None:
        """Have the zygote kill the run; the first reason stands."""
        if self._told is None and self._reason is None:
            self._reason = reason
            with contextlib.suppress(OSError):
                self._leash.shutdown(socket.SHUT_WR)

    def _flooded(self) -> None:
        self._kill("output")
        self._reason = self._reason or "output"  # it may have ended just before we saw

    def _whole(self) -> bool:
        return len(self._frames) >= 4 and len(self._frames) - 4 >= _HEADER.unpack_from(self._frames)[0]

    def _pump(self, done: Callable[[], bool], seconds: float | None) -> None:
        """Move bytes until `done`, the time is over, or the run is given up."""
        given_up = self._began + self.limits.wall + GRACE
        until = given_up if seconds is None else min(given_up, time.monotonic() + seconds)
        poll = select.poll()
        for fd, events in self._watched.items():
            poll.register(fd, events)
        while not done():
            now = time.monotonic()
            if now >= given_up and self._told is None:
                self._told = {}
                self._zygote.process.kill()  # it should have ended this run, so it is stuck
                self._zygote.ended.wait(GRACE)
            if now >= until or (self._told is not None and not self._watched):
                return
            channel = self._channel.fileno()
            if channel in self._watched:
                poll.modify(channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = poll.poll(min(0.25, until - now) * 1e3)
            if not ready and not self._zygote.alive() and self._told is None:
                self._told = {}
            for fd, events in sorted(ready, key=lambda item: item[0] == self._leash.fileno()):
                self._move(fd, events)
                if fd not in self._watched:
                    poll.unregister(fd)

    def _move(self, fd: int, events: int) -> None:
        if fd == self._leash.fileno():
            self._read_leash()
        elif fd in self._text:
            self._read_text(fd)
        else:
            if events & select.POLLOUT and self._unsent:
                with contextlib.suppress(BlockingIOError):
                    try:
                        del self._unsent[: self._channel.send(self._unsent)]
                    except OSError:
                        self._unsent.clear()
            if events & ~select.POLLOUT:
                self._read_channel()

    def _read_leash(self) -> None:
        try:
            message = self._leash.recv(4096)
        except OSError:
            message = b""
        if self._told is None:
            self._told = json.loads(message) if message else {}
        del self._watched[self._leash.fileno()]

    def _read_text(self, fd: int) -> None:
        kept = self._text[fd]
        while True:
            try:
                part = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            if not part:
                del self._watched[fd]
                return
            room = self.limits.output - len(kept)
            kept += part[:room]
            if len(part) > room:
                self._flooded()
                return

    def _read_channel(self) -> None:
        try:
            part = self._channel.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._frames += part
        size = _HEADER.unpack_from(self._frames)[0] if len(self._frames) >= 4 else 0
        if size > self.limits.output or len(self._frames) > self.limits.output + UNREAD:
            self._flooded()
            part = b""
            self._frames.clear()
        if not part:
            self._unsent.clear()
            del self._watched[self._channel.fileno()]

    def _judge(self) -> Outcome:
        told = self._told or {}
        status, code = self._status(told)
        seconds = time.monotonic() - self._began
        failure = told.get("failed", "").encode()  # of the isolation itself, before the guest began
        return Outcome(status, code, bytes(self._text[self._out]), bytes(self._text[self._err]) + failure, seconds)

    def _status(self, told: dict[str, Any]) -> tuple[Status, int | None]:
        if self._reason is not None:
            return self._reason, None
        if "code" not in told:
            return "lost", None
        return how_it_ended(told, self.limits)


def _spent(limits: Limits) -> float:
    """Processor seconds from which a SIGKILL is the kernel's: it counts by ticks, and reports what it measured."""
    enforced = math.ceil(limits.cpu)
    return min(0.9 * enforced, enforced - 0.25)


def how_it_ended(told: dict[str, Any], limits: Limits) -> tuple[Status, int | None]:
    """Status and code from what was told: exit code (negative: a signal), processor seconds, resident bytes."""
    code: int = told["code"]
    if told.get("timeout"):
        return "timeout", None
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and told["cpu"] >= _spent(limits)):
        return "cpu", None
    if code == OUT_OF_MEMORY or (code < 0 and told["rss"] >= NEARLY_ALL * limits.memory):
        return "memory", None
    if code == -signal.SIGKILL:
        return "lost", None  # nothing inside can send it to the run's first process, so an outage did
    return ("exited", code) if code >= 0 else ("signalled", -code)
