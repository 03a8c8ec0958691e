"""The database: one lazy pool, one schema, one file per statement. Nothing else runs statements.

Connections come from psycopg_pool, in autocommit, so a statement is one round trip. An idle connection the server
has closed is found without asking the server: its socket has something to read (the end of the stream, or the
server's farewell), and another is taken. A process that was forked starts over with a pool of its own; the inherited
sockets belong to the parent and are left alone, unclosed.

Statements live in sql/, one to a file. `{schema}` becomes the quoted schema, `{job}` the columns of Job for a row
called j, and a `%(name)s` the number of a parameter, here and not by psycopg, which reads a long statement anew each
time. Times come as the integers PostgreSQL counts in (`jobs.moment` makes datetimes of them): psycopg takes a
quarter of a microsecond for each datetime, and refuses the whole result for one outside Python's years.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib.resources import files
from typing import Any, TypeAlias, cast

import psycopg
from psycopg import conninfo as libpq
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryLoader
from psycopg_pool import ConnectionPool, PoolTimeout

from graphile_worker_py._conninfo import check_conninfo, connect
from graphile_worker_py.errors import InvalidConninfo, InvalidJobSpec, InvalidSchemaName, NotSupported, SchemaMissing

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = tuple[Any, ...]

DEFAULT_SCHEMA = "graphile_worker"
MAX_IDENTIFIER_BYTES = 63
# The tag of our dollar-quoted function bodies: a schema's name stands inside them, so it may not hold the tag.
BODY_TAG = "$graphile_worker_py$"

# What a missing or half-made schema comes to, depending on what a statement names first.
NOT_INSTALLED = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InvalidSchemaName,
)

JOB_COLUMNS = """j.id, j.job_queue_id, j.payload::text, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
    j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision,
    case when j.flags is not null then array(select jsonb_object_keys(j.flags)) end as flags"""


# What psycopg raises, and the classes of SQLSTATE, where the server is away or busy. psycopg's classes alone say too
# little: OperationalError is also a trigger that has changed the row it was called for, or an index entry too long.
PASSING = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
PASSING_STATES = {"08", "25", "40", "53", "55", "57", "58", "XX"}

_BY_INDEX = (
    b"select set_config(name, 'off', true)"
    b" from unnest('{jit,enable_seqscan,enable_bitmapscan,enable_sort}'::text[]) as name"
    b" union all select set_config('plan_cache_mode', 'force_generic_plan', true)"
)


def is_passing(error: BaseException) -> bool:
    """Say whether trying again may help, for the server is away or busy, rather than unable to do what it was asked."""
    if not isinstance(error, PASSING):
        return False
    state = error.sqlstate  # None where the connection failed
    return state is None or state[:2] in PASSING_STATES


def check_schema(name: object) -> str:
    """Return name if PostgreSQL takes it whole as a schema's name; raise InvalidSchemaName otherwise."""
    if not isinstance(name, str) or not name:
        raise InvalidSchemaName(f"schema: expected a non-empty str, got {name!r:.40}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidSchemaName("schema: holds a lone surrogate (half a character); remove it") from None
    if size > MAX_IDENTIFIER_BYTES:
        raise InvalidSchemaName(
            f"schema: {size} bytes; PostgreSQL would truncate it, use at most {MAX_IDENTIFIER_BYTES}"
        )
    if "\x00" in name or BODY_TAG in name:
        raise InvalidSchemaName(f"schema: may not hold a NUL character or {BODY_TAG}")
    if name.startswith("pg_"):
        raise InvalidSchemaName("schema: names that start with pg_ are reserved by PostgreSQL; use another")
    return name


def compose(text: str, schema: str) -> sql.Composed:
    """Return SQL text with {schema} and {job} filled in, to be run without parameters."""
    return sql.SQL(cast("Any", text)).format(schema=sql.Identifier(schema), job=sql.SQL(cast("Any", JOB_COLUMNS)))


@lru_cache(maxsize=1024)
def _statement(name: str, schema: str) -> tuple[bytes, tuple[str, ...]]:
    """Return sql/<name>.sql with numbered parameters, and their names in that order."""
    lines = files("graphile_worker_py").joinpath("sql").joinpath(f"{name}.sql").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))  # what is for readers need not travel
    names: dict[str, int] = {}
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.setdefault(found[1], len(names) + 1)}", text)
    return compose(numbered, schema).as_bytes(), tuple(names)


def run_script(connection: Connection, text: str, schema: str) -> None:
    """Run several statements as one message, never prepared, with {schema} filled in; migrations are run so."""
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(compose(text, schema), prepare=False)


def _is_stale(connection: Connection) -> bool:
    """Say whether an idle connection has something to read: the server has hung up, or is about to."""
    waiting = select.poll()  # select.select() cannot watch a descriptor past 1023
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


class Database:
    """A place to run statements: a pool that opens on first use, and the schema they are about.

    `source` is a conninfo or URL, an existing ConnectionPool (used as it is, never closed here), or None for
    DATABASE_URL, else libpq's PG* variables. Safe in threads, and after a fork.
    """

    def __init__(
        self,
        source: str | ConnectionPool[Any] | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        min_size: int = 1,
        max_size: int = 10,
        connect_timeout: float = 5.0,
        prepared_statements: bool = True,
    ) -> None:
        self.schema = check_schema(schema)
        self.connect_timeout = connect_timeout
        self._min_size = min_size
        self._max_size = max_size
        self._given = source if isinstance(source, ConnectionPool) else None
        self._conninfo = check_conninfo(source) if isinstance(source, str) else None
        self._prepare_threshold = 5 if prepared_statements else None
        self._pool: ConnectionPool[Any] | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        if source is not None and self._given is None and self._conninfo is None:
            raise InvalidConninfo(
                f"expected a conninfo str, a psycopg_pool.ConnectionPool or None, got {type(source).__name__}"
            )
        _databases.add(self)

    def another(self, *, max_size: int) -> Database:
        """Return a Database for the same server and schema, with a pool of its own, unless one was given."""
        return Database(
            self.source,
            schema=self.schema,
            min_size=0,
            max_size=max_size,
            connect_timeout=self.connect_timeout,
            prepared_statements=self._prepare_threshold is not None,
        )

    @property
    def source(self) -> str | ConnectionPool[Any] | None:
        """Return what was given: a pool, a conninfo, or None where the environment says."""
        return self._conninfo if self._given is None else self._given

    @contextmanager
    def connection(self, given: object = None) -> Iterator[Connection]:
        """Lend a connection from the pool, or the caller's own, whose transaction is left as it is."""
        if given is not None:
            yield own_connection(given)
            return
        pool = self.pool()
        borrowed = self._borrowed(pool)
        try:
            with borrowed:
                yield borrowed
        finally:
            pool.putconn(borrowed)

    def _borrowed(self, pool: ConnectionPool[Any]) -> Connection:
        """Take a connection that is alive; not the pool's own `check`, which waits a second after each dead one."""
        deadline = time.monotonic() + self.connect_timeout
        while True:
            try:
                connection: Connection = pool.getconn(timeout=deadline - time.monotonic())
            except PoolTimeout:
                self.connect().close()  # raises the reason, if the server cannot be reached
                raise
            if not _is_stale(connection):
                return connection
            connection.close()
            pool.putconn(connection)

    def run(self, name: str, params: Mapping[str, Any] | None = None, *, connection: object = None) -> list[Row]:
        """Run sql/<name>.sql and return its rows; on a pooled connection it is committed."""
        with self.connection(connection) as conn:
            return self.run_on(conn, name, params)

    def begin_by_index(self, name: str, params: Mapping[str, Any]) -> Callable[[], list[Row]]:
        """Send sql/<name>.sql, for plans that follow indexes whatever the statistics say; return what returns its rows.

        On a freshly filled table PostgreSQL sorts 100,000 rows to find the first 500 (80 ms against 4, seen on 15), and
        a plan type that is switched off may start the JIT (320 ms). The settings hold for the transaction that a
        pipeline is: one round trip, and nothing is left behind on the session, a pooler's included. The database is at
        work from the start, and commits when the rows are asked for, which must happen.
        """
        with ExitStack() as stack:
            connection = stack.enter_context(self.connection())
            with ExitStack() as inner:
                inner.enter_context(self._translated_errors())
                inner.enter_context(connection.pipeline())
                connection.execute(_BY_INDEX)
                cursor = self._execute(connection, name, params)
                pipeline = inner.pop_all()
            borrowed = stack.pop_all()

        def rows() -> list[Row]:
            with borrowed:
                pipeline.close()
                return cursor.fetchall()

        return rows

    def run_on(self, connection: Connection, name: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Run sql/<name>.sql on this very connection and return its rows. Raises SchemaMissing for a missing table."""
        return self.begin_on(connection, name, params)()

    def begin_on(
        self, connection: Connection, name: str, params: Mapping[str, Any] | None = None
    ) -> Callable[[], list[Row]]:
        """Run sql/<name>.sql, and return what returns its rows; in a pipeline, only that waits for the database."""
        with self._translated_errors():
            cursor = self._execute(connection, name, params or {})

        def rows() -> list[Row]:
            with self._translated_errors():
                return cursor.fetchall() if cursor.description or _pipelined(connection) else []

        return rows

    def _execute(self, connection: Connection, name: str, params: Mapping[str, Any]) -> psycopg.RawCursor[Row]:
        """Run a statement, with results in binary, because psycopg reads times as text in one DateStyle only."""
        cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
        cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
        text, names = _statement(name, self.schema)
        return cursor.execute(text, [params[name] for name in names], binary=True)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Say how to install a schema that is not there, which text cannot be carried, who may; pass all else."""
        try:
            yield
        except UnicodeEncodeError as e:
            raise InvalidJobSpec(
                f"connection: its client_encoding, {e.encoding}, cannot carry this text; set client_encoding to utf8"
            ) from None
        except NOT_INSTALLED as e:
            raise SchemaMissing(
                f"schema {self.schema!r} is not installed here, or not visible to this role: run queue.migrate() "
                f"or graphile-worker-py migrate ({e.diag.message_primary})"
            ) from e
        except psycopg.errors.InsufficientPrivilege as e:
            raise NotSupported(
                f"this role may not do this in schema {self.schema!r} ({e.diag.message_primary}): "
                "connect as the role that installed it"
            ) from e

    def listen(self, connection: Connection, *channels: str) -> None:
        """Make the connection hear these channels; their names hold a colon, so they are quoted."""
        listen = (sql.SQL("listen {}").format(sql.Identifier(channel)) for channel in channels)
        connection.execute(sql.SQL("; ").join(listen))  # in one message: heard is either all of them or none

    def connect(self) -> Connection:
        """Open a connection outside the pool, in autocommit; the caller closes it."""
        pool = self._given
        if pool is not None:
            target: Any = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
            keywords: Any = pool.kwargs() if callable(pool.kwargs) else pool.kwargs or {}
            return cast("Connection", pool.connection_class.connect(target, **{**keywords, "autocommit": True}))
        return connect(self._target(), **self._keywords())

    def pool(self) -> ConnectionPool[Any]:
        """Return the pool, opened; the first call fails at once, with the reason, if the server cannot be reached."""
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool = self._pool or self._open()
        return pool

    def close(self) -> None:
        """Close the pool if it is ours; the next use opens a new one."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and pool is not self._given:
            pool.close()

    def _open(self) -> ConnectionPool[Any]:
        if self._given is not None:
            return self._opened(self._given)
        self.connect().close()
        pool: ConnectionPool[Any] = ConnectionPool(
            self._target(),
            kwargs=self._keywords(),
            min_size=self._min_size,
            max_size=max(self._min_size, self._max_size),
            open=False,
            reconnect_timeout=2 * self.connect_timeout,
            name="graphile-worker-py",
        )
        pool.open()
        return pool

    def _opened(self, pool: ConnectionPool[Any]) -> ConnectionPool[Any]:
        if os.getpid() != self._pid:
            raise NotSupported(
                "this ConnectionPool was made before a fork; give the Queue a conninfo, or make both after it"
            )
        if pool.closed:
            pool.open()
        return pool

    def _target(self) -> str:
        if self._conninfo is None:
            return check_conninfo(os.environ.get("DATABASE_URL", ""))
        return self._conninfo

    def _keywords(self) -> dict[str, Any]:
        keywords: dict[str, Any] = {"autocommit": True, "prepare_threshold": self._prepare_threshold}
        named = libpq.conninfo_to_dict(self._target())
        defaults = {
            "connect_timeout": max(2, round(self.connect_timeout)),
            "fallback_application_name": "graphile-worker-py",  # a PGAPPNAME goes first
            "client_encoding": "utf8",
        }
        return keywords | {name: value for name, value in defaults.items() if name not in named}

    def _forget_after_fork(self) -> None:
        """Leave the parent's pool unclosed (its sockets are the parent's) and take a lock nobody holds."""
        if self._pool is not None and self._pool is not self._given:
            _inherited.append(self._pool)
        self._pool = None
        self._lock = threading.Lock()


def _pipelined(connection: Connection) -> bool:
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


@contextmanager
def all_or_nothing(connection: Connection) -> Iterator[None]:
    """Undo what the block did if it fails; a transaction of the caller's is neither ended nor left aborted."""
    if _pipelined(connection):
        with connection.pipeline():  # its end awaits what was sent before, and with it the state of the transaction
            pass
    if not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        with psycopg.Cursor(connection) as cursor:
            cursor.execute("select 1")  # begins the caller's transaction, so that the next one is a savepoint in it
    with connection.transaction():
        yield


def own_connection(given: object) -> Connection:
    """Return the psycopg connection behind what a caller passed as connection=; raise InvalidJobSpec for others."""
    connection = getattr(given, "connection", None) if isinstance(given, psycopg.Cursor) else given
    if not isinstance(connection, psycopg.Connection):
        hint = ""
        if isinstance(given, (psycopg.AsyncConnection, psycopg.AsyncCursor)):
            hint = "; an asynchronous one cannot be used from synchronous code"
        raise InvalidJobSpec(f"connection: expected an open psycopg connection or cursor, got {type(given)}{hint}")
    if connection.closed:
        raise InvalidJobSpec("connection: this one is closed; pass an open connection, or none")
    if connection.info.encoding == "ascii":
        raise InvalidJobSpec("connection: its client_encoding is SQL_ASCII, which is none; set client_encoding to utf8")
    return connection


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[ConnectionPool[Any]] = []


def _after_fork() -> None:
    for database in list(_databases):
        database._forget_after_fork()


def _close_all() -> None:
    """Close what was left open, before the interpreter takes the pools' threads away from under them."""
    for database in list(_databases):
        database.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)
