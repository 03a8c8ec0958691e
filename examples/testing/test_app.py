"""Tests of app.py, as its author would write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import app
import psycopg
import pytest

from graphile_worker_py import Queue
from graphile_worker_py.testing import AssertEnqueued, Drain, Enqueued

Connection = psycopg.Connection[Any]


def letters(connection: Connection) -> list[str]:
    return [text for (text,) in connection.execute("select text from letters")]


def test_who_signs_up_is_to_be_welcomed(connection: Connection, assert_enqueued: AssertEnqueued) -> None:
    app.sign_up(connection, "ann@example.org")
    job = assert_enqueued(app.welcome, reader="ann@example.org")
    assert job.max_attempts == 25


def test_who_is_known_is_not_welcomed_twice(connection: Connection, enqueued: Enqueued) -> None:
    app.sign_up(connection, "ann@example.org")
    with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
        app.sign_up(connection, "ann@example.org")
    assert len(enqueued(app.welcome)) == 1


def test_a_reader_gets_two_letters(connection: Connection, drain: Drain, enqueued: Enqueued) -> None:
    app.sign_up(connection, "ann@example.org")
    assert drain().tasks == ["welcome"]
    assert letters(connection) == ["Welcome!"]
    assert drain(within=timedelta(days=6)).tasks == []
    assert drain(within=timedelta(days=8)).tasks == ["ask"]
    assert letters(connection) == ["Welcome!", "How is it?"]
    assert not enqueued(app.ask)


def test_who_is_gone_gets_no_more(connection: Connection, drain: Drain, graphile_worker: Queue) -> None:
    app.sign_up(connection, "ann@example.org")
    drain()
    connection.execute("update readers set gone = true")
    with pytest.raises(LookupError, match="gone"):
        drain(within=timedelta(days=8))
    failures = drain(within=timedelta(days=8), raise_errors=False).failed
    assert [failure.final for failure in failures] == [False, True]
    assert [job.state for job in graphile_worker.jobs()] == ["failed"]
