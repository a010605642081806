"""The feedback service for tests: in this process, and as users start it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sql
from anyio.from_thread import start_blocking_portal

from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.tables import JUDGEMENTS
from gristmill.dataops.feedback.tokens import mint
from gristmill.flows.service.app import feedback_app


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class Client:
    """Asks the service in this process, without a socket."""

    ask: Callable[..., httpx.Response]

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET."""
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST."""
        return self.ask("POST", path, **options)


@contextlib.contextmanager
def service(db: Database, **settings: Any) -> Iterator[Client]:
    """A client of the service in this process; it closes nothing unless told how."""
    app = feedback_app(db, **{"closing": lambda: None, "rate": 1e6, "sweep": 3600.0, **settings})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        client = httpx.AsyncClient(transport=transport, base_url="http://service")
        yield Client(lambda method, path, **options: portal.call(partial(client.request, method, path, **options)))


def rater(db: Database, name: str = "r0") -> dict[str, str]:
    """The header of a new token of a rater."""
    return bearer(mint(db, f"of {name}", "rate", rater=name))


def sender(db: Database, name: str = "app") -> dict[str, str]:
    """The header of a new token of an application."""
    return bearer(mint(db, name, "send"))


def kept_keys(db: Database) -> list[str]:
    """The clients' keys of all judgements, in their order."""
    with db.read() as connection:
        keys = connection.execute(sql.select(JUDGEMENTS.c.key).order_by(JUDGEMENTS.c.seq)).scalars()
        return [key.partition(":")[2] for key in keys]


@contextlib.contextmanager
def served(root: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port, and its address; killed in the end where the test did not end it."""
    words = ["feedback", "serve", "--root", str(root), "--port", "0", "--json", *options]
    quiet = {**os.environ, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_HOME": str(root / "prefect")}
    quiet.pop("PREFECT_API_URL", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "gristmill.flows.cli", *words], stdout=subprocess.PIPE, text=True, env=quiet
    )
    try:
        assert process.stdout
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        process.stdout.close()
