"""`gristmill feedback serve` and `token` as users meet them: a process and its end; tokens made and revoked."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sql
from feedbackdb import KINDS, fill, opened, url, work
from servedfeedback import bearer, kept_keys, served

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.feedback.queues import make_queue
from gristmill.dataops.feedback.standing import status
from gristmill.dataops.feedback.tables import TOKENS
from gristmill.dataops.feedback.tokens import digest, grants, listed, mint, revoke
from gristmill.dataops.store import Store
from gristmill.flows.cli import main
from gristmill.flows.service.closing import ClosingProcess


@pytest.fixture
def ask(tmp_path, capsys):
    """The object that the command prints, after checking its status."""

    def asked(*words: str, status: int = 0) -> dict:
        code = main(["feedback", *words, "--root", str(tmp_path / "root"), "--json"])
        out, err = capsys.readouterr()
        assert code == status, err
        return json.loads(out)

    return asked


def _senders(where, tokens, path, body, done, answered):
    """Threads that send until they are told to stop or the service is gone; `answered` takes the keys it kept."""

    def send(n, token):
        sent = 0
        with httpx.Client(base_url=where, headers=bearer(token), timeout=30) as client:
            while not done.is_set():
                key = f"{n}-{sent}"
                try:
                    answer = client.post(path, json=body(n, sent) | {"key": key})
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    answered.append(key)
                elif answer.status_code != 503:
                    raise AssertionError(answer.text)
                sent += 1

    threads = [threading.Thread(target=send, args=(n, token)) for n, token in enumerate(tokens)]
    for thread in threads:
        thread.start()
    return threads


def _processes_of(root):
    """The processes that have this folder on their command line (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(root).encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


def _thumb(n, sent):
    return {"prompt": f"p{sent % 7}", "response": f"r{n}", "label": sent % 2 == 0, "user": f"u{sent % 5}"}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_was_answered_is_kept_however_the_service_ends(tmp_path, end):
    root = tmp_path / "root"
    db = open_database(root)
    make_queue(db, "liked", "thumbs")
    tokens = [mint(db, f"app{n}", "send") for n in range(3)]
    answered: list[str] = []
    with served(root) as (process, where):
        threads = _senders(where, tokens, "/v1/queues/liked/thumbs", _thumb, threading.Event(), answered)
        while len(answered) < 40:
            time.sleep(0.01)
        time.sleep(random.Random(end).random() / 10)
        process.send_signal(end)
        ended = process.wait(30)
        for thread in threads:
            thread.join(30)
    for _ in range(400):
        if not (left := _processes_of(root)):
            break
        time.sleep(0.05)
    assert left == [], "the process that closes batches ends with the service"
    kept = kept_keys(db)
    assert ended == (0 if end != signal.SIGKILL else -signal.SIGKILL)
    assert len(answered) >= 40 and set(answered) <= set(kept) and len(kept) == len(set(kept))
    if end != signal.SIGKILL:
        assert sorted(kept) == sorted(answered), "what was accepted was answered, too"
    [found] = status(db)
    assert found["judgements"] == len(kept)


def test_four_raters_judge_everything_once_and_the_batch_closes_itself(tmp_path):
    root = tmp_path / "root"
    db = open_database(root)
    names = fill(db, 25, 4, threshold=100, wanted=4)
    tokens = [mint(db, f"of {name}", "rate", rater=name) for name in names]
    judged: list[tuple[str, str]] = []

    def judge(where, name, token):
        with httpx.Client(base_url=where, headers=bearer(token), timeout=30) as client:
            while (shown := client.get("/v1/queues/q/next")).status_code == 200:
                item = shown.json()["item"]
                for _ in range(2):  # sent twice, as after a lost answer
                    answer = client.post(
                        "/v1/judgements", json={"item": item, "value": [1, 0], "key": f"{name} {item}"}
                    )
                    assert answer.status_code == 200, answer.text
                judged.append((name, item))

    with served(root, "--sweep", "3600") as (process, where):
        threads = [threading.Thread(target=judge, args=(where, *pair)) for pair in zip(names, tokens, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(judged) == len(set(judged)) == 100
        for _ in range(400):
            [found] = status(db)
            if found["batches"] and found["batches"][0]["state"] == "closed":
                break
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0 and process.stdout.read() == "", "one line, on start"
    assert [(one["judgements"], one["reason"]) for one in found["batches"]] == [(100, "threshold")]
    assert Store(root).get("feedback-q").rows == 100


def test_on_a_socket_a_body_too_large_is_refused_before_it_came(tmp_path):
    db = open_database(tmp_path / "root")
    token = mint(db, "ann", "rate")
    with served(tmp_path / "root") as (_, where):
        place = urlsplit(where)

        def answer(headers, body):
            with socket.create_connection((place.hostname, place.port), 30) as wire:
                head = [f"Authorization: Bearer {token}", "Host: x", "Content-Type: application/json", *headers]
                wire.sendall(("POST /v1/judgements HTTP/1.1\r\n" + "\r\n".join(head) + "\r\n\r\n").encode())
                with contextlib.suppress(OSError):
                    for part in body:
                        wire.sendall(part)
                response = http.client.HTTPResponse(wire)
                response.begin()
                return response.status, json.loads(response.read())["error"]

        chunk = b"%x\r\n" % 100_000 + b" " * 100_000 + b"\r\n"
        assert answer(["Content-Length: 99999999999"], []) == (413, "too_large")
        assert answer(["Transfer-Encoding: chunked"], [chunk] * 41) == (413, "too_large")
        assert httpx.get(f"{where}/v1/health").json() == {"status": "ok"}


def test_the_address_that_is_taken_is_said(ask):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = ask("serve", "--port", str(taken.getsockname()[1]), status=2)["error"]
        assert "cannot listen on 127.0.0.1" in told
    assert "cannot listen" in ask("serve", "--port", "70000", status=2)["error"]
    assert "above 0" in ask("serve", "--rate", "0", status=2)["error"]


def test_the_process_that_closes_is_started_again_and_says_what_went_wrong(tmp_path):
    root = tmp_path / "root"
    db = open_database(root)
    fill(db, 4, threshold=2)
    process = ClosingProcess(root)
    try:
        assert process.close() == 0
        work(db, "r0", 2)
        [there] = _processes_of(root)
        os.kill(int(there), signal.SIGKILL)
        with contextlib.suppress(RuntimeError):  # where its end is not seen yet
            process.close()
        process.close()
        assert Store(root).get("feedback-q").rows == 2
        work(db, "r0", 2)
        (root / "feedback-q").rename(root / "elsewhere")
        (root / "feedback-q").write_text("no folder")
        with pytest.raises(RuntimeError, match="Error"):
            process.close()
    finally:
        process.end()
    assert _processes_of(root) == []


# ---- tokens


def test_a_token_is_shown_once_and_kept_as_its_hash(ask, tmp_path):
    made = ask("token", "ann")
    db = open_database(tmp_path / "root")
    with db.read() as connection:
        [row] = connection.execute(sql.select(TOKENS)).all()
    assert row.sha256 == digest(made["secret"]) and made["secret"] not in str(row)
    assert made["secret"] not in json.dumps(ask("token"))
    assert grants(db)[row.sha256].rater == "ann"
    assert "is in use" in ask("token", "ann", status=2)["error"]
    assert ask("token", "ann", "--revoke") == {"token": "ann", "revoked": True} and grants(db) == {}
    assert ask("token", "ann")["secret"] != made["secret"] and len(grants(db)) == 1
    assert "no token 'bob'" in ask("token", "bob", "--revoke", status=2)["error"]
    assert "name the token" in ask("token", "--revoke", status=2)["error"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_keeps_what_it_was_for(kind, tmp_path):
    with opened(kind, tmp_path) as (db, _):
        mint(db, "ann", "rate", rater="Ann")
        assert revoke(db, "ann") and not revoke(db, "ann")
        for words in ({"scope": "send"}, {"scope": "rate", "rater": "Bob"}):
            with pytest.raises(InputError, match="was for something else"):
                mint(db, "ann", **words)
        mint(db, "app", "send")
        assert [(one["name"], one["scope"], one["rater"]) for one in listed(db)] == [
            ("ann", "rate", "Ann"), ("app", "send", None)
        ]  # fmt: skip
        for name, words in (("a/b", {"scope": "send"}), (" ", {"scope": "send"}), ("a\0", {"scope": "send"}),
                            ("new", {"scope": "send", "rater": "Ann"}), ("new", {"scope": "all"})):  # fmt: skip
            with pytest.raises(InputError):
                mint(db, name, **words)
        assert len(listed(db)) == 2


def test_another_database_serves_and_the_root_holds_the_data(tmp_path):
    where = url("postgresql", tmp_path)
    db = open_database(where)
    make_queue(db, "liked", "thumbs", threshold=2)
    token = mint(db, "app", "send")
    with served(tmp_path / "root", "--database", where) as (process, address):
        with httpx.Client(base_url=address, headers=bearer(token), timeout=30) as client:
            for n in range(2):
                assert client.post("/v1/queues/liked/thumbs", json=_thumb(n, n) | {"key": str(n)}).status_code == 200
            for _ in range(400):
                if client.get("/v1/queues").json()["queues"][0]["batches"]:
                    break
                time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0
    db.engine.dispose()
    assert Store(tmp_path / "root").get("feedback-liked").rows == 2
