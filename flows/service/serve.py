"""The HTTP service of feedback as a process: a socket, a signal to end, and the command's two actions.

It listens on this machine alone unless told otherwise, and speaks no TLS: whoever serves the world puts a proxy in
front. The law: on SIGTERM or SIGINT it takes no more requests, answers those it has, writes what it accepted and ends
with 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import Result, table

if TYPE_CHECKING:  # every command reads this file's arguments, and none of them waits for SQLAlchemy
    from gristmill.dataops.feedback.database import Database

PORT = 8471
_IDLE = 75  # seconds that a connection without a request stays open: longer than proxies keep theirs
_LAST = 10  # seconds for requests under way when the service ends


def serve_arguments(action: argparse.ArgumentParser) -> None:
    """What `feedback serve` can be told."""
    action.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    action.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default {PORT}; 0 takes a free one")
    action.add_argument(
        "--rate", type=float, default=200.0, metavar="X", help="judgements a second for each token (default 200)"
    )
    action.add_argument(
        "--sweep", type=float, default=30.0, metavar="S", help="seconds between two looks for batches due by time"
    )


def token_arguments(action: argparse.ArgumentParser) -> None:
    """What `feedback token` can be told."""
    action.add_argument("name", nargs="?", metavar="NAME", help="whose token it is (default: list all)")
    action.add_argument(
        "--scope", choices=["rate", "send"], default="rate", help="rate: one rater (default); send: an application"
    )
    action.add_argument("--rater", metavar="NAME", help="whom a token of scope rate speaks for (default: its name)")
    action.add_argument("--revoke", action="store_true", help="make the token void")


def serve(options: argparse.Namespace, root: Path, db: Database) -> Result:
    """Serve until a signal; what is printed on start says where."""
    from gristmill.flows.service.closing import ClosingProcess

    if options.rate <= 0 or options.sweep <= 0:
        raise InputError("--rate and --sweep are above 0")

    def started(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        told = {"url": f"http://{shown}:{port}", "host": host, "port": port}
        print(json.dumps(told) if options.json else f"feedback is taken at {told['url']}/v1", flush=True)

    closing = ClosingProcess(root, options.database)
    try:
        run(
            db, closing.close, host=options.host, port=options.port, rate=options.rate, sweep=options.sweep,
            started=started,
        )  # fmt: skip
    finally:
        closing.end()
    raise SystemExit(0)  # what there is to say was said on start


def run(
    db: Database,
    closing: Callable[[], Any],
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    rate: float = 200.0,
    sweep: float = 30.0,
    started: Callable[[str, int], None],
) -> None:
    """Serve until SIGTERM or SIGINT; `started` is told where once the socket listens. The rest is app.feedback_app's.

    Raises InputError where the address cannot be listened on.
    """
    import uvicorn

    from gristmill.flows.service.app import feedback_app

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio does this for sockets that it made itself; without, each answer waits 40 ms for an acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error}") from None
    app = feedback_app(db, closing=closing, rate=rate, sweep=sweep)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_LAST, lifespan="on", ws="none",
    )  # fmt: skip
    before = {one: signal.signal(one, _ended) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        started(host, listening.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()
        for one, handler in before.items():
            signal.signal(one, handler)


def _ended(number: int, frame: Any) -> None:
    """The server raises the signal that ended it once more when it is done, and that is not to end the process."""


def token(options: argparse.Namespace, root: Path, db: Database) -> Result:
    """Make a token, revoke one, or list them."""
    from gristmill.dataops.feedback.tokens import listed, mint, revoke

    if options.name is None:
        if options.revoke or options.rater:
            raise InputError("name the token: `gristmill feedback token NAME`")
        found = listed(db)
        rows = [
            [one["name"], one["scope"], one["rater"] or "", "revoked" if one["revoked_at"] else ""] for one in found
        ]
        text = table([["token", "scope", "rater", ""], *rows]) if rows else "no token yet"
        return {"tokens": found}, text
    if options.revoke:
        told = "revoked" if revoke(db, options.name) else "was revoked before"
        return {"token": options.name, "revoked": True}, f"{options.name}: {told}"
    secret = mint(db, options.name, options.scope, rater=options.rater)
    result = {"token": options.name, "scope": options.scope, "secret": secret}
    return result, f"{secret}\nThis is shown once: `Authorization: Bearer {secret[:14]}…`"
