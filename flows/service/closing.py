"""Batches closed in a process of its own, beside the one that serves.

The idea: making a dataset of ten thousand judgements keeps a processor and Python's lock for seconds, and whoever
judges meanwhile would wait. The process is started at the first closing and stays; it closes once for each line that it
reads, answers with a line, and ends with its input, so it outlives the service by no more than the closing under way,
however that ended. What a crash leaves is finished by the next closing (see dataops/feedback/batches.py).
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

_END = 10.0  # seconds for a closing under way when the service ends


class ClosingProcess:
    """The process, for one thread at a time; `database` is a URL, None for that of the root."""

    def __init__(self, root: str | Path, database: str | None = None):
        self._command = [sys.executable, "-m", "gristmill.flows.service.closing", str(root)]
        self._command += [] if database is None else [database]
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> int:
        """Close what is due and announce what was not; returns how many batches were closed. Raises RuntimeError with
        what went wrong there."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )  # fmt: skip
        process = self._process
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("close\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that closes batches ended with {process.wait()}")
        told = json.loads(answer)
        if "error" in told:
            raise RuntimeError(told["error"])
        return int(told["closed"])

    def end(self) -> None:
        """End the process: behind the closing under way, if that does not take long."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def main(root: str, database: str | None = None) -> None:
    """Close for each line of stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this
    from gristmill.dataops.feedback.database import open_database
    from gristmill.flows.feedback import close_and_announce

    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed here is no answer
    db = open_database(database or root)
    for _ in sys.stdin:
        try:
            told: dict[str, object] = {"closed": len(close_and_announce(db, root))}
        except Exception as error:  # the service tells it, and tries again
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
