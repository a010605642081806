"""What the HTTP service of feedback refuses before it looks at it, and what hostile bodies are answered."""

from __future__ import annotations

import asyncio
import json

import pytest
import sqlalchemy as sql
from feedbackdb import fill, opened
from hypothesis import given
from hypothesis import strategies as st
from servedfeedback import kept_keys, rater, sender, service

from gristmill.dataops.feedback.queues import make_queue
from gristmill.flows.service.gate import Denied, Rates, depth
from gristmill.flows.service.writer import Unavailable, Writer

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def lite(tmp_path):
    with opened("sqlite", tmp_path) as (db, _):
        yield db


@pytest.fixture
def client(lite):
    fill(lite, 3)
    with service(lite, most_bytes=20_000) as made:
        yield made


@pytest.fixture
def who(lite, client):
    return rater(lite)


# ---- rate


def test_a_token_may_send_so_many_a_second_and_others_do_not_pay_for_it():
    at = [0.0]
    rates = Rates(10, clock=lambda: at[0])
    for _ in range(20):
        rates.take(1)
    with pytest.raises(Denied) as refused:
        rates.take(1)
    assert refused.value.status == 429 and refused.value.headers == {"Retry-After": "1"}
    rates.take(2)
    at[0] = 0.5
    for _ in range(5):
        rates.take(1)
    with pytest.raises(Denied):
        rates.take(1)
    at[0] = 1000
    for _ in range(20):  # what was not used is not kept for ever
        rates.take(1)
    with pytest.raises(Denied):
        rates.take(1)


def test_many_at_once_are_waited_for_afterwards():
    at = [0.0]
    rates = Rates(10, clock=lambda: at[0])
    rates.take(1)
    rates.pay(1, 99)
    with pytest.raises(Denied) as refused:
        rates.take(1)
    assert refused.value.headers == {"Retry-After": "9"}, "100 taken of 20, and one to go on with"
    at[0] = 8.1
    rates.take(1)


def test_too_many_requests_are_answered_with_when_to_come_back(lite):
    fill(lite, 1)
    who, other = rater(lite), sender(lite)
    with service(lite, rate=0.5) as client:
        answers = [client.get("/v1/queues", headers=who) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 429, 429]
        assert answers[-1].json()["error"] == "too_many" and int(answers[-1].headers["Retry-After"]) >= 1
        assert client.get("/v1/queues", headers=other).status_code == 200
        assert client.get("/v1/health").status_code == 200


# ---- size


def test_a_body_above_the_limit_is_not_read_to_its_end(client, who):
    read = []

    async def endless():
        for n in range(1000):
            read.append(n)
            yield b" " * 5_000

    answer = client.post("/v1/judgements", headers=who | JSON, content=endless())
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert len(read) <= 6, "no length was told, and it stopped behind the limit"
    told = client.post("/v1/judgements", headers=who | JSON | {"Content-Length": "30000"}, content=endless())
    assert told.status_code == 413 and len(read) <= 7


def test_a_message_of_ten_megabytes_is_too_large(lite):
    make_queue(lite, "liked", "thumbs")
    with service(lite) as client:
        body = {"prompt": "x" * 10_000_000, "response": "y", "label": True, "user": "u", "key": "k"}
        answer = client.post("/v1/queues/liked/thumbs", headers=sender(lite), json=body)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


def test_strangers_and_the_impatient_are_refused_before_their_body_is_read(client, lite):
    read = []

    async def body():
        read.append(1)
        yield b"{}"

    assert client.post("/v1/judgements", headers=JSON, content=body()).status_code == 401
    assert client.post("/v1/nowhere", headers=JSON, content=body()).status_code == 401
    assert read == []


# ---- what is no JSON, or too much of it


HOSTILE = {
    "nothing": (b"", 422, "invalid"),
    "no JSON": (b"{", 400, "bad_json"),
    "no UTF-8": (b'{"item": "\xff"}', 400, "bad_json"),
    "UTF-16": ('{"item": 1}'.encode("utf-16"), 400, "bad_json"),
    "a list": (b"[]", 422, "invalid"),
    "deep": (b"[" * 5_000, 400, "too_deep"),
    "deep within": (b'{"item":"i","key":"k","value":' + b"[" * 40 + b"]" * 40 + b"}", 400, "too_deep"),
    "brackets in texts are none": (b'{"item":"' + b'[\\"{' * 9 + b'","key":"k","value":[1,0]}', 404, "unknown_item"),
    "a text without end": (b'"' + b'\\"' * 9_000, 400, "bad_json"),
    "half a character": (b'{"item":"\\ud800","key":"k","value":[1,0]}', 422, "invalid"),
    "half a character in the key": (b'{"item":"i","key":"\\udfff","value":[1,0]}', 422, "invalid"),
    "half a character in a field": (b'{"item":"i","key":"k","value":[1,0],"\\ud800":1}', 422, "invalid"),
    "NUL": (b'{"item":"a\\u0000","key":"k","value":[1,0]}', 422, "bad_value"),
    "NUL in the comment": (b'{"item":"i","key":"k","value":[1,0],"comment":"\\u0000"}', 422, "bad_value"),
    "a number of 400 digits": (b'{"item":"i","key":"k","value":[1' + b"0" * 400 + b",0]}", 404, "unknown_item"),
    "a number of 9,000 digits": (b'{"item":"i","key":"k","value":[1' + b"0" * 9_000 + b",0]}", 400, "bad_json"),
    "1e999": (b'{"item":"i","key":"k","value":[1e999,0]}', 404, "unknown_item"),
    "NaN": (b'{"item":"i","key":"k","value":[NaN,0]}', 404, "unknown_item"),
    "another type": (b'{"item":1,"key":"k","value":[1,0]}', 422, "invalid"),
    "a field too many": (b'{"item":"i","key":"k","value":[1,0],"rater":"somebody else"}', 422, "invalid"),
    "a field too few": (b'{"item":"i","key":"k"}', 422, "invalid"),
    "a long comment": (b'{"item":"i","key":"k","value":[1,0],"comment":"' + b"x" * 10_001 + b'"}', 422, "invalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_a_short_answer(client, who, name, lite):
    body, status, error = HOSTILE[name]
    answer = client.post("/v1/judgements", headers=who | JSON, content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert len(answer.content) < 600 and "Traceback" not in answer.text
    assert kept_keys(lite) == []
    assert client.get("/v1/queues", headers=who).status_code == 200


@pytest.mark.parametrize("number", [b"NaN", b"1e999", b"-Infinity", b"1" + b"0" * 400])
def test_what_a_float_cannot_hold_is_no_judgement(client, who, number, lite):
    item = client.get("/v1/queues/q/next", headers=who).json()["item"].encode()
    body = b'{"item":"%s","key":"k","value":[%s,0]}' % (item, number)
    answer = client.post("/v1/judgements", headers=who | JSON, content=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "bad_value")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_another_type_of_body_is_refused(client, who, kind):
    answer = client.post("/v1/judgements", headers=who | {"Content-Type": kind}, content=b'{"item":"i"}')
    assert (answer.status_code, answer.json()["error"]) == (415, "not_json")


def test_paths_and_methods_that_are_none_are_said_as_json(client, who):
    assert client.get("/v1/nowhere", headers=who).json()["error"] == "unknown_path"
    assert client.get("/v1/judgements", headers=who).json()["error"] == "wrong_method"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
)


@given(_VALUES)
def test_depth_is_that_of_the_value(value):
    def deep(one):
        parts = one.values() if isinstance(one, dict) else one if isinstance(one, list) else None
        return 0 if parts is None else 1 + max(map(deep, parts), default=0)

    assert depth(json.dumps(value).encode()) == deep(value)
    assert depth(json.dumps(value, ensure_ascii=False).encode()) == deep(value)


def test_the_page_of_the_api_names_every_path(client):
    paths = client.get("/v1/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/health", "/v1/judgements", "/v1/judgements/batch", "/v1/queues", "/v1/queues/{queue}/next",
        "/v1/queues/{queue}/thumbs",
    }  # fmt: skip


# ---- the writer


def _written(kinds, asked):
    """The answers, or the errors, of all that is asked at once."""

    async def go():
        writer = Writer(kinds)
        found = await asyncio.gather(*(writer.write(kind, things) for kind, things in asked), return_exceptions=True)
        await writer.end()
        with pytest.raises(Unavailable):
            await writer.write("a", [1])
        return found

    return asyncio.run(go())


def test_what_fails_by_itself_takes_nobody_with_it():
    def double(things):
        if 13 in things:
            raise ValueError("13")
        return [2 * thing for thing in things]

    found = _written({"a": double, "b": list}, [("a", [n, n]) for n in range(20)] + [("b", [7])])
    assert [one if isinstance(one, list) else str(one) for one in found] == [
        "13" if n == 13 else [2 * n, 2 * n] for n in range(20)
    ] + [[7]]


def test_who_waits_together_is_written_together_and_in_order():
    groups = []

    def write(things):
        groups.append(list(things))
        return things

    _written({"a": write}, [("a", [n]) for n in range(250)])
    assert [n for group in groups for n in group] == list(range(250))
    assert len(groups) < 20 and max(map(len, groups)) <= 100


def test_a_database_that_fails_is_tried_again_and_then_said():
    calls = []

    def failing(things):
        calls.append(len(things))
        raise sql.exc.OperationalError("INSERT", {}, Exception("database is locked"))

    def once(things):
        calls.append(len(things))
        if len(calls) == 1:
            raise sql.exc.OperationalError("INSERT", {}, Exception("deadlock detected"))
        return things

    assert _written({"a": once}, [("a", [1])]) == [[1]]
    calls.clear()
    [found] = _written({"a": failing}, [("a", [1])])
    assert isinstance(found, Unavailable) and calls == [1, 1]


def test_a_database_that_is_held_is_said_as_503_and_nothing_is_kept_twice(lite):
    fill(lite, 1)
    who = rater(lite)
    with service(lite) as client:
        item = client.get("/v1/queues/q/next", headers=who).json()["item"]
        lite.engine.dispose()
        held = sql.event.listens_for(lite.engine, "connect")(
            lambda connection, _: connection.execute("PRAGMA busy_timeout = 50")
        )
        with lite.write():
            answer = client.post("/v1/judgements", headers=who, json={"item": item, "value": [1, 0], "key": "k"})
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        sql.event.remove(lite.engine, "connect", held)
        again = client.post("/v1/judgements", headers=who, json={"item": item, "value": [1, 0], "key": "k"})
        assert again.status_code == 200 and kept_keys(lite) == ["k"]
