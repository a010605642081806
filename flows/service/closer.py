"""A thread that closes batches while others judge.

It is woken when judgements were written and looks whether a threshold was reached, and every so often without being
woken, for batches that are due by time, those that a crash left frozen, and events that were not sent. The laws: one
closing at a time in this process (two processes may: see dataops/feedback/batches.py); nobody who judges waits for it;
one that fails is logged and tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sql

from gristmill.dataops.feedback.batches import due
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.tables import QUEUES

LOG = logging.getLogger("gristmill.service")
_PAUSE = 0.25  # seconds between two looks, however much is judged
_AFTER_FAILURE = 5.0  # seconds
_END = 10.0  # seconds that a closing under way is waited for: what it leaves is finished at the next start


class Closer:
    """The thread; `closing` closes what is due, `every` is in seconds. `failed` says why the last closing did not
    work, None where it did."""

    def __init__(self, db: Database, closing: Callable[[], Any], every: float):
        self._db, self._closing, self._every = db, closing, every
        self._woken, self._ending = threading.Event(), threading.Event()
        self.failed: str | None = None
        self._thread = threading.Thread(target=self._run, name="feedback-closer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was judged."""
        self._woken.set()

    def end(self) -> None:
        """End the thread; a closing under way is waited for, but not for ever."""
        self._ending.set()
        self._woken.set()
        self._thread.join(_END)

    def _run(self) -> None:
        woken = False  # at the start it closes what a crash left
        while not self._ending.is_set():
            try:
                if not woken or self._due():
                    self._closing()
                    self.failed = None
            except Exception as error:  # of the disk, the database or Prefect: the next time it may work
                LOG.error("could not close what is due", exc_info=error)
                self.failed = f"{type(error).__name__}: {error}"
            self._ending.wait(_PAUSE if self.failed is None else min(self._every, _AFTER_FAILURE))
            woken = self._woken.wait(self._every) and self.failed is None
            self._woken.clear()

    def _due(self) -> bool:
        with self._db.read() as connection:
            names = connection.execute(sql.select(QUEUES.c.name)).scalars().all()
        return any(due(self._db, name) is not None for name in names)
