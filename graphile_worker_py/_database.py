"""The database: one lazy pool, one schema, one file per statement. Nothing else runs statements.

Connections are in autocommit, so a statement is one round trip. An idle connection the server has closed is found
without asking the server: its socket has something to read (the end of the stream, or the server's farewell), and
another is taken. One that turns out to be of a standby is dropped, for the next one may be of the primary. A process
that was forked starts over with a pool of its own; the inherited sockets belong to the parent and are left alone,
unclosed.

Times come as the integers PostgreSQL counts in (`jobs.moment` makes datetimes of them): psycopg takes a
quarter of a microsecond for each datetime, and refuses the whole result for one outside Python's years.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryLoader
from psycopg_pool import ConnectionPool, PoolTimeout

from graphile_worker_py._connections import Connections, Server, is_stale, settled
from graphile_worker_py._conninfo import check_listen, check_schema
from graphile_worker_py._explained import explained
from graphile_worker_py._grip import INTERRUPTS, shielded
from graphile_worker_py._outage import Outage
from graphile_worker_py._own_connection import AnyConnection, is_pipelined, own_connection
from graphile_worker_py._statements import compose, statement
from graphile_worker_py._watched import Watched
from graphile_worker_py.errors import NotSupported

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = tuple[Any, ...]
Pool: TypeAlias = "ConnectionPool[Any] | Connections"

DEFAULT_SCHEMA = "graphile_worker"
# Connections of a given pool that handlers leave to the worker: its services that use one, for a moment each, are the
# local queue, the completer, the heart, the sweeper, cancellations, progress and the scheduler.
LEFT_FREE = 7

_BY_INDEX = (
    b"select set_config(name, 'off', true)"
    b" from unnest('{jit,enable_seqscan,enable_bitmapscan,enable_sort}'::text[]) as name"
    b" union all select set_config('plan_cache_mode', 'force_generic_plan', true)"
)


def run_script(connection: Connection, text: str, schema: str) -> None:
    """Run several statements as one message, never prepared, with {schema} filled in; migrations are run so."""
    run_composed(connection, compose(text, schema))


def run_composed(connection: Connection, script: sql.Composed) -> None:
    """Run several statements as one message, never prepared."""
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(script, prepare=False)


class Database:
    """A place to run statements: a pool that opens on first use, and the schema they are about.

    `source` is a conninfo or URL, an existing ConnectionPool (used as it is, never closed here), or None for
    DATABASE_URL, else libpq's PG* variables. `listen_on` says where notifications are heard: True for here, a conninfo
    for elsewhere, False for nowhere; None given reads GRAPHILE_WORKER_LISTEN. Safe in threads, and after a fork.
    """

    shares_adds = True  # what several threads add at the same time may go into one statement

    def __init__(
        self,
        source: str | ConnectionPool[Any] | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        min_size: int = 1,
        max_size: int = 10,
        max_lifetime: float = 600.0,
        connect_timeout: float = 5.0,
        statement_timeout: float | None = 20.0,
        prepared_statements: bool = True,
        listen: str | bool | None = None,
    ) -> None:
        self.schema = check_schema(schema)
        self.connect_timeout = connect_timeout
        self.max_lifetime = max_lifetime
        self.statement_timeout = statement_timeout
        self.heard_at = -math.inf  # when it answered last, by time.monotonic()
        self.outage = Outage()
        self.listen_on = check_listen(listen)
        self._server = Server(
            source, connect_timeout=connect_timeout, patience=statement_timeout, prepares=prepared_statements
        )
        self._min_size = min_size
        self._max_size = max_size
        self._pool: Pool | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._room: threading.Semaphore | None = None
        _databases.add(self)

    def another(self, *, max_size: int) -> Database:
        """Return a Database for handlers: with a pool of its own, unless one was given, and all the time they want."""
        other = Database(
            self.source,
            schema=self.schema,
            min_size=0,
            max_size=max_size,
            max_lifetime=self.max_lifetime,
            connect_timeout=self.connect_timeout,
            statement_timeout=None,
            prepared_statements=self._server.prepares,
        )
        if isinstance(self.source, ConnectionPool):
            other._room = threading.Semaphore(max(1, self.source.max_size - LEFT_FREE))
        return other

    @property
    def source(self) -> str | ConnectionPool[Any] | None:
        """Return what was given: a pool, a conninfo, or None where the environment says."""
        return self._server.source

    @property
    def max_connections(self) -> int:
        """Return how many connections the pool may have; one that listens is not among them."""
        return self.source.max_size if isinstance(self.source, ConnectionPool) else self._max_size

    @contextmanager
    def connection(self, given: object = None) -> Iterator[AnyConnection]:
        """Lend a connection from the pool, or the caller's own, whose transaction is left as it is."""
        with self._pooled() if given is None else own_connection(given) as connection:
            yield connection

    @contextmanager
    def _pooled(self) -> Iterator[Connection]:
        pool = self.pool()
        if self._room is not None and not self._room.acquire(timeout=self.connect_timeout):
            raise PoolTimeout(f"handlers had all connections but {LEFT_FREE} for {self.connect_timeout:g} s")
        try:
            with self._lent(pool) as borrowed:
                yield borrowed
        finally:
            if self._room is not None:
                self._room.release()

    @contextmanager
    def _lent(self, pool: Pool) -> Iterator[Connection]:
        borrowed: Connection | None = None
        try:
            with shielded:
                borrowed = self._borrowed(pool)
            with settled(borrowed):
                yield borrowed
        except psycopg.errors.ReadOnlySqlTransaction:  # a standby, or a primary that is none any more
            if borrowed is not None:
                borrowed.close()
            _distrust(pool)
            raise
        finally:
            if borrowed is not None:
                _give_back(pool, [borrowed])
        self.heard_at = time.monotonic()
        if self.outage.lasts:
            self.outage.answered(getattr(borrowed, "opened_at", math.inf))

    def _borrowed(self, pool: Pool) -> Connection:
        """Take a connection that is alive; not a given pool's own `check`, which waits a second after each dead one."""
        if isinstance(pool, Connections):
            return pool.getconn(self.connect_timeout)
        deadline = time.monotonic() + self.connect_timeout
        while True:
            try:
                connection: Connection = pool.getconn(timeout=deadline - time.monotonic())
            except PoolTimeout:
                self.connect().close()  # raises the reason, if the server cannot be reached
                raise
            if not is_stale(connection):
                return connection
            connection.close()
            pool.putconn(connection)

    def run(self, name: str, params: Mapping[str, Any] | None = None, *, connection: object = None) -> list[Row]:
        """Run sql/<name>.sql and return its rows; on a pooled connection it is committed."""
        with self.connection(connection) as conn:
            return self.run_on(conn, name, params)

    def begin_by_index(
        self, name: str, params: Mapping[str, Any], *, after: tuple[str, Mapping[str, Any]] | None = None
    ) -> Callable[[], psycopg.RawCursor[Row]]:
        """Send sql/<name>.sql, for plans that follow indexes whatever the statistics say; return what waits for it.

        Its rows are then all here, to be read at leisure: the connection is free for the next.

        On a freshly filled table PostgreSQL sorts 100,000 rows to find the first 500 (80 ms against 4, seen on 15), and
        a plan type that is switched off may start the JIT (320 ms). The settings hold for the transaction that a
        pipeline is: one round trip, and nothing is left behind on the session, a pooler's included. The database is at
        work from the start, and commits when the rows are asked for, which must happen. `after`: a statement to run
        before it, in the same transaction; this one sees what others have committed until then.
        """
        with ExitStack() as stack:
            connection = stack.enter_context(self._pooled())
            with ExitStack() as inner:
                inner.enter_context(explained(self.schema))
                inner.enter_context(connection.pipeline())
                connection.execute(_BY_INDEX)
                if after is not None:
                    self._execute(connection, *after)
                cursor = self._execute(connection, name, params)
                pipeline = inner.pop_all()
            borrowed = stack.pop_all()

        def answer() -> psycopg.RawCursor[Row]:
            with borrowed:
                pipeline.close()
            return cursor

        return answer

    def run_on(self, connection: AnyConnection, name: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Run sql/<name>.sql on this very connection and return its rows. Raises SchemaMissing for a missing table."""
        return self.begin_on(connection, name, params)()

    def begin_on(
        self, connection: AnyConnection, name: str, params: Mapping[str, Any] | None = None
    ) -> Callable[[], list[Row]]:
        """Run sql/<name>.sql, and return what returns its rows; in a pipeline, only that waits for the database."""
        with explained(self.schema):
            if not isinstance(connection, psycopg.Connection):
                found = connection.rows(name, self.schema, params or {})
                return lambda: found
            cursor = self._execute(connection, name, params or {})

        def rows() -> list[Row]:
            with explained(self.schema):
                return cursor.fetchall() if cursor.description or is_pipelined(connection) else []

        return rows

    def _execute(self, connection: Connection, name: str, params: Mapping[str, Any]) -> psycopg.RawCursor[Row]:
        """Run a statement, with results in binary, because psycopg reads times as text in one DateStyle only."""
        cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
        cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
        text, names = statement(name, self.schema)
        return cursor.execute(text, [params[name] for name in names], binary=True)

    def listen(self, connection: Connection, *channels: str) -> None:
        """Make the connection hear these channels; their names hold a colon, so they are quoted."""
        listen = (sql.SQL("listen {}").format(sql.Identifier(channel)) for channel in channels)
        connection.execute(sql.SQL("; ").join(listen))  # in one message: heard is either all of them or none

    def ping(self, connection: Connection, channel: str) -> None:
        """Notify a channel that this very connection listens to."""
        self.run_on(connection, "ping", {"channel": channel})

    def knock(self) -> None:
        """Ask anything, so that heard_at says whether there is an answer."""
        self.run("backend_pid")

    def is_pooled(self, connection: Connection) -> bool:
        """Say whether a pooler stands in between: what it said about the server's process is not so."""
        return self.run_on(connection, "backend_pid") != [(connection.info.backend_pid,)]

    def connect(self) -> Watched:
        """Open a connection outside the pool, in autocommit; the caller closes it."""
        return self._server.connect()

    def connect_to_listen(self) -> Watched | None:
        """Open a connection to listen on, which the caller closes; None where that cannot keep what it listens to."""
        if isinstance(self.listen_on, str):
            return self._server.connect_to(self.listen_on)
        if not self.listen_on:
            return None
        connection = self.connect()
        try:
            pooled = self.is_pooled(connection)
        except BaseException:
            connection.close()
            raise
        if pooled:
            connection.close()
        return None if pooled else connection

    def _for_the_pool(self) -> Watched:
        """Connect; through a pooler, which may give every transaction another session, nothing is prepared."""
        connection = self.connect()
        try:
            if self._server.prepares and self.is_pooled(connection):
                connection.prepare_threshold = None
        except BaseException:
            connection.close()
            raise
        return connection

    def pool(self) -> Pool:
        """Return the pool; opened, where it was given."""
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool = self._pool or self._open()
        return pool

    def close(self) -> None:
        """Close the pool if it is ours; the next use opens a new one."""
        with self._lock:
            pool, self._pool = self._pool, None
        if isinstance(pool, Connections):
            pool.close()

    def _open(self) -> Pool:
        given = self._server.source
        if not isinstance(given, ConnectionPool):
            return Connections(
                self._for_the_pool, min_size=self._min_size, max_size=self._max_size, max_lifetime=self.max_lifetime
            )
        if os.getpid() != self._pid:
            raise NotSupported(
                "this ConnectionPool was made before a fork; give the Queue a conninfo, or make both after it"
            )
        if given.closed:
            given.open()
        return given

    def _forget_after_fork(self) -> None:
        """Leave the parent's pool unclosed (its sockets are the parent's) and take a lock nobody holds."""
        if isinstance(self._pool, Connections):
            _inherited.append(self._pool)
        self._pool = None
        self._lock = threading.Lock()
        self.outage = Outage()


def _give_back(pool: Pool, held: list[Connection]) -> None:
    """Give back the one connection in the list, once; an interrupt on its way in would else lose its place for good."""
    try:
        with shielded:
            if getattr(held[0], "silent", False):
                _distrust(pool)
            pool.putconn(held.pop())  # type: ignore[arg-type]
    except INTERRUPTS:  # a handler gets one at most
        if held:
            pool.putconn(held.pop())  # type: ignore[arg-type]
        raise


def _distrust(pool: Pool) -> None:
    if isinstance(pool, Connections):
        pool.expire()


@contextmanager
def all_or_nothing(connection: AnyConnection) -> Iterator[None]:
    """Undo what the block did if it fails; a transaction of the caller's is neither ended nor left aborted."""
    if is_pipelined(connection):
        with connection.pipeline():  # its end awaits what was sent before, and with it the state of the transaction
            pass
    idle = connection.info.transaction_status == TransactionStatus.IDLE
    if isinstance(connection, psycopg.Connection) and idle and not connection.autocommit:
        with psycopg.Cursor(connection) as cursor:
            cursor.execute("select 1")  # begins the caller's transaction, so that the next one is a savepoint in it
    with connection.transaction():
        yield


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[Connections] = []


def _after_fork() -> None:
    for database in list(_databases):
        database._forget_after_fork()


def _close_all() -> None:
    """Close what was left open, before the interpreter takes the pools' threads away from under them."""
    for database in list(_databases):
        database.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)
