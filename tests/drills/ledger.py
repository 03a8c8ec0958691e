"""The ledger: what was added, attempted and done, on a server that nothing is done to, by that server's clock.

A producer writes down what it is about to add, in what order, and what came of it; a handler, when an attempt begins
and when it has had its effect. So what a killed process did stays known up to its last statement.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import psycopg
from psycopg.rows import class_row

from graphile_worker_py import Job

SCHEMA = """
create table adds (
    n bigint generated always as identity primary key,
    producer text not null,
    queue text,
    replaces bigint,
    due_in float8 not null,
    intended_at float8 not null default extract(epoch from clock_timestamp()),
    outcome text,
    settled_at float8
);
create table attempts (
    id bigint generated always as identity primary key,
    n bigint not null,
    job bigint not null,
    number integer not null,
    last_error text,
    worker text not null,
    began float8 not null default extract(epoch from clock_timestamp()),
    ended float8,
    result text
);
create index on attempts (n);
create index on attempts (ended);
create table losses (
    n bigint not null,
    worker text not null,
    at float8 not null default extract(epoch from clock_timestamp())
);
create table pools (worker text not null, holder text not null);
"""

BEGIN = """insert into attempts (n, job, number, last_error, worker) values (%s, %s, %s, %s, %s)
returning id, (select count(*) from attempts a where a.n = attempts.n), (
    select count(*) from attempts a where a.n = attempts.n and a.result = 'failed')"""
END = "update attempts set ended = extract(epoch from clock_timestamp()), result = %s where id = %s"
INTEND = """insert into adds (producer, queue, replaces, due_in)
select %s, queue, replaces, due_in
from unnest(%s::text[], %s::bigint[], %s::float8[]) with ordinality as a (queue, replaces, due_in, place)
order by place returning n"""
SETTLE = "update adds set outcome = %s, settled_at = extract(epoch from clock_timestamp()) where n = any (%s)"

# What must still be done: added for certain, not replaced for all we know, and not done.
OWED = """select count(*) from adds a where a.outcome = 'committed'
    and not exists (select from attempts t where t.n = a.n and t.result = 'done')
    and not exists (select from adds r where r.replaces = a.n and r.outcome <> 'rolled back')"""


@attrs.frozen(kw_only=True)
class Add:
    """A job that was to be added. outcome: committed, rolled back, or unknown where no answer came."""

    n: int
    producer: str = "producer"
    queue: str | None = None
    replaces: int | None = None
    due_in: float = 0.0
    intended_at: float = 0.0
    outcome: str | None = "committed"
    settled_at: float | None = 0.0

    @property
    def certain(self) -> bool:
        return self.outcome == "committed"


@attrs.frozen(kw_only=True)
class Attempt:
    """One call of a handler. result: done, failed, or None where its process ended first."""

    n: int
    job: int = 0
    number: int = 1
    last_error: str | None = None
    worker: str = "worker-1"
    began: float = 0.0
    ended: float | None = None
    result: str | None = None


@attrs.frozen(kw_only=True)
class Loss:
    """A worker was told that an outcome of its changed nothing."""

    n: int
    worker: str
    at: float = 0.0


class Ledger:
    """A connection to the ledger for each thread that writes in it."""

    def __init__(self, conninfo: str, writer: str) -> None:
        self._conninfo = conninfo
        self._writer = writer
        self._local = threading.local()

    def connection(self) -> psycopg.Connection[Any]:
        """Return this thread's connection."""
        connection: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=0, connect_timeout=10)
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run a query and return its rows."""
        return self.connection().execute(query.encode(), parameters).fetchall()

    def number(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """Run a query and return its one value."""
        ((value,),) = self.rows(query, parameters)
        return value

    def pool_started(self, holder: str) -> None:
        self.connection().execute("insert into pools values (%s, %s)", [self._writer, holder])

    def begin(self, n: int, job: Job) -> tuple[int, int, int]:
        """Write down that an attempt begins; return its id, and how many there were before, in all and failed ones."""
        values = [n, job.id, job.attempts, job.last_error and job.last_error[:60], self._writer]
        row: tuple[int, int, int] | None = self.connection().execute(BEGIN, values).fetchone()
        assert row is not None
        return row

    def end(self, attempt: int, result: str) -> None:
        """Write down the effect of an attempt."""
        self.connection().execute(END, [result, attempt])

    def lost(self, job: Job) -> None:
        n = job.payload["n"]
        self.connection().execute("insert into losses (n, worker) values (%s, %s)", [n, self._writer])

    def intend(self, adds: Iterable[tuple[str | None, int | None, float]]) -> list[int]:
        """Write down jobs that will be added, each by its queue, what it replaces, when due; return their numbers."""
        queues, replaces, due_in = (list(column) for column in zip(*adds, strict=True))
        found = self.connection().execute(INTEND, [self._writer, queues, replaces, due_in]).fetchall()
        return sorted(n for (n,) in found)

    def settle(self, numbers: list[int], outcome: str) -> None:
        """Write down what came of adding them."""
        self.connection().execute(SETTLE, [outcome, numbers])

    def read(self, kind: type[Any], table: str, order: str) -> list[Any]:
        """Return a whole table as records."""
        columns = ", ".join(field.name for field in attrs.fields(kind))
        with self.connection().cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(f"select {columns} from {table} order by {order}".encode()).fetchall()  # noqa: S608

    def adds(self) -> list[Add]:
        return self.read(Add, "adds", "n")

    def attempts(self) -> list[Attempt]:
        return self.read(Attempt, "attempts", "began, id")

    def losses(self) -> list[Loss]:
        return self.read(Loss, "losses", "at")
