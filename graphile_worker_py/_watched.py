"""Watched: a connection that waits for no answer for ever.

TCP notices a peer that is gone (see settings() in _conninfo). Nothing but a clock notices one that takes what it is
sent and does not answer: a table that somebody has locked, a proxy or a disk that hangs. PostgreSQL's own
statement_timeout would have to be set on the session, which a pooler in transaction mode does not keep, and its
cancellation would have to come through the network that has failed. So the clock is here: what takes too long is
cancelled, and a server that does not even answer that has its socket closed.

Time is counted from the last sign of life, so that much data over a slow line is no reason to give up.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import capabilities
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from graphile_worker_py.errors import JobCancelled, JobTimeout

T = TypeVar("T")

TO_CANCEL = 1.0  # seconds that the request to cancel may take
TO_CONFIRM = 1.0  # seconds until the server must then have answered
LAST_ANSWER = 3.0  # seconds for each answer, in a thread that was told to end


class Hurry:
    """Since when a thread is in a hurry, by time.monotonic(); any thread may set it."""

    since = math.inf

    def begin(self) -> None:
        """From now on each answer is waited for LAST_ANSWER seconds at most, the one that is due too."""
        self.since = min(self.since, time.monotonic())


_thread = threading.local()


@contextmanager
def hurried(hurry: Hurry | None = None) -> Iterator[None]:
    """Let `hurry` hold for what this thread does in the block; none given: it is in a hurry at once."""
    before = getattr(_thread, "hurry", None)
    if hurry is None:
        hurry = Hurry()
        hurry.begin()
    _thread.hurry = hurry
    try:
        yield
    finally:
        _thread.hurry = before


def in_a_hurry() -> bool:
    """Say whether this thread was told to end."""
    hurry: Hurry | None = getattr(_thread, "hurry", None)
    return hurry is not None and hurry.since < math.inf


class Watched(psycopg.Connection[Any]):
    """A connection on which `patience` seconds without an answer are an error: QueryCanceled, or OperationalError.

    `silent` says that no answer came even to the cancellation: others to the same server may be as dead.
    """

    patience = math.inf
    opened_at = 0.0  # by time.monotonic()
    retires_at = math.inf  # the same
    overdue = False
    silent = False

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Do what psycopg does, and look at the clock meanwhile."""
        try:
            return super().wait(self._watched(gen), *args, **options)
        except (JobTimeout, JobCancelled):  # raised by another thread, in the middle of what a handler asked for
            self._leave()
            raise
        except psycopg.errors.QueryCanceled as error:
            if not self.overdue:
                raise
            raise psycopg.errors.QueryCanceled("there was no answer in time, so the statement was cancelled") from error

    def _watched(self, gen: PQGen[T]) -> PQGen[T]:
        """Pass on what the generator wants to wait for, and after every glance without news see whether it is late."""
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif self.closed:  # libpq has let go of the socket: nothing comes any more (a pipeline waited on, seen)
                    raise psycopg.OperationalError("the connection was lost")
                elif self._is_late(heard):
                    self._give_up()
                    heard = time.monotonic()
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _leave(self) -> None:
        """End a statement that nobody waits for any more, and the connection, whose next answer would be that one's."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                if capabilities.has_cancel_safe():
                    self.cancel_safe(timeout=TO_CANCEL)
            self.pgconn.finish()

    def _is_late(self, heard: float) -> bool:
        now = time.monotonic()
        if self.overdue:
            return now > heard + TO_CONFIRM
        ends = heard + self.patience
        hurry: Hurry | None = getattr(_thread, "hurry", None)
        if hurry is not None:
            ends = min(ends, max(heard, hurry.since) + LAST_ANSWER)
        return now > ends

    def _give_up(self) -> None:
        """Cancel the statement; where that gets no answer either, close the socket and raise OperationalError."""
        if not self.overdue and capabilities.has_cancel_safe():  # the older request to cancel may itself never end
            self.overdue = True
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=TO_CANCEL)
                return
        self.overdue = self.silent = True
        self.pgconn.finish()
        raise psycopg.OperationalError("the server does not answer any more, so the connection was closed")


class _Hush(logging.Filter):
    """Drop what psycopg warns of when a pipeline or a transaction is ended by the loss of a connection of ours.

    The loss itself is raised, and told by whoever tries again.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        about = record.args[0] if isinstance(record.args, tuple) and record.args else None
        connection = getattr(about, "_conn", about)
        return not (isinstance(connection, Watched) and connection.closed)


logging.getLogger("psycopg").addFilter(_Hush())
