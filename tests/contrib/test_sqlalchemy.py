"""connection= takes SQLAlchemy's sessions and connections: the job is in their transaction, on either driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import (
    InvalidRequestError,
    PendingRollbackError,
    ResourceClosedError,
    UnboundExecutionError,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from urls import as_url

from graphile_worker_py import InvalidJobSpec, JobContext, JobSpec, NotSupported, Queue, WorkerPool
from graphile_worker_py.testing import drain

TIMES = 1000


class Base(DeclarativeBase):
    """The tables of this program."""


class Order(Base):
    """A row that is written together with a job."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[Engine]:
    """Return an engine, by each driver, of the database of the test."""
    engine = create_engine(as_url(migrated_url, request.param))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def stored(queue: Queue) -> list[str]:
    return [info.task_identifier for info in queue.jobs()]


def orders(db: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in db.execute("select name from orders order by id")]


def test_a_row_and_a_job_in_one_transaction(queue: Queue, engine: Engine, db: psycopg.Connection) -> None:
    with Session(engine) as session:
        order = Order(name="first")
        session.add(order)
        session.flush()
        job = queue.add_job("ship", {"order": order.id}, connection=session)
        assert (stored(queue), orders(db)) == ([], [])
        session.commit()
        assert (stored(queue), orders(db)) == (["ship"], ["first"])
        assert queue.job(job.id) == job
        session.add(Order(name="first"))
        queue.add_jobs([JobSpec("ship"), JobSpec("bill")], connection=session)
        with pytest.raises(Exception, match="orders_name_key"):
            session.commit()
        with pytest.raises(PendingRollbackError):
            queue.add_job("never", connection=session)
        session.rollback()
    assert (stored(queue), orders(db)) == (["ship"], ["first"])


def test_a_job_alone_begins_the_transaction(queue: Queue, engine: Engine) -> None:
    with Session(engine) as session:
        queue.add_job("lost", connection=session)
    with engine.connect() as connection:
        queue.add_job("lost", connection=connection)
    with engine.connect() as connection:
        queue.add_job("kept", connection=connection)
        assert connection.in_transaction()
        connection.commit()
    with sessionmaker(engine).begin() as session:
        queue.add_job("kept", connection=session)
    with engine.begin() as connection:
        queue.add_job("kept", connection=connection)
    registry = scoped_session(sessionmaker(engine))
    queue.add_job("kept", connection=registry)
    registry.commit()
    registry.remove()
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        queue.add_job("at once", connection=connection)
        queue.add_jobs([JobSpec("at once")], connection=connection)
        assert stored(queue) == ["kept"] * 4 + ["at once"] * 2


def test_savepoints_take_the_job_along(queue: Queue, engine: Engine) -> None:
    with Session(engine) as session:
        queue.add_job("outer", connection=session)
        with session.begin_nested():
            queue.add_jobs([JobSpec("inner")], connection=session)
        with session.begin_nested() as nested:
            queue.add_job("undone", connection=session)
            queue.add_jobs([JobSpec("undone")], connection=session)
            nested.rollback()
        with pytest.raises(InvalidJobSpec):
            queue.add_jobs([JobSpec("undone"), None], connection=session)  # type: ignore[list-item]
        queue.add_job("outer", connection=session)
        session.commit()
    assert stored(queue) == ["outer", "inner", "outer"]


def test_a_rollback_leaves_nothing(queue: Queue, engine: Engine, db: psycopg.Connection) -> None:
    with Session(engine) as session:
        for number in range(TIMES):
            session.add(Order(name=str(number)))
            queue.add_job("never", {"n": number}, job_key=f"k{number % 7}", connection=session)
            session.rollback()
    assert (stored(queue), orders(db)) == ([], [])


def test_the_rest_of_the_queue_takes_a_session_too(queue: Queue, engine: Engine) -> None:
    ids = [queue.add_job("task", job_key=f"k{n}").id for n in range(4)]
    with Session(engine) as session:
        assert queue.remove_job("k0", connection=session)
        assert [job.id for job in queue.complete_jobs(ids[1:2], connection=session)] == ids[1:2]
        assert queue.permanently_fail_jobs(ids[2:3], "no", connection=session)[0].last_error == "no"
        assert queue.reschedule_jobs(ids[3:], priority=3, connection=session)[0].priority == 3
        queue.force_unlock_workers(["w"], connection=session)
        assert queue.set_timeout(ids[3], 5, connection=session)
        queue.cancel(ids[3], connection=session)
        assert len(stored(queue)) == 4
        session.commit()
    assert [(info.key, info.state) for info in queue.jobs()] == [("k2", "failed"), ("k3", "failed")]


def test_a_handler_completes_its_job_with_its_session(
    queue: Queue, engine: Engine, db: psycopg.Connection, pools: Callable[..., WorkerPool]
) -> None:
    @queue.task(max_attempts=1)
    def ship(payload: dict[str, str], ctx: JobContext) -> None:
        with Session(engine) as session:
            session.add(Order(name=payload["name"]))
            ctx.complete(session)
            if payload["name"] == "kept":
                session.commit()

    pools(1)
    queue.wait_for(ship.add_job({"name": "kept"}), timeout=20)
    with pytest.raises(Exception, match="completed the job in a transaction that was not committed"):
        queue.wait_for(ship.add_job({"name": "lost"}), timeout=20)
    assert orders(db) == ["kept"]


def test_a_test_drains_jobs_in_a_transaction_of_its_own(queue: Queue, engine: Engine, db: psycopg.Connection) -> None:
    """As in SQLAlchemy's documentation on tests: sessions commit savepoints of one transaction that is rolled back."""
    with engine.connect() as connection:
        connection.begin()
        sessions = sessionmaker(connection, join_transaction_mode="create_savepoint")

        @queue.task
        def ship(payload: dict[str, str]) -> None:
            with sessions.begin() as session:
                session.add(Order(name=payload["name"]))
            if payload["name"] == "bad":
                raise ValueError("bad")

        with sessions.begin() as session:
            for name in ("good", "bad"):
                queue.add_job("ship", {"name": name}, connection=session)
        done = drain(queue, connection=connection, raise_errors=False)
        assert (len(done.completed), len(done.failed)) == (1, 1)
        with sessions() as session:
            assert [order.name for order in session.query(Order)] == ["good", "bad"]
        connection.rollback()
    assert (stored(queue), orders(db)) == ([], [])


def test_a_lost_connection_is_replaced(queue: Queue, engine: Engine, db: psycopg.Connection) -> None:
    with Session(engine) as session:
        for _ in range(3):
            pid = session.scalar(text("select pg_backend_pid()"))
            db.execute("select pg_terminate_backend(%s)", [pid])
            with pytest.raises(engine.dialect.loaded_dbapi.OperationalError):
                queue.add_job("never", connection=session)
            session.rollback()
        queue.add_job("kept", connection=session)
        session.commit()
    assert stored(queue) == ["kept"]


def test_sessions_that_cannot_be_used_say_why(queue: Queue, engine: Engine) -> None:
    def refused(given: object, kind: type[Exception], why: str) -> None:
        with pytest.raises(kind, match=why):
            queue.add_job("never", connection=given)

    refused(engine, InvalidJobSpec, r"^connection: expected .* a Session or Connection of SQLAlchemy, .*Engine'>$")
    refused(sessionmaker(engine), InvalidJobSpec, r"sessionmaker'>$")
    with engine.connect() as connection:
        pass
    refused(connection, ResourceClosedError, "This Connection is closed")
    with engine.begin() as connection:
        connection.commit()
        refused(connection, InvalidRequestError, "closed transaction inside context manager")
    with Session() as session:
        refused(session, UnboundExecutionError, "bind")
    with Session(engine, autobegin=False) as session:
        refused(session, InvalidRequestError, "Autobegin is disabled")
    with Session(engine, twophase=True) as session:
        refused(session, NotSupported, r"^connection: PostgreSQL prepares no transaction that has a job in it; ")
    other = create_engine("sqlite://")
    with other.connect() as connection:
        refused(connection, NotSupported, r"^connection: SQLAlchemy's is to sqlite; jobs are kept in PostgreSQL$")
    other.dispose()
    assert stored(queue) == []


def test_another_driver_is_refused(queue: Queue, migrated_url: str) -> None:
    pytest.importorskip("pg8000", reason="the driver that is refused is not here: make setup")
    part = conninfo_to_dict(migrated_url)
    host, port = str(part["host"]), int(part["port"])
    where = {"unix_sock": f"{host}/.s.PGSQL.{port}"} if host.startswith("/") else {"host": host, "port": port}
    engine = create_engine(f"postgresql+pg8000://{part['user']}@/{part['dbname']}", connect_args=where)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
        with pytest.raises(NotSupported, match=r"^connection: jobs cannot be added over SQLAlchemy's driver pg8000; "):
            queue.add_job("never", connection=connection)
    engine.dispose()
