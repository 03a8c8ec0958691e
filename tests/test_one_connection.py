"""Jobs that are added and run on one connection, the caller's, inside its transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from graphile_worker_py import (
    JobContext,
    JobNotHeld,
    JobSpec,
    NotSupported,
    Queue,
    WorkerPool,
)
from graphile_worker_py._one_connection import OneConnection
from graphile_worker_py.testing import drain


@pytest.fixture
def own(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Return the caller's connection, in a transaction that was begun by writing a row."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        connection.execute("create table effects (what text)")
        yield connection
        connection.rollback()


def effects(connection: psycopg.Connection[Any]) -> list[str]:
    return [row["what"] for row in connection.execute("select what from effects").fetchall()]


def test_all_of_it_is_in_the_given_transaction(queue: Queue, own: psycopg.Connection, db: psycopg.Connection) -> None:
    @queue.task
    def first(payload: dict[str, int], ctx: JobContext) -> None:
        own.execute("insert into effects values ('first')")
        second.add_job({"n": payload["n"] + 1})
        queue.add_jobs([JobSpec("second", {"n": n}) for n in (7, 8)])
        ctx.add_job("later", run_at=timedelta(hours=1))

    @queue.task
    def second(payload: dict[str, int]) -> None:
        own.execute("insert into effects values (%s)", [f"second {payload['n']}"])

    queue.add_job("first", {"n": 1}, connection=own)
    assert drain(queue, connection=own.cursor()).tasks == ["first", "second", "second", "second"]
    assert own.info.transaction_status == TransactionStatus.INTRANS
    assert effects(own) == ["first", "second 2", "second 7", "second 8"]
    assert own.execute("select task_identifier from graphile_worker.jobs").fetchall() == [{"task_identifier": "later"}]
    assert db.execute("select count(*) from graphile_worker.jobs").fetchone() == (0,)
    own.rollback()
    assert not queue.jobs()
    assert not isinstance(queue.database, OneConnection)


def test_jobs_of_others_that_came_after_the_transaction_began_are_due(queue: Queue, own: psycopg.Connection) -> None:
    queue.task("fine")(lambda payload: None)
    queue.add_job("fine")
    assert drain(queue, connection=own).tasks == ["fine"]
    own.rollback()
    assert [info.state for info in queue.jobs()] == ["ready"]


def test_a_failure_keeps_what_was_written_and_the_transaction(queue: Queue, own: psycopg.Connection) -> None:
    @queue.task
    def raises(payload: object) -> None:
        own.execute("insert into effects values ('kept')")
        raise ValueError("after writing")

    @queue.task
    def breaks(payload: object) -> None:
        own.execute("insert into effects values ('undone')")
        own.execute("select 1 / 0")

    @queue.task
    def swallows(payload: object) -> None:
        try:
            breaks(payload)
        except psycopg.Error:
            own.cursor()

    for task in ("raises", "breaks", "swallows"):
        queue.add_job(task, connection=own)
    done = drain(queue, connection=own, raise_errors=False)
    assert [type(event.exception) for event in done.failed] == [ValueError, psycopg.errors.DivisionByZero]
    assert [job.task_identifier for job in done.completed] == ["swallows"]
    assert effects(own) == ["kept"]


def test_a_handler_completes_its_job_in_the_transaction(queue: Queue, own: psycopg.Connection) -> None:
    @queue.task
    def by_block(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            assert connection is own
            connection.execute("insert into effects values ('block')")
        with pytest.raises(JobNotHeld), ctx.transaction():
            pass

    @queue.task
    def by_call(payload: object, ctx: JobContext) -> None:
        own.execute("insert into effects values ('call')")
        ctx.complete(own)

    @queue.task
    def then_fails(payload: object, ctx: JobContext) -> None:
        ctx.complete(own)
        raise ValueError("too late to fail")

    @queue.task
    def rolls_back(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values ('undone')")
            raise ValueError("in time")

    for task in ("by_block", "by_call", "then_fails", "rolls_back"):
        queue.add_job(task, connection=own)
    done = drain(queue, connection=own, raise_errors=False)
    assert [job.task_identifier for job in done.completed] == ["by_block", "by_call", "then_fails"]
    assert [str(event.exception) for event in done.failed] == ["in time"]
    assert effects(own) == ["block", "call"]


def test_what_a_broken_transaction_completed_is_not_done(queue: Queue, own: psycopg.Connection) -> None:
    @queue.task
    def breaks(payload: object, ctx: JobContext) -> None:
        ctx.complete(own)
        own.execute("select 1 / 0")

    queue.add_job("breaks", connection=own)
    with pytest.raises(psycopg.errors.DivisionByZero):
        drain(queue, connection=own)
    assert own.execute("select attempts from graphile_worker.jobs").fetchall() == [{"attempts": 1}]


def test_a_handler_that_commits_the_shared_transaction_fails(queue: Queue, own: psycopg.Connection) -> None:
    @queue.task
    def commits(payload: object) -> None:
        own.commit()

    queue.add_job("commits", connection=own)
    with pytest.raises(psycopg.ProgrammingError, match="commit"):
        drain(queue, connection=own)
    own.rollback()
    assert not queue.jobs()


def test_a_connection_in_autocommit_keeps_each_job(queue: Queue, db: psycopg.Connection) -> None:
    @queue.task
    def twice(payload: object, ctx: JobContext) -> None:
        assert ctx.job.locked_by is not None
        ctx.complete(db)

    @queue.task
    def refuse(payload: object) -> None:
        raise ValueError("no")

    for task in ("twice", "refuse"):
        queue.add_job(task)
    done = drain(queue, connection=db, raise_errors=False)
    assert ([job.task_identifier for job in done.completed], len(done.failed)) == (["twice"], 1)
    assert db.info.transaction_status == TransactionStatus.IDLE
    assert [info.state for info in queue.jobs()] == ["retrying"]


def test_an_untouched_connection_is_not_committed(queue: Queue, migrated_url: str) -> None:
    queue.task("fine")(lambda payload: None)
    queue.add_job("fine")
    with psycopg.connect(migrated_url) as connection:
        assert drain(queue, connection=connection).tasks == ["fine"]
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        connection.rollback()
    assert len(queue.jobs()) == 1


def test_an_outcome_the_database_refuses_fails_the_job(queue: Queue, own: psycopg.Connection) -> None:
    own.execute(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'kept for the records'; end $$;"
        "create trigger refuse before delete on graphile_worker._private_jobs for each row execute function refuse()"
    )
    queue.task("fine")(lambda payload: None)
    queue.add_job("fine", connection=own)
    (event,) = drain(queue, connection=own, raise_errors=False).failed
    assert "could not be deleted" in event.error
    assert "kept for the records" in event.error


def test_what_needs_other_connections_is_refused(queue: Queue, own: psycopg.Connection) -> None:
    queue.task("fine")(lambda payload: None)
    with queue.elsewhere(OneConnection(own, schema=queue.schema)):
        for call in (queue.migrate, WorkerPool(queue, 1).start, queue.run_once):
            with pytest.raises(NotSupported, match="one connection of a test"):
                call()
        assert queue.add_job("fine").task_identifier == "fine"
        assert queue.cleanup() == {"GC_JOB_QUEUES": 0}
        queue.close()
    assert not own.closed
    assert not queue.jobs()
