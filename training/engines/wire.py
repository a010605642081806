"""JSON over HTTP with the standard library: many requests at once, kept connections, retries, and an end to waiting.

The laws: a request ends within `timeout` seconds, however the server drips; an answer that says "later" (429, 5xx), no
answer, a cut one or one that is no JSON is asked for again, with waits that double, are drawn (so that many clients do
not come back at once) and are never shorter than the server's Retry-After; when all tries are used up that is an
OSError, and so never a reply. The key is sent to the one host and shown to nobody. Not covered: proxies and redirects
(a redirect could carry the key elsewhere).
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import random
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from gristmill.dataops.dataset import InputError

T = TypeVar("T")
R = TypeVar("R")

MOST_BYTES = 64 * 2**20  # of one answer; more is a broken server, and would fill the memory
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds


@dataclass(frozen=True)
class Answer:
    """What a server said for good: its status, below 500 and not 408 or 429, and its JSON (a text, if it is none)."""

    status: int
    data: Any

    @property
    def message(self) -> str:
        """The error in it, as the forms of OpenAI, vLLM and FastAPI have it."""
        data = self.data
        for name in ("error", "message", "detail"):
            if isinstance(data, dict) and name in data:
                data = data[name]
        return str(data)[:500]


class _Again(Exception):
    """This try came to nothing; `after` seconds are to pass, by the server's word."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class _Ended(Exception):
    """Another request has failed for good, or the caller was interrupted."""


class Wire:
    """Connections to one server, for up to `concurrent` requests at a time; `tries` tries each, of `timeout` seconds.

    `url` is http or https, with the path before `/v1` if there is one; `key_env` names the environment variable that
    holds the key. Raises InputError for an address that cannot be one, and for a key that is not there.
    """

    def __init__(
        self, url: str, key_env: str | None = None, *, concurrent: int = 16, timeout: float = 600.0, tries: int = 8
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if any(letter <= " " for letter in url):
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
            raise InputError(f"{url!r} is no address of a server; write http://HOST:PORT or https://HOST")
        if "@" in parts.netloc:
            raise InputError("an address holds no password: name the key's environment variable instead")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"
        self._host, self._port, self._path = parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._key = _key(key_env)
        self.concurrent, self.timeout, self.tries = concurrent, timeout, tries
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: dict[http.client.HTTPConnection, socket.socket | None] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def ask(self, path: str, body: Any = None, *, read: Callable[[Any], Any] | None = None) -> Answer:
        """POST `body` as JSON (GET without one). `read` turns the JSON of a 200 into what the caller wants, and raises
        ValueError, TypeError, KeyError or IndexError for what is broken. Raises OSError after the last try."""
        data = None if body is None else json.dumps(body).encode()
        wait_s, started, most = FIRST_WAIT, time.monotonic(), self.tries
        for n in range(most):
            if self._ended.is_set():
                raise _Ended
            try:
                answer = self._once(path, data)
                if answer.status != 200 or read is None:
                    return answer
                try:
                    return Answer(200, read(answer.data))
                except (ValueError, TypeError, KeyError, IndexError) as error:
                    raise _Again(f"an answer that is not of the protocol ({type(error).__name__}: {error})") from None
            except _Again as failed:
                last, after = str(failed), failed.after
            if n + 1 < most:
                # Drawn between half and all of it; it decides when, and never what, so it has no seed.
                self._ended.wait(max(after, wait_s * random.uniform(0.5, 1.0)))
                wait_s = min(2 * wait_s, LONGEST_WAIT)
        spent = time.monotonic() - started
        raise ConnectionError(f"{self.url}{path}: no answer in {most} tries and {spent:.0f} s, at last: {last}")

    def each(self, call: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`call` of each item, many at a time, in order. The first that raises ends all others, and is raised; so does
        an interruption from outside, at once."""
        if not items:
            return []
        self._ended.clear()
        pool = ThreadPoolExecutor(min(self.concurrent, len(items)), thread_name_prefix="engine")
        futures = [pool.submit(call, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done() and not isinstance(future.exception(), _Ended | None):
                    raise future.exception()  # type: ignore[misc]
            return [future.result() for future in futures]
        finally:
            self._ended.set()
            for future in futures:
                future.cancel()
            with self._lock:
                for connection in self._busy:
                    self._cut(connection)
            pool.shutdown()
            self._ended.clear()

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _once(self, path: str, data: bytes | None) -> Answer:
        """One try. A kept connection that the server has closed meanwhile is replaced without counting."""
        while True:
            with self._connection() as (connection, kept):
                late = threading.Event()
                watch = threading.Timer(self.timeout, self._expire, (late, connection))
                watch.daemon = True
                watch.start()
                sent = False
                try:
                    self._connect(connection)
                    connection.request("GET" if data is None else "POST", f"{self._path}{path}", data, self._headers())
                    response = connection.getresponse()
                    sent = True
                    raw = _read(response)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    connection.close()
                    if self._ended.is_set():
                        raise _Ended from None
                    if late.is_set():
                        raise _Again(f"not answered within {self.timeout:g} s") from None
                    if kept and not sent and isinstance(error, ConnectionError):
                        continue
                    raise _Again(self._shown(f"{type(error).__name__}: {error}")) from None
                finally:
                    watch.cancel()
                if response.will_close:
                    connection.close()
            return self._told(response, raw)

    def _told(self, response: http.client.HTTPResponse, raw: bytes) -> Answer:
        status = response.status
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            if status == 200:
                raise _Again(f"an answer that is no JSON: {raw[:80]!r}") from None
            data = raw[:500].decode("utf-8", "replace")
        answer = Answer(status, data)
        if status in (408, 429) or status >= 500:
            raise _Again(self._shown(f"status {status}: {answer.message}"), _after(response.getheader("Retry-After")))
        if status in (401, 403):
            raise InputError(
                f"{self.url}: status {status}: {self._shown(answer.message)}: put a key that is good there into the "
                "environment variable that `key_env` names"
            )
        if 300 <= status < 400:
            raise InputError(f"{self.url}: status {status}, a redirect: give the address that it leads to")
        return answer if status == 200 else Answer(status, self._shown(answer.message))

    @contextlib.contextmanager
    def _connection(self) -> Iterator[tuple[http.client.HTTPConnection, bool]]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            kept = connection is not None
            if connection is None:
                near = min(self.timeout, 10.0)  # to connect; the rest is held by the watch
                connection = (
                    http.client.HTTPConnection(self._host, self._port, timeout=near)
                    if self._tls is None
                    else http.client.HTTPSConnection(self._host, self._port, timeout=near, context=self._tls)
                )
            self._busy[connection] = None
        try:
            yield connection, kept
        finally:
            with self._lock:
                del self._busy[connection]
                if connection.sock is not None:
                    self._idle.append(connection)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        if connection.sock is None:
            connection.connect()
        with self._lock:
            self._busy[connection] = connection.sock
        if connection.sock is None or self._ended.is_set():  # from here on `_cut` finds the socket
            raise ConnectionAbortedError
        connection.sock.settimeout(self.timeout)

    def _cut(self, connection: http.client.HTTPConnection) -> None:
        """Wake the thread that reads from a connection: it sees its end. Past TLS, which is not for two threads."""
        sock = self._busy.get(connection)
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _expire(self, late: threading.Event, connection: http.client.HTTPConnection) -> None:
        late.set()
        with self._lock:
            self._cut(connection)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "gristmill"}
        return headers if self._key is None else headers | {"Authorization": f"Bearer {self._key}"}

    def _shown(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")


def _read(response: http.client.HTTPResponse) -> bytes:
    parts, size = [], 0
    while part := response.read1(2**20):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise ValueError(f"an answer of more than {MOST_BYTES >> 20} MiB")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    response.close()  # read1 leaves it open at its end, and the connection could not be used again
    return b"".join(parts)


def _after(told: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date; at most ten minutes are believed."""
    if told is None:
        return 0.0
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), 600.0) if seconds == seconds else 0.0


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(f"the environment variable {name} holds no key; `key_env` names it")
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"what the environment variable {name} holds cannot be sent as a key")
    return key
