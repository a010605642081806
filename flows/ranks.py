"""The processes of a training step on one machine: started together, stopped together, and how they ended.

They find each other by the variables that torch.distributed reads (RANK, WORLD_SIZE, ...), as under torchrun, which
takes the pretraining step over several machines. Here it would say 1 whatever a step's own status is, and kill after 30
seconds a step that is still writing its state.

The laws: what several processes say and return is what one would; a signal to us is one SIGTERM to each, and their own
end is awaited; none of them outlives this call, and where we are killed they get a SIGTERM (on Linux). Not covered:
several machines, and starting again what has failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

STOPPED = 128 + signal.SIGTERM  # of a step: stopped, with its state kept
GRACE = 10.0  # seconds that the others have to end where one has failed; then SIGTERM, and after as many SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a step ended: its exit status (128 + the number of a signal that killed it), what it wrote to stdout, and the
    last `error: ` line of its stderr, "" without one; the rest of that was passed on as it came. `signalled` is the
    signal by which we were asked to stop it."""

    status: int
    out: str
    error: str
    signalled: int | None


class Rank:
    """One process. What the first says on stderr is passed on; what others say is held back, the last 200 lines."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], number: int) -> None:
        # A session of its own: Ctrl-C in a terminal would else reach the step too, in the middle of whatever it does.
        self.process = subprocess.Popen(
            command, env=environment, start_new_session=True, text=True, errors="replace",
            stdout=subprocess.PIPE if number == 0 else subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.number, self.out, self.error = number, "", ""
        self.held: deque[str] = deque(maxlen=200)
        self.readers = [threading.Thread(target=work, daemon=True) for work in (self._read, self._listen)]
        for reader in self.readers:
            reader.start()

    @property
    def status(self) -> int | None:
        """As a shell says it; None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def _read(self) -> None:
        if self.process.stdout is not None:
            self.out = self.process.stdout.read()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("error: "):
                self.error = line.removeprefix("error: ").strip()
            elif self.number == 0:
                print(line, end="", file=sys.stderr, flush=True)
            else:
                self.held.append(line)


def launch(command: Sequence[str], processes: int = 1) -> Ended:
    """Run a command in so many processes to the end of all."""
    ranks: list[Rank] = []
    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        asked.append(number)
        for rank in ranks:
            rank.process.terminate()

    with _handling(stop):
        try:
            for number, environment in enumerate(environments(processes)):
                if not asked:
                    ranks.append(Rank(command, environment, number))
            if asked:  # in the middle of a start, when the last one was not yet listed
                for rank in ranks:
                    rank.process.terminate()
            order = _wait(ranks)
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()
    for rank in ranks:
        for reader in rank.readers:
            reader.join()
    return _judge(ranks, order, asked)


def environments(processes: int) -> list[dict[str, str]]:
    """The environment of each process. Cores are shared out, unless OMP_NUM_THREADS says otherwise."""
    ours = {**os.environ, "GRISTMILL_PARENT": str(os.getpid())}
    if processes == 1:
        return [ours]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes)),
        **ours,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [{**common, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(processes)]


def _wait(ranks: Sequence[Rank]) -> list[Rank]:
    """Until all have ended; returns them in the order of their ends. Where one has failed, or was stopped, the others
    end too, by themselves or, since they may wait for it in a place that no signal reaches, by force."""
    order: list[Rank] = []
    failed: float | None = None
    force: list[Callable[[subprocess.Popen[str]], None]] = [subprocess.Popen.terminate, subprocess.Popen.kill]
    while len(order) < len(ranks):
        order += [rank for rank in ranks if rank not in order and rank.status is not None]
        if failed is None and any(rank.status for rank in order):
            failed = time.monotonic()
        if failed is not None and force and time.monotonic() - failed > GRACE:
            failed = time.monotonic()
            use = force.pop(0)
            for rank in ranks:
                use(rank.process)
        time.sleep(0.02)
    return order


def _judge(ranks: Sequence[Rank], order: Sequence[Rank], asked: Sequence[int]) -> Ended:
    """What all of them together come to: stopped where we asked for it and one says so; else what the first to fail
    with a reason says, else the first to fail, whose last words are shown."""
    out, signalled = ranks[0].out if ranks else "", asked[0] if asked else None
    if not ranks or (asked and any(rank.status == STOPPED for rank in order)):
        return Ended(STOPPED, out, "", signalled)
    bad = [rank for rank in order if rank.status]
    if not bad:
        return Ended(0, out, "", signalled)
    cause = next((rank for rank in bad if rank.error), bad[0])
    if not cause.error:
        for line in cause.held:
            print(f"process {cause.number}: {line}", end="", file=sys.stderr, flush=True)
    return Ended(cause.status or 0, out, cause.error, signalled)


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """SIGTERM and SIGINT go to `handler` for a while. Only the main thread may say so: elsewhere (a flow's worker)
    they stay with whoever runs it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
