"""What a caller may pass as connection=, and the driver's connection in it, whose transaction is the caller's.

Nothing is imported for that. Django's is known by what it can do, and SQLAlchemy's types exist only where somebody has
imported them. Each is asked for its connection in the way its own code does that, so that what it promises holds: a
transaction begins by itself, a broken one is refused, a lost connection is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import PipelineStatus

from graphile_worker_py._awaited import AwaitedConnection
from graphile_worker_py._psycopg2 import Psycopg2Connection, of_psycopg2
from graphile_worker_py.errors import InvalidJobSpec, NotSupported

AnyConnection: TypeAlias = psycopg.Connection[Any] | Psycopg2Connection | AwaitedConnection

_EXPECTED = (
    "connection: expected an open connection or cursor of psycopg or psycopg2, a Session or Connection of SQLAlchemy, "
    "or a connection of Django"
)


def own_connection(given: object) -> AbstractContextManager[AnyConnection]:
    """Lend the driver's connection in what was passed as connection=; raise InvalidJobSpec where there is none.

    Raises NotSupported where it is not one to PostgreSQL, or of a driver that cannot be used, and what Django and
    SQLAlchemy raise when they are asked.
    """
    if hasattr(given, "validate_no_broken_transaction"):
        return _of_django(given)
    asynchronous: Any = sys.modules.get("sqlalchemy.ext.asyncio")
    if asynchronous is not None and isinstance(
        given, (asynchronous.AsyncSession, asynchronous.async_scoped_session, asynchronous.AsyncConnection)
    ):
        raise InvalidJobSpec(
            f"connection: {type(given).__name__} is asynchronous: "
            "await session.run_sync(lambda session: queue.add_job(..., connection=session))"
        )
    orm: Any = sys.modules.get("sqlalchemy.orm")
    if orm is not None and isinstance(given, (orm.Session, orm.scoped_session)):
        given = given.connection()  # begins, where nothing has begun yet
    engine: Any = sys.modules.get("sqlalchemy.engine")
    if engine is not None and isinstance(given, engine.Connection):
        if isinstance(given.get_transaction(), engine.TwoPhaseTransaction):  # jobs are told of by NOTIFY
            raise NotSupported(
                "connection: PostgreSQL prepares no transaction that has a job in it; do without twophase"
            )
        return _of_sqlalchemy(given)
    return nullcontext(_of_driver(given))


def lasting(given: object) -> object:
    """Return the session that a scoped_session is here, for it may be another one elsewhere; all else as it is."""
    orm: Any = sys.modules.get("sqlalchemy.orm")
    return given() if orm is not None and isinstance(given, orm.scoped_session) else given


def is_pipelined(connection: AnyConnection) -> bool:
    """Say whether the connection is in pipeline mode."""
    return isinstance(connection, psycopg.Connection) and connection.pgconn.pipeline_status != PipelineStatus.OFF


def _of_driver(given: object) -> AnyConnection:
    if isinstance(given, (Psycopg2Connection, AwaitedConnection)):  # lent by us before
        return given
    older = of_psycopg2(given)
    if older is not None:
        return older
    connection = getattr(given, "connection", None) if isinstance(given, psycopg.Cursor) else given
    if not isinstance(connection, psycopg.Connection):
        hint = ""
        if isinstance(given, (psycopg.AsyncConnection, psycopg.AsyncCursor)):
            hint = "; an asynchronous one cannot be used from synchronous code"
        raise InvalidJobSpec(f"{_EXPECTED}; got {type(given)}{hint}")
    if connection.closed:
        raise InvalidJobSpec("connection: this one is closed; pass an open connection, or none")
    if connection.info.encoding == "ascii":
        raise InvalidJobSpec("connection: its client_encoding is SQL_ASCII, which is none; set client_encoding to utf8")
    return connection


@contextmanager
def _of_django(given: Any) -> Iterator[AnyConnection]:
    """Lend Django's connection. Errors of the driver become Django's, which then looks whether it is lost."""
    if given.vendor != "postgresql":
        raise NotSupported(
            f"connection: the database {given.alias!r} of Django is {given.vendor}; jobs are kept in PostgreSQL"
        )
    given.validate_no_broken_transaction()
    given.cursor().close()  # it looks after all the rest, and is what a test that may ask nothing has put a stop to
    with given.wrap_database_errors:
        yield _of_driver(given.connection)


@contextmanager
def _of_sqlalchemy(given: Any) -> Iterator[AnyConnection]:
    """Lend SQLAlchemy's connection, in the transaction that its own statements would begin; tell it of a lost one."""
    if given.dialect.name != "postgresql":
        raise NotSupported(f"connection: SQLAlchemy's is to {given.dialect.name}; jobs are kept in PostgreSQL")
    if not given.in_transaction():
        given.begin()
    driver = given.connection.driver_connection
    if isinstance(driver, psycopg.AsyncConnection):
        own: AnyConnection = AwaitedConnection(driver, given.connection.dbapi_connection.run_async)
    elif isinstance(driver, psycopg.Connection) or given.dialect.driver == "psycopg2":
        own = _of_driver(driver)
    else:
        raise NotSupported(
            f"connection: jobs cannot be added over SQLAlchemy's driver {given.dialect.driver}; "
            "use postgresql+psycopg or postgresql+psycopg2"
        )
    try:
        yield own
    except Exception as error:
        if driver.closed:
            given.invalidate(error)
        raise
