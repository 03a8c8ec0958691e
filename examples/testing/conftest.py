"""Every test is a transaction that is rolled back, with the application's tables and its queue in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import app
import psycopg
import pytest

from graphile_worker_py import Queue

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(graphile_worker_database: str) -> Iterator[Connection]:
    """Return the test's connection, which never commits."""
    with psycopg.connect(graphile_worker_database) as connection:
        connection.execute(app.TABLES.encode())
        yield connection
        connection.rollback()


@pytest.fixture
def graphile_worker_connection(connection: Connection) -> Connection:
    """Put the queue into the transaction of the test."""
    return connection


@pytest.fixture
def graphile_worker_queue() -> Queue:
    """Use the application's queue, wherever it connects to otherwise."""
    return app.queue
