"""Processes that stay up together: started, restarted, stopped in order, with one log.

The idea: every process, and whatever it starts in turn, carries a word in its environment (GRISTMILL_UP=word:name). So
whoever must end them finds them all, in whatever session or group they are and whoever their parent is now. The laws:
one that dies is started again, sooner the longer it lived, after what it left behind is gone; at the end nothing is
left, and where this process itself is killed a watchdog that holds the other end of a pipe sees to it; the lock of the
folder is held until that is done. Needs /proc (Linux); run as a program, this file is the watchdog, and imports nothing
of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

WORD = "GRISTMILL_UP"
_STEADY = 60.0  # seconds after which a process that dies is started again at once
_LONGEST = 30.0  # seconds between two starts of one that keeps dying
_POLL = 0.1
_LARGE = 10 << 20  # bytes of a log that is set aside at the next start


@dataclass(frozen=True)
class Service:
    """What is run: what it started has `first` seconds to end, then it and all else `grace`."""

    name: str
    command: Sequence[str]
    first: float = 0.0
    grace: float = 5.0


class Taken(Exception):
    """Somebody holds the lock; `holder` is what they wrote into it."""

    def __init__(self, holder: Mapping[str, Any]) -> None:
        super().__init__(str(dict(holder)))
        self.holder = holder


class Supervisor:
    """Services under one lock and one log. `told` is called with (name, line) of whatever they say.

    Raises Taken where another one is at work in the folder, or its watchdog still after `patience` seconds.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], told: Callable[[str, str], None], patience: float = 15.0
    ) -> None:
        self.lock = _locked(folder / "up.lock", patience)
        if word := _said(self.lock).get("word"):
            end(lambda: marked(f"{word}:"), 0)  # left by one that was killed together with its watchdog
        self.word = f"{os.getpid()}-{time.time_ns()}"
        self.environment, self.told = dict(environment), told
        self.log = _opened(folder / "up.log")
        self.writing = threading.Lock()
        self.services: dict[str, Service] = {}
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.since: dict[str, float] = {}  # when it was started
        self.failures: dict[str, int] = {}  # in a row
        self.due: dict[str, float] = {}  # when it is to be started again
        self._watch()

    def hold(self, said: Mapping[str, Any]) -> None:
        """Write into the lock who holds it, for who is refused."""
        self.lock.seek(0)
        self.lock.truncate()
        self.lock.write(json.dumps({"pid": os.getpid(), "word": self.word, **said}))
        self.lock.flush()

    def start(self, service: Service) -> None:
        """Start one; `tend` starts it again whenever it dies."""
        self.services[service.name] = service
        self.since[service.name] = time.monotonic()
        process = subprocess.Popen(
            service.command, env={**self.environment, WORD: f"{self.word}:{service.name}"}, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=self.watchdog.pid,
        )  # fmt: skip
        self.running[service.name] = process
        threading.Thread(target=self._read, args=(service.name, process), daemon=True).start()

    def tend(self) -> list[str]:
        """Look once who has died, and start again who is due; returns who was started. To be called again and again."""
        if self.watchdog.poll() is not None:
            os.close(self.pipe)
            self._watch()
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                del self.running[name]
                self._died(name, process.returncode)
        again = [name for name, at in self.due.items() if time.monotonic() >= at]
        for name in again:
            del self.due[name]
            self.start(self.services[name])
        return again

    def stop(self, order: Sequence[str], hurry: Callable[[], bool] = lambda: False) -> None:
        """End all, one after the other, with all that they started. What is left after its time is killed; where
        `hurry` says so, its time is over."""
        for name in order:
            process = self.running.pop(name, None)
            if process is None:
                continue
            service, mine = self.services[name], f"{self.word}:{name}"
            if service.first:
                end(partial(_children, mine, process.pid), service.first, hurry)
            end(partial(marked, mine), service.grace, hurry)
            process.wait()
            self.say("up", f"{name} has stopped")
        os.close(self.pipe)
        self.watchdog.wait()
        self.log.close()
        self.lock.close()

    def say(self, name: str, line: str) -> None:
        """Write a line of the log, and tell it."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self.writing, contextlib.suppress(ValueError):  # somebody's last word, after the log was closed
            self.log.write(f"{at} {name:<8} {line}\n")
        self.told(name, line)

    def _died(self, name: str, status: int) -> None:
        steady = time.monotonic() - self.since[name] > _STEADY
        self.failures[name] = 1 if steady else self.failures.get(name, 0) + 1
        wait = min(_LONGEST, 0.25 * 2 ** self.failures[name])
        self.due[name] = time.monotonic() + wait
        self.say("up", f"{name} ended with status {status}; it starts again in {wait:g} s")
        end(lambda: marked(f"{self.word}:{name}"), 0)

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                self.say(name, line.rstrip())

    def _watch(self) -> None:
        """A watchdog, the first of the group that all services are in: Ctrl-C in a terminal reaches none of them."""
        reading, self.pipe = os.pipe()
        self.watchdog = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(reading), self.word], pass_fds=(reading, self.lock.fileno()),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0,
            env={name: value for name, value in os.environ.items() if name != WORD},
        )  # fmt: skip
        os.close(reading)


def marked(word: str) -> list[int]:
    """Processes with such a word in their environment, or one that goes on after it."""
    sought, found = f"{WORD}={word}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if any(item.startswith(sought) for item in (folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return found


def end(find: Callable[[], list[int]], grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """SIGTERM to the processes that are found, once to each, and after `grace` seconds SIGKILL, until none is found."""
    until, asked = time.monotonic() + grace, set[int]()
    while found := find():
        force = hurry() or time.monotonic() >= until
        for pid in found:
            if force or pid not in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if force else signal.SIGTERM)
                asked.add(pid)
        time.sleep(_POLL)


def _children(word: str, parent: int) -> list[int]:
    found = []
    for pid in marked(word):
        with contextlib.suppress(OSError):  # it has ended
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(pid)
    return found


def _locked(path: Path, patience: float) -> TextIO:
    """The open file with its lock: whoever had it may be dead, and its watchdog about to end what it left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file, until = path.open("a+"), time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            holder = _said(file)
            if time.monotonic() > until or Path(f"/proc/{holder.get('pid')}").exists():
                file.close()
                raise Taken(holder) from None
        time.sleep(_POLL)


def _said(lock: TextIO) -> dict[str, Any]:
    lock.seek(0)
    try:
        return dict(json.loads(lock.read()))
    except ValueError:
        return {}


def _opened(path: Path) -> TextIO:
    if path.exists() and path.stat().st_size > _LARGE:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("a", buffering=1)


def _watchdog(pipe: int, word: str) -> None:
    """Until the other end of the pipe is closed; then end what is left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(pipe, 1):
        pass
    end(lambda: marked(f"{word}:"), 5)
    time.sleep(_POLL)  # one that was just being started
    end(lambda: marked(f"{word}:"), 0)


if __name__ == "__main__":
    _watchdog(int(sys.argv[1]), sys.argv[2])
