"""What every request passes before it is looked at: token, rate, size, and whether it is JSON at all.

In this order, and the body is read last: whoever has no token, or sends too often, costs nothing but headers. The laws:
a body is never kept beyond the limit, whether its length was told or not; a revoked token is refused within a second;
the answer is JSON with one word for a program and a sentence for people. Not covered: TLS, which a proxy does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import sqlalchemy as sql
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.tokens import Grant, digest, grants

_FRESH = 1.0  # seconds that what tokens allow is believed
_APART = 0.05  # seconds between two readings: guessing costs the database no more than that
_BODY = 20.0  # seconds in which a body must be here
_DEEP = 32  # brackets inside each other; a message with tool calls has six
#: Texts, also one that never ends (so that each byte is read once), and whatever else is no bracket.
_NO_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[^\[\]{}"]+', re.DOTALL)
_OPEN = re.compile(r"/v1/(health|openapi\.json)")


class Denied(Exception):
    """An answer that is no success; `headers` such as Retry-After."""

    def __init__(self, status: int, error: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.error, self.headers = status, error, headers

    def answer(self) -> JSONResponse:
        """As JSON."""
        return JSONResponse({"error": self.error, "message": printable(str(self))}, self.status, self.headers)


class Grants:
    """What tokens allow, read again after a second, and for one that is not known at once, by one request for all."""

    def __init__(self, db: Database):
        self._db, self._lock = db, asyncio.Lock()
        self._known: dict[str, Grant] = {}
        self._read_at = -inf

    async def of(self, token: str) -> Grant | None:
        """What this token allows; None for one that is unknown or revoked. Raises Denied (503)."""
        name, came = digest(token), time.monotonic()
        if name not in self._known or came - self._read_at >= _FRESH:
            async with self._lock:
                if self._read_at < came:  # else others have read it meanwhile
                    await asyncio.sleep(_APART - (came - self._read_at))
                    await self._read()
        return self._known.get(name)

    async def _read(self) -> None:
        at = time.monotonic()
        try:
            self._known = await asyncio.to_thread(grants, self._db)
        except sql.exc.OperationalError:
            raise unavailable("the database does not answer; send it again") from None
        self._read_at = at


@dataclass
class _Bucket:
    level: float
    at: float


class Rates:
    """A bucket of `2 * rate` for each token that fills by `rate` a second. A request of many judgements is taken where
    one is left, and what it lacks is waited for by the next."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic):
        self._rate, self._clock = rate, clock
        self._buckets: dict[int, _Bucket] = {}

    def take(self, token: int, count: int = 1) -> None:
        """Take so many of a token's. Raises Denied (429)."""
        at = self._clock()
        bucket = self._buckets.setdefault(token, _Bucket(2 * self._rate, at))
        bucket.level = min(2 * self._rate, bucket.level + (at - bucket.at) * self._rate)
        bucket.at = at
        if bucket.level < 1:
            seconds = ceil((1 - bucket.level) / self._rate)
            told = f"more than {self._rate:g} a second for this token; go on in {seconds} s"
            raise Denied(429, "too_many", told, {"Retry-After": str(seconds)})
        self.pay(token, count)

    def pay(self, token: int, count: int) -> None:
        """Take what was found to be in a request that was let in."""
        self._buckets[token].level -= count


class Gate:
    """The ASGI application that lets requests through to another; the grant is `request.state.grant`."""

    def __init__(self, app: ASGIApp, known: Grants, rates: Rates, most_bytes: int):
        self._app, self._known, self._rates, self._most = app, known, rates, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] != "http" or _OPEN.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            grant = await self._grant(headers)
            self._rates.take(grant.token)
            body = await self._body(headers, receive)
        except Denied as denied:
            answer = denied.answer()
            if scope["method"] != "GET":
                answer.headers["Connection"] = "close"  # what is left of the body is not waited for
            await answer(scope, receive, send)
            return
        scope.setdefault("state", {})["grant"] = grant
        await self._app(scope, _replay(body, receive), send)

    async def _grant(self, headers: dict[bytes, bytes]) -> Grant:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        grant = await self._known.of(token.strip()) if scheme.lower() == "bearer" and token else None
        if grant is None:
            told = "no token that is known: send `Authorization: Bearer TOKEN`; `gristmill feedback token` makes one"
            raise Denied(401, "no_token", told, {"WWW-Authenticate": "Bearer"})
        return grant

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, of which no more is read than the limit."""
        if int(headers.get(b"content-length", b"0")) > self._most:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Denied(400, "cut_off", "the connection ended within the body")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._most:
                        raise self._too_large()
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Denied(408, "too_slow", f"the body was not here within {_BODY:g} s") from None
        body = b"".join(parts)
        if body:
            _looks_like_json(headers, body)
        return body

    def _too_large(self) -> Denied:
        told = f"a body has at most {self._most:,} bytes; send judgements in smaller parts"
        return Denied(413, "too_large", told)


def printable(text: str) -> str:
    """The text with half characters of what was sent escaped: they cannot be sent back."""
    return text.encode("utf-8", "backslashreplace").decode()


def unavailable(told: str) -> Denied:
    """503, to be tried again in a second."""
    return Denied(503, "unavailable", told, {"Retry-After": "1"})


def _looks_like_json(headers: dict[bytes, bytes], body: bytes) -> None:
    """Raises Denied for another type, another encoding, and for brackets so deep that reading them would fail."""
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Denied(415, "not_json", "the body is JSON: send `Content-Type: application/json`")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Denied(400, "bad_json", f"the body is not UTF-8 at byte {error.start:,}") from None
    if depth(body) > _DEEP:
        raise Denied(400, "too_deep", f"JSON with more than {_DEEP} levels")


def depth(body: bytes) -> int:
    """How many brackets of JSON are open at most at the same time."""
    open_now = most = 0
    for bracket in _NO_BRACKETS.sub(b"", body):
        open_now += 1 if bracket in b"[{" else -1
        most = max(most, open_now)
    return most


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hands on a body that was read, and after it what comes from the client."""
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
