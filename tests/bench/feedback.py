"""Judgements a second over HTTP: the service as users start it, on SQLite, and four raters in processes of their own.

Each rater keeps one connection and waits for each answer, as a browser does; they and the service share this machine,
so what the clients cost is said beside it; batches of 1,000 close meanwhile. `judging` sends judgements of items that
were shown before; `working` asks for each item over HTTP, too; `batches` sends 20 in a request. Every acknowledged key
is looked up in the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.feedback.candidates import candidate
from gristmill.dataops.feedback.database import Database, open_database
from gristmill.dataops.feedback.queues import make_queue, put
from gristmill.dataops.feedback.tables import ITEMS, JUDGEMENTS, RATERS, SHOWINGS
from gristmill.dataops.feedback.tokens import mint

_RATERS = 4
_PER_SECOND, _P99 = 500, 100  # judgements, milliseconds
_CLOSES = 1_000  # judgements of a batch, which closes meanwhile
#: What raters do: judgements of each, and judgements in a request.
_WORK = {"judging": (1_000, 1), "working": (400, 1), "batches": (2_000, 20)}


def feedback_api() -> Iterator[dict[str, Any]]:
    """Judgements a second and the slowest hundredth, the median of three runs each on a new database."""
    for what in _WORK:
        runs = sorted((_run(what) for _ in range(3)), key=lambda one: one["ours"])
        found = runs[1]
        bars = {"bar": _PER_SECOND, "bar_p99_ms": _P99} if what == "judging" else {}
        met = found["ours"] >= _PER_SECOND and found["p99_ms"] < _P99
        yield {
            "measure": f"judgements/s over HTTP, {_RATERS} raters, SQLite: {what}", **found, **bars,
            "runs": [one["ours"] for one in runs], "lost": sum(one["lost"] for one in runs),
            **({"met": met and not any(one["lost"] for one in runs)} if bars else {}),
        }  # fmt: skip


def _run(what: str) -> dict[str, Any]:
    each, together = _WORK[what]
    with tempfile.TemporaryDirectory() as folder:
        db = open_database(folder)
        tokens, items = _filled(db, each, shown=what != "working")
        server = _serve(folder)
        try:
            url = json.loads(server.stdout.readline()) if server.stdout else {}
            jobs = [
                {"port": url["port"], "token": token, "items": items if items else each, "together": together}
                for token in tokens
            ]
            raters = [_started(job) for job in jobs]
            for rater in raters:
                rater.stdout.readline()  # it has its connection
            before = _seconds(server.pid)
            for rater in raters:
                rater.stdin.write("\n")
                rater.stdin.flush()
            told = [json.loads(rater.stdout.readline()) for rater in raters]
            spent = _seconds(server.pid) - before
        finally:
            server.send_signal(signal.SIGTERM)
            ended = server.wait(30)
        with db.read() as connection:
            kept = set(connection.execute(sql.select(JUDGEMENTS.c.key)).scalars())
        db.engine.dispose()
    sent = sum(len(one["keys"]) for one in told)
    waits = sorted(wait for one in told for wait in one["waits"])
    seconds = max(one["end"] for one in told) - min(one["start"] for one in told)
    tails = {key.partition(":")[2] for key in kept}
    return {
        "judgements": sent, "ours": round(sent / seconds), "p50_ms": round(1e3 * waits[len(waits) // 2], 1),
        "p99_ms": round(1e3 * waits[int(0.99 * len(waits))], 1), "slowest_ms": round(1e3 * waits[-1], 1),
        "service_cpu_ms": round(1e3 * spent / sent, 2),
        "client_cpu_ms": round(1e3 * sum(one["cpu"] for one in told) / sent, 2),
        "lost": sum(key not in tails for one in told for key in one["keys"]), "ended": ended,
    }  # fmt: skip


def _filled(db: Database, each: int, *, shown: bool) -> tuple[list[str], list[str]]:
    """Tokens of the raters; and items that all of them were shown."""
    make_queue(db, "q", "pairwise", wanted=_RATERS, threshold=_CLOSES)
    rows = [candidate({"prompt": f"p{n}", "responses": [f"a{n}", f"b{n}"]}, f"row {n}") for n in range(each)]
    put(db, "q", rows, strategy="random")
    tokens = [mint(db, f"r{n}", "rate") for n in range(_RATERS)]
    if not shown:
        return tokens, []
    with db.write() as connection:
        items = list(connection.execute(sql.select(ITEMS.c.id)).scalars())
        for rater in connection.execute(sql.select(RATERS.c.id)).scalars().all():
            seen = {"rater": rater, "order": [0, 1], "shown_at": 0, "lease_until": 0}
            connection.execute(SHOWINGS.insert(), [{"item": item, **seen} for item in items])
    return tokens, items


def _serve(folder: str) -> subprocess.Popen[str]:
    command = ["-m", "gristmill.flows.cli", "feedback", "serve", "--root", folder, "--port", "0", "--json"]
    quiet = {**os.environ, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    options = ["--rate", "100000"]
    return subprocess.Popen([sys.executable, *command, *options], stdout=subprocess.PIPE, text=True, env=quiet)


def _started(job: dict[str, Any]) -> Any:
    command = [sys.executable, "-S", str(Path(__file__).with_name("feedback_rater.py"))]
    rater = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert rater.stdin
    rater.stdin.write(json.dumps(job) + "\n")
    rater.stdin.flush()
    return rater


def _seconds(process: int) -> float:
    """Processor seconds that a process has used (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
