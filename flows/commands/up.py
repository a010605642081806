"""Everything that runs by itself, started by one command: Prefect's server, the runs it schedules, and feedback.

    server    Prefect's API and UI; its database, and all else that Prefect keeps, is ROOT/prefect
    runner    registers the deployments (flows/deploy.py) and runs them, each in a process of its own
    feedback  judgements over HTTP (flows/service)

They listen on this machine alone unless told otherwise, for Prefect asks nobody for a password. Whatever dies is
started again (flows/supervisor.py); a run whose runner died starts again too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import Result, table
from gristmill.flows.commands.deploy import READY, SERVES, data_arguments
from gristmill.flows.supervisor import Service, Supervisor, Taken
from gristmill.flows.wheel.recipe import read_recipe

HELP = "Start Prefect's server, all schedules and triggers, and the feedback service; Ctrl-C stops them."
PORT = 4200  # Prefect's own
FEEDBACK_PORT = 8471
_FEEDBACK_READY = "feedback is taken at "
_START = 300.0  # seconds that all have to start: a busy machine takes minutes
_FAILURES = 5  # of one in a row, while starting
_ORDER = ("feedback", "runner", "server")  # of stopping: first who brings work, last who writes down what became of it
_SHOWN = 15  # lines of the log, where the start fails
_LOOK = 0.2  # seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Where to listen, and what the schedules are about."""
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    command.add_argument("--port", type=int, default=PORT, metavar="N", help=f"of Prefect (default {PORT})")
    command.add_argument(
        "--feedback-port", type=int, default=FEEDBACK_PORT, metavar="N", help=f"of feedback (default {FEEDBACK_PORT})"
    )
    data_arguments(command)


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Start all, tend them until SIGTERM or Ctrl-C, stop all. What there is to say is said on start."""
    asked: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in signals}
    try:
        _run(options, Path(settings["root"]).resolve(), asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    raise SystemExit(0)


def _run(options: argparse.Namespace, root: Path, asked: list[int]) -> None:
    at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
    at = f"[{at}]" if ":" in at else at
    told = {"prefect": f"http://{at}:{options.port}", "feedback": f"http://{at}:{options.feedback_port}/v1"}
    api = f"{told['prefect']}/api"
    heard = _Heard()
    try:
        supervisor = Supervisor(root, _environment(root, api), heard.hear)
    except Taken as taken:
        raise InputError(
            f"{root} is up already at {taken.holder.get('prefect')}: stop process {taken.holder.get('pid')}, or give "
            "another --root"
        ) from None

    def until(ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START
        while not asked and not ready():
            supervisor.tend()
            if time.monotonic() > end or max(supervisor.failures.values(), default=0) >= _FAILURES:
                said = "\n".join(heard.last)
                raise OSError(f"it does not start; {root / 'up.log'} says:\n{said}\n")
            time.sleep(_LOOK)

    try:
        if options.recipe is not None:
            read_recipe(options.recipe)  # here, where a person sees what is wrong with it
        for port in (options.port, options.feedback_port):
            _check_free(options.host, port)
        supervisor.hold(told)
        for service in _services(options, root):
            supervisor.start(service)
            if service.name == "server":
                until(lambda: _ask(f"{api}/health") is True)
        until(lambda: heard.ready == {"runner", "feedback"})
        if not asked:
            said = {"root": str(root), "pid": os.getpid(), **told, "deployments": heard.served}
            print(json.dumps(said) if options.json else _text(said, api), flush=True)
        swept = True
        while not asked:
            if "server" in supervisor.tend():
                swept = False  # it may have died with an event that it had taken
            swept = swept or _sweep(api)
            time.sleep(_LOOK)
        if not options.json:
            print("stopping; what trains writes its state first, a second Ctrl-C does not wait for it", flush=True)
    finally:
        supervisor.stop(_ORDER, hurry=lambda: len(asked) > 1)


class _Heard:
    """What the services said that matters here."""

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.served: dict[str, str] = {}
        self.last: deque[str] = deque(maxlen=_SHOWN)

    def hear(self, name: str, line: str) -> None:
        """A line of the log."""
        self.last.append(f"{name}: {line}")
        if (name, line) == ("runner", READY) or (name == "feedback" and line.startswith(_FEEDBACK_READY)):
            self.ready.add(name)
        elif name == "runner" and line.startswith(f"{SERVES} "):
            deployment, _, when = line.removeprefix(f"{SERVES} ").partition(": ")
            self.served[deployment] = when


def _services(options: argparse.Namespace, root: Path) -> list[Service]:
    python = [sys.executable, "-m"]
    about = ["--root", str(root), *(["--database", options.database] if options.database else [])]
    crawl = ["--crawl", *options.crawl] if options.crawl else []
    recipe = ["--recipe", options.recipe] if options.recipe else []
    address = ["--host", options.host, "--port"]
    ours = [*python, "gristmill.flows.cli"]
    return [
        Service(
            "server", [*python, "prefect", "server", "start", *address, str(options.port), "--log-level", "WARNING"]
        ),
        Service("runner", [*ours, "deploy", "--serve", *about, *recipe, *crawl], first=10),
        Service("feedback", [*ours, "feedback", "serve", *about, *address, str(options.feedback_port)]),
    ]


def _environment(root: Path, api: str) -> dict[str, str]:
    """Prefect at home in the root, whatever the user's own profile says."""
    return {
        **{name: value for name, value in os.environ.items() if name not in ("PREFECT_PROFILE", "PREFECT_API_KEY")},
        "PYTHONUNBUFFERED": "1",
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_PROFILES_PATH": str(root / "prefect" / "profiles.toml"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # In memory, the default, a server that is killed forgets who holds the GPU, and nobody would get it any more.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_RUNNER_POLL_FREQUENCY": "5",
    }


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error}; give --port or --feedback-port") from None


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """What Prefect's API answers, None where it does not."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)
    except (OSError, HTTPException, ValueError):
        return None


def _sweep(api: str) -> bool:
    """Ask for a run of the sweep; whether the server took it."""
    found = _ask(f"{api}/deployments/name/sweep/hourly")
    return found is not None and _ask(f"{api}/deployments/{found['id']}/create_flow_run", {}) is not None


def _text(told: dict[str, Any], api: str) -> str:
    rows = [
        ["Prefect", told["prefect"], "runs, schedules, forms; for other commands: PREFECT_API_URL=" + api],
        ["feedback", told["feedback"], "`gristmill feedback token NAME` lets somebody in"],
        ["log", str(Path(told["root"]) / "up.log"), ""],
    ]
    served = [[name, when] for name, when in told["deployments"].items()]
    return (
        f"{told['root']} is up (process {told['pid']})\n\n{table(rows)}\n\n"
        f"{table([['deployment', 'runs'], *served])}\n\nCtrl-C stops it; what ran goes on at the next start."
    )
