"""The flywheel as its users have it: `gristmill up` on a root, raters who judge over HTTP, and what must hold after.

Whoever judges sends the same key again until there is an answer, as a client must that wants to lose nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import preferred
import wheeled

from gristmill.dataops.store import Store
from gristmill.flows.supervisor import marked

QUEUE = "better"
COMMAND = [sys.executable, "-m", "gristmill.flows.cli"]
SERVICES = ("server", "runner", "feedback")


def command(root: Path, *words: str) -> str:
    """What a command of ours prints."""
    done = subprocess.run([*COMMAND, *words, "--root", str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def ports(count: int) -> list[str]:
    """Free ones."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


@dataclass
class Up:
    """`gristmill up` on a root, with a recipe for the tiny model."""

    root: Path
    ports: list[str] = field(default_factory=lambda: ports(2))
    process: subprocess.Popen[str] | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """Until all is served."""
        words = ["--recipe", str(self.root / "recipe.json"), "--port", self.ports[0], "--feedback-port", self.ports[1]]
        self.process = subprocess.Popen(
            [*COMMAND, "up", "--root", str(self.root), "--json", *words], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it did not start: " + "\n".join(self.log()[-15:])
        self.told = json.loads(line)

    @property
    def word(self) -> str:
        """That all its processes carry."""
        return str(json.loads((self.root / "up.lock").read_text())["word"])

    def log(self) -> list[str]:
        """All lines of the log."""
        return (self.root / "up.log").read_text().splitlines()

    def stop(self) -> None:
        """As a service manager stops it; what is left would be a fault."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(60) == 0
        assert marked(self.word) == []

    def kill(self, name: str) -> int:
        """`kill -9` to a service, to the training step under way ("trainer"), to the process of the flow that waits for
        it ("run"), or to `up` itself; returns the process, 0 where there is none now."""
        assert self.process is not None
        if name == "up":
            pid = self.process.pid
        elif name in ("trainer", "run"):
            pid = next(iter(self.steps()), 0)
            if name == "run":
                pid = next((one for one in marked(self.word) if one == _parent(pid)), 0)
        else:
            pid = next((one for one in marked(f"{self.word}:{name}") if _parent(one) == self.process.pid), 0)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if name == "up":
            self.process.wait()
            self.start()
        return pid

    def steps(self) -> dict[int, str]:
        """Training steps under way, by process."""
        found = {}
        for pid in marked(self.word):
            words = _command(pid)
            if len(words) > 2 and words[1] == "-m" and words[2].startswith("gristmill.training."):
                found[pid] = words[2].rpartition(".")[2]
        return found


def _command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextlib.contextmanager
def running(root: Path) -> Iterator[Up]:
    """A tiny world in a root, and `gristmill up` on it. However it ends, nothing is left."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipe.json").write_text(json.dumps(wheeled.recipe(root).model_dump(mode="json")))
    up = Up(root)
    try:
        with ThreadPoolExecutor(1) as pool:  # it reads nothing of the world before there is feedback
            starting = pool.submit(up.start)
            wheeled.make_root(root)
            starting.result()
        yield up
    finally:
        if up.process is not None:
            up.process.kill()
            up.process.wait()
        until(lambda: not (root / "up.lock").exists() or not marked(up.word), 60, "processes are left")


def ask(root: Path, items: int, start: int, *more: str) -> dict[str, Any]:
    """Put new pairs into the queue by the command, which makes it."""
    path = root / f"asked-{start}.jsonl"
    with path.open("w") as file:
        for number, (prompt, good, bad) in enumerate(preferred.replies(items, start=start, seed=start)):
            ids = (prompt[2:4], good[:-1], bad[:-1])
            asked, *texts = (" ".join(f"w{token - preferred.FIRST}" for token in one) for one in ids)
            file.write(json.dumps({"prompt": asked, "responses": texts[::-1] if number % 2 else texts}) + "\n")
    return dict(json.loads(command(root, "feedback", "queue", QUEUE, str(path), "--json", *more)))


@dataclass
class Raters:
    """Those of `wheeled`, each a thread with a token, who judge what they are asked. `kept` are the answers of the
    service by (rater, item); `again` counts judgements that were sent twice on purpose, `failed` requests without an
    answer, `late` the judgements that the service had taken without our hearing of it."""

    up: Up
    secrets: dict[str, str]
    kept: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    left: int = 0

    @contextlib.contextmanager
    def judging(self, count: int, word: Callable[[float], list[int]], pause: float = 0.0) -> Iterator[None]:
        """So many judgements of all together, with a `pause` in seconds after each; at the end they are done."""
        self.left = count
        with ThreadPoolExecutor(len(self.secrets)) as pool:
            rating = [pool.submit(self._rate, name, word, pause) for name in self.secrets]
            try:
                yield
                for one in rating:
                    one.result(300)
            finally:
                self.left = 0

    def _rate(self, name: str, word: Callable[[float], list[int]], pause: float) -> None:
        headers = {"Authorization": f"Bearer {self.secrets[name]}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{self.up.ports[1]}", headers=headers, timeout=20) as client:
            while self._take():
                while (found := self._send(client.get, f"/v1/queues/{QUEUE}/next")).status_code == 204:
                    time.sleep(0.1)  # others hold what is left
                shown = found.json()
                goods = [wheeled._good(one["content"]) for one in shown["responses"]]
                body = {"item": shown["item"], "value": word(goods[0] - goods[1])}
                key = {"Idempotency-Key": f"says {shown['item']}"}
                said = self._send(client.post, "/v1/judgements", json=body, headers=key)
                with self.lock:
                    self.counts["late"] += "Idempotency-Replayed" in said.headers
                    self.kept[name, shown["item"]] = said.json()
                    twice = len(self.kept) % 5 == 0
                if twice:
                    once_more = self._send(client.post, "/v1/judgements", json=body, headers=key)
                    assert once_more.json() == said.json() and "Idempotency-Replayed" in once_more.headers
                    self.counts["again"] += 1
                time.sleep(pause)

    def _take(self) -> bool:
        with self.lock:
            self.left -= 1
            return self.left >= 0

    def _send(self, ask: Callable[..., httpx.Response], path: str, **what: Any) -> httpx.Response:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                found = ask(path, **what)
                if found.status_code in (200, 204):
                    return found
                assert found.status_code in (429, 503), found.text
            with self.lock:
                self.counts["failed"] += 1
            time.sleep(0.2)
        raise AssertionError("the service does not come back")


def raters(up: Up) -> Raters:
    """With a token for each, by the command."""
    with ThreadPoolExecutor(2) as pool:
        told = pool.map(lambda name: json.loads(command(up.root, "feedback", "token", name, "--json")), wheeled.RATERS)
        return Raters(up, {one["token"]: one["secret"] for one in told})


def until(done: Callable[[], Any], seconds: float, what: str) -> Any:
    """What it returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


def aligned(up: Up, batches: int, seconds: float = 240) -> list[dict[str, Any]]:
    """The results of all alignments, once so many batches are closed and all of them aligned."""
    until(lambda: done(up.root, batches), seconds, f"{batches} batches are not aligned in {seconds:g} s")
    return [json.loads(row["result"]) for row in rows(up.root, "SELECT * FROM feedback_alignments ORDER BY id")]


def done(root: Path, batches: int) -> bool:
    """Whether so many batches are closed, and all that are closed are aligned."""
    closed = rows(root, "SELECT id FROM feedback_batches WHERE closed_at IS NOT NULL")
    ended = rows(root, "SELECT batch FROM feedback_taken JOIN feedback_alignments ON id = alignment WHERE ended_at > 0")
    return len(closed) >= batches and len(ended) == len(closed)


def rows(root: Path, query: str) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(root / "feedback.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def check(root: Path, said: Raters) -> dict[str, int]:
    """That nothing was lost and nothing was done twice; returns how much there is of what."""
    names = {row["id"]: row["name"] for row in rows(root, "SELECT * FROM feedback_raters")}
    judgements = rows(root, "SELECT * FROM feedback_judgements ORDER BY seq")
    assert {(names[row["rater"]], row["item"]) for row in judgements} == set(said.kept)
    assert len(judgements) == len(said.kept)  # sent twice is there once
    assert all(said.kept[names[row["rater"]], row["item"]]["judged_at"] == row["judged_at"] for row in judgements)

    store = Store(root)
    batches = rows(root, "SELECT * FROM feedback_batches ORDER BY id")
    published = [store.get(f"{one['dataset']}:{one['dataset_key']}").scan().collect()["seq"] for one in batches]
    assert Counter(seq for each in published for seq in set(each)) == Counter(row["seq"] for row in judgements)

    taken = rows(root, "SELECT * FROM feedback_taken")
    alignments = rows(root, "SELECT * FROM feedback_alignments ORDER BY id")
    assert Counter(row["batch"] for row in taken) == Counter(one["id"] for one in batches)
    assert {row["alignment"] for row in taken} == {one["id"] for one in alignments}
    assert all(one["ended_at"] for one in alignments)
    assert all(one["sent_at"] for one in rows(root, "SELECT * FROM feedback_outbox"))

    results = [json.loads(one["result"]) for one in alignments]
    trained = [stage["model"]["key"] for result in results for stage in result["stages"]]
    models = [item.key for item in store.all() if item.name == "assistant" and item.kind == "checkpoint"]
    assert Counter(models) == Counter(trained)  # one of each alignment
    assert len({store.get(f"assistant:{key}").input(0).key for key in models}) == len(models)  # each from other pairs
    verdicts = Counter(result["verdict"] for result in results)
    assert verdicts["promoted"] >= 1 and store.get("assistant@promoted").key == next(
        result["promoted"]["key"] for result in reversed(results)
    )
    return {"judgements": len(judgements), "batches": len(batches), "models": len(models), **verdicts}
