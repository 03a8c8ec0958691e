"""Server and Connections: how to connect, and the few connections that a Queue keeps.

psycopg_pool opens connections in threads of its own, tries again in intervals that double, and logs each failure; so
after an outage nobody knew when there would be one, a claim waited for up to ten seconds, and one restart of the
server wrote a dozen lines. Here who needs a connection opens it, in its own thread: a failure has its reason at once,
and the first to succeed is not held up. There are no threads of its own, which also makes a fork harmless.

Those who wait are served in their order. What is handed on is a connection, or the place of one that was closed: the
right to open another.
"""

from __future__ import annotations

import math
import os
import queue
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from graphile_worker_py._conninfo import check_conninfo, connect, settings
from graphile_worker_py._watched import Watched, in_a_hurry
from graphile_worker_py.errors import InvalidConninfo

LONGEST_IDLE = 600.0  # seconds, for all above min_size


class Connections:
    """At most `max_size` connections, from `connect`; none is lent that was opened `max_lifetime` seconds ago."""

    def __init__(self, connect: Callable[[], Watched], *, min_size: int, max_size: int, max_lifetime: float) -> None:
        self._connect = connect
        self._min_size = min_size
        self._max_size = max(min_size, max_size)
        self._max_lifetime = max_lifetime
        self._lock = threading.Lock()
        self._idle: deque[tuple[Watched, float]] = deque()  # and since when; the last is the next to be lent
        self._waiting: deque[queue.SimpleQueue[Watched | None]] = deque()
        self._places = 0  # taken, by idle connections or by lent ones
        self._expired_at = 0.0
        self._closed = False

    def getconn(self, timeout: float) -> Watched:
        """Lend a connection that is alive. Raises PoolTimeout where none is free, and what connecting raises."""
        connection = self._place(timeout)
        while connection is not None and self._is_spent(connection):
            connection.close()
            with self._lock:
                connection = self._idle.pop()[0] if self._idle else None
                self._places -= connection is not None  # two places are one now
        return connection or self._opened()

    def putconn(self, connection: Watched) -> None:
        """Take a connection back; it is closed if it is of no more use."""
        if not self._is_of_use(connection):
            connection.close()
        self._hand_on(None if connection.closed else connection)

    def expire(self) -> None:
        """Lend none of the present connections again."""
        with self._lock:
            self._expired_at = time.monotonic()
            idle = self._taken_out(len(self._idle))
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._closed = True
        self.expire()

    def _place(self, timeout: float) -> Watched | None:
        """Take a place: with an idle connection, or with the right to open one (None)."""
        with self._lock:
            if self._idle:
                return self._idle.pop()[0]
            if self._places < self._max_size:
                self._places += 1
                return None
            waiter: queue.SimpleQueue[Watched | None] = queue.SimpleQueue()
            self._waiting.append(waiter)
        try:
            return waiter.get(timeout=max(0.0, timeout))
        except queue.Empty:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    raise PoolTimeout(
                        f"all {self._max_size} connections were in use for {timeout:.1f} s: raise max_size"
                    ) from None
        return waiter.get()  # it came just now

    def _opened(self) -> Watched:
        try:
            connection = self._connect()
        except BaseException:
            self._hand_on(None)
            raise
        lifetime = self._max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - that not all are opened anew at once
        connection.retires_at = connection.opened_at + lifetime
        return connection

    def _hand_on(self, connection: Watched | None) -> None:
        """Give a place to whoever has waited longest; if nobody has, keep the connection, or free the place."""
        surplus: list[Watched] = []
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(connection)
            elif connection is None:
                self._places -= 1
            else:
                now = time.monotonic()
                self._idle.append((connection, now))
                if len(self._idle) > self._min_size and self._idle[0][1] < now - LONGEST_IDLE:
                    surplus = self._taken_out(1)
        for one in surplus:
            one.close()

    def _taken_out(self, count: int) -> list[Watched]:
        """Take the connections that have been idle for longest, and their places; call it with the lock."""
        self._places -= count
        return [self._idle.popleft()[0] for _ in range(count)]

    def _is_of_use(self, connection: Watched) -> bool:
        return not (
            self._closed
            or connection.closed
            or connection.overdue
            or connection.opened_at <= self._expired_at
            or connection.pgconn.transaction_status != TransactionStatus.IDLE
            or connection.pgconn.pipeline_status != PipelineStatus.OFF
        )

    def _is_spent(self, connection: Watched) -> bool:
        return time.monotonic() > connection.retires_at or connection.closed or is_stale(connection)


class Server:
    """How to reach a server: by a conninfo, as a pool that was given does, or (None) as the environment says.

    patience: seconds that a statement may be without an answer, None for ever.
    """

    def __init__(
        self,
        source: str | ConnectionPool[Any] | None,
        *,
        connect_timeout: float,
        patience: float | None,
        prepares: bool,
    ) -> None:
        if source is not None and not isinstance(source, (str, ConnectionPool)):
            raise InvalidConninfo(
                f"expected a conninfo str, a psycopg_pool.ConnectionPool or None, got {type(source).__name__}"
            )
        self.source = check_conninfo(source) if isinstance(source, str) else source
        self.prepares = prepares
        self._connect_timeout = connect_timeout
        self._patience = math.inf if patience is None else patience

    def connect(self) -> Watched:
        """Open a connection, in autocommit."""
        source = self.source
        if not isinstance(source, ConnectionPool):
            return self.connect_to(check_conninfo(os.environ.get("DATABASE_URL", "")) if source is None else source)
        target: Any = source.conninfo() if callable(source.conninfo) else source.conninfo
        keywords: Any = source.kwargs() if callable(source.kwargs) else source.kwargs or {}
        kind: type[Watched] = type("Watched", (Watched, source.connection_class), {})
        return self._looked_after(kind.connect(target, **{**keywords, "autocommit": True}))

    def connect_to(self, conninfo: str) -> Watched:
        """Open a connection to this one, in autocommit."""
        keywords = settings(conninfo, connect_timeout=0 if in_a_hurry() else self._connect_timeout)  # 0: the least
        keywords |= {"autocommit": True, "prepare_threshold": 5 if self.prepares else None}
        return self._looked_after(connect(Watched, conninfo, **keywords))

    def _looked_after(self, connection: Watched) -> Watched:
        connection.opened_at = time.monotonic()
        connection.patience = self._patience
        return connection


def is_stale(connection: psycopg.Connection[Any]) -> bool:
    """Say whether an idle connection has something to read: the server has hung up, or is about to."""
    waiting = select.poll()  # select.select() cannot watch a descriptor past 1023
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


@contextmanager
def settled(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Commit what the block did, or roll it back; psycopg's own `with` would also close the connection."""
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):  # a broken connection has nothing to roll back
            connection.rollback()
        raise
    connection.commit()
