"""The HTTP service of feedback: what raters and applications ask, and what they are answered."""

from __future__ import annotations

import threading
import time

import pytest
from feedbackdb import KINDS, START, fill, opened, rows_of
from servedfeedback import bearer, kept_keys, rater, sender, service

from gristmill.dataops.feedback.batches import close_due
from gristmill.dataops.feedback.queues import make_queue
from gristmill.dataops.feedback.tables import BATCHES, ITEMS, JUDGEMENTS, RATERS, SHOWINGS
from gristmill.dataops.feedback.tokens import mint, revoke


@pytest.fixture(params=KINDS)
def both(request, tmp_path):
    with opened(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def lite(tmp_path):
    with opened("sqlite", tmp_path) as (db, _):
        yield db


def _next(client, who, queue="q"):
    answer = client.get(f"/v1/queues/{queue}/next", headers=who)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _said(client, who, item, value=(1, 0), key="k", **more):
    return client.post("/v1/judgements", headers=who, json={"item": item, "value": value, "key": key, **more})


# ---- raters


def test_a_rater_is_shown_items_and_judges_until_nothing_is_left(both):
    db, _ = both
    fill(db, 3)
    who = rater(db)
    with service(db) as client:
        for n in range(3):
            shown = _next(client, who)
            assert _next(client, who)["item"] == shown["item"], "a lease gives the same item again"
            assert [one["content"][0] for one in shown["responses"]] in (["a", "b"], ["b", "a"])
            answer = _said(client, who, shown["item"], key=f"k{n}", comment="clear", client_at="1999-12-31T23:59:60Z")
            assert answer.status_code == 200
            assert answer.json() == {"item": shown["item"], "version": 1, "judged_at": START}
        assert client.get("/v1/queues/q/next", headers=who).status_code == 204
    rows = rows_of(db, JUDGEMENTS)
    assert {row.comment for row in rows} == {"clear"} and {row.client_at for row in rows} == {"1999-12-31T23:59:60Z"}
    assert {row.judged_at for row in rows} == {START}, "the server's clock says when"


def test_the_order_that_a_rater_saw_is_undone_in_what_is_kept(lite):
    fill(lite, 8)
    who = rater(lite)
    with service(lite) as client:
        for n in range(8):
            shown = _next(client, who)
            first_is_a = shown["responses"][0]["content"].startswith("a")
            _said(client, who, shown["item"], [1, 0] if first_is_a else [0, 1], key=f"k{n}")
    assert {tuple(row.value) for row in rows_of(lite, JUDGEMENTS)} == {(1, 0)}
    assert {tuple(row.order) for row in rows_of(lite, SHOWINGS)} == {(0, 1), (1, 0)}


def test_a_key_sent_again_gets_the_first_answer_and_with_other_content_none(both):
    db, clock = both
    fill(db, 1)
    who = rater(db)
    with service(db) as client:
        item = _next(client, who)["item"]
        first = _said(client, who, item)
        clock.at += 5000
        again = _said(client, who, item, client_at="later")
        assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in first.headers
        other = _said(client, who, item, [0, 1])
        assert (other.status_code, other.json()["error"]) == (409, "key_reused")
        corrected = _said(client, who, item, [0, 1], key="k2")
        assert (corrected.status_code, corrected.json()["version"]) == (200, 2)
    assert kept_keys(db) == ["k", "k2"]


def test_keys_of_two_raters_never_meet(lite):
    fill(lite, 1, 2, wanted=2)
    with service(lite) as client:
        for name in ("r0", "r1"):
            who = rater(lite, name)
            assert _said(client, who, _next(client, who)["item"]).status_code == 200
    assert kept_keys(lite) == ["k", "k"]


def test_the_key_can_stand_in_the_header_of_the_standard(lite):
    fill(lite, 1)
    who = rater(lite)
    with service(lite) as client:
        body = {"item": _next(client, who)["item"], "value": [1, 0]}
        for key, more, status in (("h", {}, 200), ("h", {"key": "h"}, 200), ("h", {"key": "b"}, 422)):
            answer = client.post("/v1/judgements", headers=who | {"Idempotency-Key": key}, json=body | more)
            assert answer.status_code == status
        assert client.post("/v1/judgements", headers=who, json=body).json()["error"] == "bad_key"
    assert kept_keys(lite) == ["h"]


def test_many_at_once_are_kept_or_refused_one_by_one(both):
    db, _ = both
    fill(db, 2, 2, wanted=2)
    who, other = rater(db), rater(db, "r1")
    with service(db) as client:
        mine, theirs = _next(client, who)["item"], _next(client, other)["item"]
        _said(client, who, mine, key="first")
        strange = next(row.id for row in rows_of(db, ITEMS) if row.id != mine)
        assert theirs == mine
        said = [(mine, [1, 0], "first"), (strange, [1, 0], "b"), ("nothing", [1, 0], "c"), (mine, [1, 1], "d"),
                (mine, [0, 2], "e"), (mine, None, "e")]  # fmt: skip
        body = {"judgements": [{"item": item, "value": value, "key": key} for item, value, key in said]}
        answer = client.post("/v1/judgements/batch", headers=who, json=body)
        assert answer.status_code == 200
        told = [one.get("error", one.get("version")) for one in answer.json()["results"]]
        assert told == [1, "not_shown", "unknown_item", "bad_value", 2, "key_reused"]
    assert kept_keys(db) == ["first", "e"]


@pytest.mark.parametrize(
    ("value", "error"),
    [([1, 1], "bad_value"), ([1], "bad_value"), ("a", "bad_value"), ([10**400, 0], "bad_value"),
     ([True, False], "bad_value"), ([[[[1]]]], "bad_value"), ({}, "bad_value"), ([None, 0], "bad_value")],
)  # fmt: skip
def test_a_value_that_is_none_of_this_queue_is_refused(lite, value, error):
    fill(lite, 1)
    who = rater(lite)
    with service(lite) as client:
        answer = _said(client, who, _next(client, who)["item"], value)
        assert (answer.status_code, answer.json()["error"]) == (422, error)
    assert kept_keys(lite) == []


def test_what_a_rater_was_not_shown_they_cannot_judge(lite):
    fill(lite, 1, 2, wanted=2)
    shown, stranger = rater(lite), rater(lite, "r1")
    with service(lite) as client:
        item = _next(client, shown)["item"]
        answer = _said(client, stranger, item)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_shown")
        assert _said(client, shown, "0" * 32).status_code == 404
        assert client.get("/v1/queues/other/next", headers=shown).json()["error"] == "unknown_queue"
        assert client.get("/v1/queues/a%00b/next", headers=shown).status_code == 404


# ---- applications


def _thumb(client, who, queue="liked", **more):
    body = {"prompt": "What is up?", "response": "The sky.", "label": True, "user": "u1", "key": "t"} | more
    return client.post(f"/v1/queues/{queue}/thumbs", headers=who, json=body)


def test_a_thumb_is_item_showing_and_judgement_at_once(both):
    db, _ = both
    make_queue(db, "liked", "thumbs")
    app = sender(db)
    with service(db) as client:
        first = _thumb(client, app, policy="m1", comment="nice")
        assert first.status_code == 200 and first.json()["version"] == 1
        assert _thumb(client, app, policy="m1", comment="nice").json() == first.json()
        assert _thumb(client, app, policy="m1", user="u2", key="t2", label=False).json()["item"] == first.json()["item"]
        changed = _thumb(client, app, policy="m1", key="t3", label=False)
        assert changed.json()["version"] == 2, "another thumb of the same user supersedes the first"
        reused = _thumb(client, app, key="t", prompt="Another?")
        assert (reused.status_code, reused.json()["error"]) == (409, "key_reused")
        assert _thumb(client, app, policy="m1", key="t", user="u9").status_code == 409
    [item] = rows_of(db, ITEMS)
    assert item.responses == [{"message": {"role": "assistant", "content": "The sky."}, "policy": "m1"}]
    assert (item.strategy, item.judged, item.open) == ("production", 2, False)
    assert [row.name for row in rows_of(db, RATERS)] == ["app/u1", "app/u2"]
    assert len(rows_of(db, SHOWINGS)) == 2
    assert [row.value for row in rows_of(db, JUDGEMENTS)] == [[1], [0], [0]]


def test_a_thumb_of_a_conversation_keeps_its_turns(lite):
    make_queue(lite, "liked", "thumbs")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with service(lite) as client:
        answer = _thumb(
            client, sender(lite), prompt=None, messages=turns, response={"content": "Ho", "role": "assistant"}
        )
        assert answer.status_code == 200, answer.text
    [item] = rows_of(lite, ITEMS)
    assert item.prompt == turns and item.responses[0]["message"] == {"role": "assistant", "content": "Ho"}


@pytest.mark.parametrize(
    ("more", "status", "error"),
    [
        ({"queue": "none"}, 404, "unknown_queue"), ({"queue": "q"}, 409, "wrong_kind"),
        ({"label": 1}, 422, "invalid"), ({"label": None}, 422, "invalid"), ({"user": ""}, 422, "invalid"),
        ({"messages": [{"role": "user", "content": "x"}]}, 422, "invalid"), ({"prompt": None}, 422, "invalid"),
        ({"prompt": None, "messages": []}, 422, "bad_value"), ({"prompt": "  "}, 422, "bad_value"),
        ({"prompt": None, "messages": [{"role": "boss", "content": "x"}]}, 422, "bad_value"),
        ({"response": {"role": "user", "content": "x"}}, 422, "bad_value"),
        ({"response": "  "}, 422, "bad_value"), ({"response": "x" * 1_000_001}, 422, "bad_value"),
        ({"tools": "a\0"}, 422, "bad_value"),
        ({"user": "a\0b"}, 422, "bad_value"), ({"extra": 1}, 422, "invalid"), ({"key": "k" * 129}, 422, "invalid"),
    ],
)  # fmt: skip
def test_a_thumb_that_cannot_be_kept_leaves_nothing(lite, more, status, error):
    make_queue(lite, "liked", "thumbs")
    make_queue(lite, "q", "pairwise")
    with service(lite) as client:
        answer = _thumb(client, sender(lite), **more)
        assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert not any(rows_of(lite, table) for table in (ITEMS, RATERS, SHOWINGS, JUDGEMENTS))


# ---- who may


def test_without_a_token_that_counts_nothing_is_told(lite):
    fill(lite, 1)
    token = mint(lite, "ann", "rate")
    with service(lite) as client:
        for headers in (
            {},
            bearer("x"),
            bearer(""),
            {"Authorization": f"Basic {token}"},
            bearer("gristmill_é".encode()),
        ):
            answer = client.get("/v1/queues", headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (401, "no_token")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/v1/queues", headers=bearer(token)).status_code == 200
        assert client.get("/v1/health").json() == {"status": "ok"}


def test_a_revoked_token_is_refused_within_a_second(lite):
    token = mint(lite, "ann", "rate")
    with service(lite) as client:
        assert client.get("/v1/queues", headers=bearer(token)).status_code == 200
        revoke(lite, "ann")
        fresh = mint(lite, "ann", "rate")
        time.sleep(1.1)
        assert client.get("/v1/queues", headers=bearer(token)).status_code == 401
        assert client.get("/v1/queues", headers=bearer(fresh)).status_code == 200


def test_a_scope_is_for_its_own_requests(lite):
    fill(lite, 1)
    make_queue(lite, "liked", "thumbs")
    who, app = rater(lite), sender(lite)
    with service(lite) as client:
        for answer in (
            _thumb(client, who), client.get("/v1/queues/q/next", headers=app), _said(client, app, "x"),
            client.post("/v1/judgements/batch", headers=app, json={"judgements": []}),
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["error"]) == (403, "wrong_scope")
    assert kept_keys(lite) == []


# ---- batches close by themselves


def test_a_threshold_closes_a_batch_while_others_go_on(both, tmp_path):
    db, _ = both
    fill(db, 12, threshold=5)
    who = rater(db)
    with service(db, closing=lambda: close_due(db, tmp_path / "root")) as client:
        for n in range(5):
            _said(client, who, _next(client, who)["item"], key=f"k{n}")
        for _ in range(200):
            if rows_of(db, BATCHES) and rows_of(db, BATCHES)[0].closed_at:
                break
            time.sleep(0.05)
        [found] = client.get("/v1/queues", headers=who).json()["queues"]
        assert (found["batches"], found["waiting"], found["due"]) == (1, 0, None)
    [batch] = rows_of(db, BATCHES)
    assert (batch.judgements, batch.reason) == (5, "threshold")


def test_closing_runs_one_at_a_time_never_holds_a_judgement_up_and_is_tried_again(lite):
    fill(lite, 6, threshold=1)
    who = rater(lite)
    go, begun, running, most = threading.Event(), threading.Event(), [], []

    def closing():
        running.append(1)
        most.append(len(running))
        begun.set()
        assert go.wait(20)
        running.pop()
        if len(most) == 1:
            raise OSError("the disk is full")

    with service(lite, closing=closing, sweep=0.2) as client:
        assert begun.wait(10)
        for n in range(6):  # while the closing stands
            assert _said(client, who, _next(client, who)["item"], key=f"k{n}").status_code == 200
        go.set()
        for _ in range(200):
            if len(most) > 1:
                break
            time.sleep(0.05)
    assert len(most) > 1 and set(most) == {1}


def test_why_a_batch_does_not_close_is_told(lite):
    fill(lite, 1)
    who = rater(lite)

    def closing():
        raise OSError("the disk is full")

    with service(lite, closing=closing) as client:
        for _ in range(200):
            if told := client.get("/v1/queues", headers=who).json()["closing"]:
                break
            time.sleep(0.02)
        assert told == "OSError: the disk is full"
        assert _said(client, who, _next(client, who)["item"]).status_code == 200
