"""How the tests of the schema call its functions: in plain SQL, argument by argument, as any other client would."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

ARGUMENTS = {
    "identifier": "text",
    "payload": "json",
    "queue_name": "text",
    "run_at": "timestamptz",
    "max_attempts": "integer",
    "job_key": "text",
    "priority": "integer",
    "flags": "text[]",
    "job_key_mode": "text",
    "job_ids": "bigint[]",
    "error_message": "text",
    "attempts": "integer",
    "worker_ids": "text[]",
}
SPEC = ["identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "priority", "flags"]

# What a job may be changed to.
LOCKED = "locked_at = now(), locked_by = 'w', attempts = 1"
LOCKED_LONG_AGO = "locked_at = now() - interval '4 hours 1 second', locked_by = 'w', attempts = 1"
LOCKED_A_WHILE_AGO = "locked_at = now() - interval '3 hours 59 minutes', locked_by = 'w', attempts = 1"
DEAD = "attempts = max_attempts, last_error = 'no'"


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True, row_factory=dict_row)


def call(db: Connection, function: str, **arguments: Any) -> list[Row]:
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}::" + ARGUMENTS[name]).format(sql.Identifier(name), sql.Placeholder(name))
        for name in arguments
    )
    query = sql.SQL("select * from graphile_worker.{}({})").format(sql.Identifier(function), named)
    return db.execute(query, arguments).fetchall()


def add(db: Connection, identifier: str | None = "task", **arguments: Any) -> Row:
    (job,) = call(db, "add_job", identifier=identifier, **arguments)
    return job


def add_jobs(db: Connection, *specs: Row, preserve: bool | None = False) -> list[Row]:
    rows = [[{"identifier": "task", **spec}.get(name) for name in SPEC] for spec in specs]
    row = "row(%s, %s::json, %s, %s::timestamptz, %s, %s, %s, %s::text[])::graphile_worker.job_spec"
    array = "array[" + ", ".join([row] * len(rows)) + "]::graphile_worker.job_spec[]"
    query = f"select * from graphile_worker.add_jobs({array}, %s::boolean)"  # noqa: S608
    return db.execute(query, [*(value for values in rows for value in values), preserve]).fetchall()


def change(db: Connection, job: Row, what: str) -> Row:
    """Rewrite columns of a job; return it as it is now."""
    query = f"update graphile_worker._private_jobs set {what} where id = %s returning *"  # noqa: S608
    return db.execute(query, [job["id"]]).fetchone()


def stored(db: Connection, job: Row) -> Row | None:
    return db.execute("select * from graphile_worker._private_jobs where id = %s", [job["id"]]).fetchone()


def counts(payloads: list[Any]) -> list[Any]:
    return [payload and payload["count"] for payload in payloads]


def eventually(condition: Callable[[], Any], *, seconds: float = 30, every: float = 0.005) -> None:
    """Return when a condition that can be observed has come true; fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(every)


def blocked(observer: Connection, pid: int) -> bool:
    """Return whether a server process waits for a lock."""
    row = observer.execute("select cardinality(pg_blocking_pids(%s)) > 0 as blocked", [pid]).fetchone()
    return bool(row and row["blocked"])


class Ear:
    """A connection that listens. What it heard is read up to a mark of its own, so silence takes no waiting for."""

    def __init__(self, url: str, channel: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        self._connection.execute("listen mark")

    def heard(self) -> list[Any]:
        """Return the payloads since the last time, decoded from JSON unless empty."""
        self._connection.execute("notify mark")
        found: list[Any] = []
        for notification in self._connection.notifies(timeout=30):
            if notification.channel == "mark":
                return found
            found.append(notification.payload and json.loads(notification.payload))
        raise AssertionError("the mark was never heard")

    def __enter__(self) -> Ear:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
