"""One thread that writes what requests ask for, several at a time.

The idea: a commit waits for the disk, so what came in while one was under way goes into the next together. Where fewer
are there than last time it waits for the others, at most half as long as the last commit took: four raters who wait for
their answers share one commit then, and not two of two. The laws: whoever asked is answered after the commit of their
own work, never before; work that fails by itself is tried alone, so it never takes its neighbours with it; what was
accepted is written before the thread ends.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

LOG = logging.getLogger("gristmill.service")
_GROUP = 100  # things in one transaction: at 0.3 ms each what comes next waits 30 ms
_PATIENCE = 0.01  # seconds
_WAITING = 4_000  # things that may wait: at 1,000 a second the last of them waits 4 s


class Unavailable(Exception):
    """It could not be written now: too much waits, the database does not answer, or the service ends."""


@dataclass(frozen=True)
class _Work:
    kind: str
    things: Sequence[Any]
    answer: asyncio.Future[list[Any]]


class Writer:
    """The thread; `kinds` says how a list of things of each kind is written, and answers one for one."""

    def __init__(self, kinds: Mapping[str, Callable[[list[Any]], Sequence[Any]]]):
        self._kinds = kinds
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._waiting = 0  # counted in the event loop alone
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="feedback-writer")
        self._thread.start()

    async def write(self, kind: str, things: Sequence[Any]) -> list[Any]:
        """The answers to these things, once they are on the disk. Raises Unavailable."""
        if self._ending:
            raise Unavailable("the service ends; send it again")
        if self._waiting + len(things) > _WAITING:
            raise Unavailable("too much waits to be written; send it again")
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting += len(things)
        self._queue.put(_Work(kind, things, answer))
        try:
            return await asyncio.shield(answer)
        finally:
            self._waiting -= len(things)

    async def end(self) -> None:
        """Write what was accepted, and end the thread."""
        self._ending = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        expected, patience, ends = 1, 0.0, False
        while not ends and (work := self._queue.get()) is not None:
            group, ends = self._gather(work, expected, patience)
            begun = time.monotonic()
            for kind in self._kinds:
                if mine := [one for one in group if one.kind == kind]:
                    self._write(mine)
            expected = len(group) + self._queue.qsize()  # who was answered, and who came meanwhile
            patience = min(_PATIENCE, (time.monotonic() - begun) / 2)

    def _gather(self, first: _Work, expected: int, patience: float) -> tuple[list[_Work], bool]:
        """Works to write together, and whether the end was asked for behind them: all that wait, and for a moment those
        that are expected, since whoever was just answered sends the next soon."""
        group, size, until = [first], len(first.things), time.monotonic() + patience
        while size < _GROUP:
            try:
                wait = until - time.monotonic()
                more = self._queue.get(len(group) < expected and wait > 0, max(wait, 0))
            except queue.Empty:
                break
            if more is None:
                return group, True
            group.append(more)
            size += len(more.things)
        return group, False

    def _write(self, group: list[_Work]) -> None:
        """Write works of one kind together; where that fails, each by itself."""
        try:
            answers = self._try(group[0].kind, [thing for work in group for thing in work.things])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, Unavailable):
                for work in group:
                    self._write([work])
                return
            LOG.error("could not write %d of kind %s", len(group), group[0].kind, exc_info=error)
            _deliver([(work.answer, error) for work in group])
            return
        done: list[tuple[asyncio.Future[list[Any]], Any]] = []
        start = 0
        for work in group:
            done.append((work.answer, answers[start : start + len(work.things)]))
            start += len(work.things)
        _deliver(done)

    def _try(self, kind: str, things: list[Any]) -> Sequence[Any]:
        """Twice where the database failed: a deadlock, or a connection that it closed, is over by then."""
        try:
            return self._kinds[kind](things)
        except sql.exc.OperationalError as first:
            LOG.warning("the database failed, once more: %s", first.orig)
        try:
            return self._kinds[kind](things)
        except sql.exc.OperationalError as error:
            raise Unavailable("the database does not take it now; send it again") from error


def _deliver(done: list[tuple[asyncio.Future[list[Any]], Any]]) -> None:
    """Hand answers or errors to those who wait in the event loop, in one go."""

    def resolve() -> None:
        for answer, found in done:
            if not answer.done():
                if isinstance(found, Exception):
                    answer.set_exception(found)
                else:
                    answer.set_result(found)

    done[0][0].get_loop().call_soon_threadsafe(resolve)
