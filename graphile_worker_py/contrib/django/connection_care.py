"""Django's connections in threads that run handlers: looked after around each job, as Django does around a request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import psycopg
from django.db import connections, reset_queries
from psycopg import capabilities
from psycopg.pq import TransactionStatus

from graphile_worker_py._grip import INTERRUPTS, shielded
from graphile_worker_py.tasks import Around

TO_CANCEL = 1.0  # seconds that the request to cancel a statement may take

logger = logging.getLogger(__name__)


def cared_for(around: Around | None) -> Around:
    """Return what is to be entered around each job: this care, and in it what was asked for besides."""

    @contextmanager
    def cared(context: Any) -> Iterator[None]:
        inner: AbstractContextManager[object] = nullcontext() if around is None else around(context)
        with fresh_connections(), inner:
            yield

    return cared


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Close what this thread has of connections that are broken, or older than CONN_MAX_AGE, before and after.

    Those as well that are left in the middle of something, for the next job would be in it; with an atomic block that
    never ends Django would even keep the closed connection, and every later job of the thread fail.
    """
    reset_queries()
    callers = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
    _let_go(callers)
    try:
        yield
    finally:
        try:
            with shielded:
                _let_go(callers)
        except INTERRUPTS:  # it came before it was kept off, and no second one does
            _let_go(callers)
            raise


@contextmanager
def closed_again() -> Iterator[None]:
    """Close the connections of this thread that the block has opened."""
    before = [connection for connection in connections.all(initialized_only=True) if connection.connection is not None]
    try:
        yield
    finally:
        for connection in connections.all(initialized_only=True):
            if connection not in before:
                connection.close()


def _let_go(callers: list[Any]) -> None:
    """Close what is not to be used again, but nothing that was in an atomic block before."""
    for connection in connections.all(initialized_only=True):
        if connection in callers:
            continue
        if _is_amid(connection):
            _close(connection)
        connection.close_if_unusable_or_obsolete()


def _is_amid(connection: Any) -> bool:
    """Say whether it is in an atomic block, which Django takes for somebody's, or in what only the driver knows of."""
    driver = connection.connection
    if connection.in_atomic_block or driver is None or connection.vendor != "postgresql":
        return bool(connection.in_atomic_block)
    return driver.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)


def _close(connection: Any) -> None:
    """End what it is in, also on the server; the next use connects, and Django then begins all its counts anew."""
    logger.warning("a handler has left a transaction or a statement unfinished on %r: it is undone", connection.alias)
    driver = connection.connection
    if isinstance(driver, psycopg.Connection) and driver.info.transaction_status == TransactionStatus.ACTIVE:
        with suppress(psycopg.Error):
            if capabilities.has_cancel_safe():
                driver.cancel_safe(timeout=TO_CANCEL)
    connection.in_atomic_block = connection.closed_in_transaction = False  # or close() would keep it as it is
    connection.close()
