"""A Prefect server for tests: a process of its own on a free port, with its database in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 180  # seconds that a busy machine may take to start it


@contextlib.contextmanager
def server(home: Path) -> Iterator[str]:
    """The URL of the API of a server that keeps everything in `home`, leases of limits too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ, "PREFECT_HOME": str(home), "PREFECT_UI_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }  # fmt: skip
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--log-level", "WARNING"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(f"{url}/health"):
            said = (home / "log").read_text()
            assert process.poll() is None and time.monotonic() < end, f"Prefect's server did not start: {said}"
            time.sleep(0.1)
        yield url
    finally:
        _sent()
        process.kill()
        process.wait()


def _sent() -> None:
    """Sends what this process still has to tell a server: at its end it would wait a minute for one that is gone."""
    if "prefect" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        for worker in (EventsWorker, APILogWorker):
            worker.drain_all(timeout=10)


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False
