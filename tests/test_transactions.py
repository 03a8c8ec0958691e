"""A job completed in a transaction of its handler's is done when that commits, with all it wrote, exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from plain_sql import eventually
from psycopg_pool import ConnectionPool

from graphile_worker_py import JobContext, Queue, WorkerPool
from graphile_worker_py.errors import InvalidJobSpec, JobNotHeld
from graphile_worker_py.events import JobCompleted, JobFailed, JobLost


@pytest.fixture
def effects(db: psycopg.Connection) -> psycopg.Connection:
    """Return a connection to a database with a table of effects."""
    db.execute("create table effects (job bigint)")
    return db


@pytest.fixture
def told(queue: Queue) -> list[Any]:
    """Return what is told of jobs."""
    told: list[Any] = []
    for kind in (JobCompleted, JobFailed, JobLost):
        queue.events.subscribe(kind, lambda event: told.append((type(event), getattr(event, "error", "")[:60])))
    return told


def count(connection: psycopg.Connection, table: str) -> int:
    ((found,),) = connection.execute(f"select count(*) from {table}").fetchall()  # type: ignore[arg-type]  # noqa: S608
    return int(found)


def jobs(connection: psycopg.Connection) -> int:
    return count(connection, "graphile_worker._private_jobs")


def test_effect_and_completion_are_one_transaction(queue: Queue, effects: psycopg.Connection, told: list[Any]) -> None:
    seen: list[tuple[int, int]] = []

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (%s)", [ctx.job.id])
        seen.append((count(effects, "effects"), jobs(effects)))

    queue.add_job("pay")
    assert queue.run_once().completed == 1
    assert seen == [(1, 0)]
    assert told == [(JobCompleted, "")]


def test_what_fails_before_the_commit_leaves_nothing(
    queue: Queue, effects: psycopg.Connection, told: list[Any]
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")
            raise ValueError("no money")

    job = queue.add_job("pay")
    assert queue.run_once().retrying == 1
    assert count(effects, "effects") == 0
    found = queue.job(job.id)
    assert found is not None
    assert found.locked_at is None
    assert str(found.last_error).startswith("ValueError: no money")
    assert [kind for kind, _ in told] == [JobFailed]


def test_what_fails_after_the_commit_is_done(
    queue: Queue, effects: psycopg.Connection, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")
        raise ValueError("too late")

    job = queue.add_job("pay")
    assert queue.run_once().completed == 1
    assert (count(effects, "effects"), jobs(effects)) == (1, 0)
    assert told == [(JobCompleted, "")]
    assert f"job {job.id} was completed in a transaction of its handler, which then failed" in caplog.text


def test_a_transaction_of_the_callers_own_is_taken(
    queue: Queue, effects: psycopg.Connection, migrated_url: str
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with psycopg.connect(migrated_url) as connection, connection.cursor() as cursor:
            cursor.execute("insert into effects values (1)")
            ctx.complete(cursor)

    queue.add_job("pay")
    assert queue.run_once().completed == 1
    assert (count(effects, "effects"), jobs(effects)) == (1, 0)


def test_a_transaction_that_was_not_committed_fails_the_job(
    queue: Queue, effects: psycopg.Connection, told: list[Any], migrated_url: str
) -> None:
    with psycopg.connect(migrated_url) as left_open:

        @queue.task
        def forget(payload: object, ctx: JobContext) -> None:
            left_open.execute("insert into effects values (1)")
            ctx.complete(left_open)

        @queue.task
        def undo(payload: object, ctx: JobContext) -> None:
            with ctx.queue.database.connection() as connection, connection.transaction():
                connection.execute("insert into effects values (1)")
                ctx.complete(connection)
                raise psycopg.Rollback

        queue.add_job("forget")
        queue.add_job("undo")
        assert queue.run_once().retrying == 2
    assert (count(effects, "effects"), jobs(effects)) == (0, 2)
    assert {error for _, error in told} == {
        "the handler returned before it committed the transaction that completes the job"[:60],
        "the handler completed the job in a transaction that was not committed"[:60],
    }


def test_a_job_that_another_worker_has_cannot_be_completed(
    queue: Queue, effects: psycopg.Connection, told: list[Any]
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        effects.execute("update graphile_worker._private_jobs set locked_by = 'another', locked_at = now()")
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")

    job = queue.add_job("pay")
    queue.run_once()
    assert (count(effects, "effects"), jobs(effects)) == (0, 1)
    found = queue.job(job.id)
    assert found is not None
    assert found.locked_by == "another"
    assert told == [(JobLost, "")]


def test_a_job_that_another_worker_has_after_a_rollback_is_told_as_lost(
    queue: Queue, effects: psycopg.Connection, told: list[Any], migrated_url: str
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with psycopg.connect(migrated_url) as connection:
            ctx.complete(connection)
            connection.rollback()
        effects.execute("update graphile_worker._private_jobs set locked_by = 'another', locked_at = now()")

    queue.add_job("pay", queue_name="line")
    queue.run_once()
    assert told == [(JobLost, "")]
    assert count(effects, "graphile_worker._private_job_queues where locked_at is not null") == 0


def test_a_queue_that_was_moved_before_the_start_has_its_transactions_there(
    queue: Queue, effects: psycopg.Connection, migrated_url: str
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")

    queue.point_at("host=/nowhere")
    pool = WorkerPool(queue, 1)
    queue.point_at(migrated_url)
    queue.add_job("pay")
    assert pool.run_once().completed == 1
    assert count(effects, "effects") == 1


def test_completing_twice_is_refused_and_undone(queue: Queue, effects: psycopg.Connection) -> None:
    raised: list[BaseException] = []

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction():
            pass
        try:
            with ctx.transaction() as connection:
                connection.execute("insert into effects values (1)")
        except JobNotHeld as error:
            raised.append(error)

    queue.add_job("pay")
    assert queue.run_once().completed == 1
    assert len(raised) == 1
    assert count(effects, "effects") == 0


@pytest.mark.parametrize("given", [None, "postgresql:///", object()])
def test_what_is_no_connection_is_refused_by_name(queue: Queue, given: object) -> None:
    raised: list[BaseException] = []

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        try:
            ctx.complete(given)
        except InvalidJobSpec as error:
            raised.append(error)

    queue.add_job("pay")
    assert queue.run_once().completed == 1
    assert str(raised[0]).startswith("connection: expected an open connection or cursor of psycopg")


def test_named_queues_stay_serial_and_are_freed(queue: Queue, effects: psycopg.Connection) -> None:
    order: list[int] = []
    held: list[int] = []

    @queue.task
    def pay(payload: int, ctx: JobContext) -> None:
        with ctx.transaction():
            order.append(payload)
            if payload == 7:
                raise ValueError("seven")
        held.append(count(effects, "graphile_worker._private_job_queues where locked_at is not null"))

    for number in range(20):
        queue.add_job("pay", number, queue_name="line")
    summary = queue.run_once(4)
    assert (summary.completed, summary.retrying) == (19, 1)
    assert order == list(range(20))
    assert set(held) == {1}
    assert count(effects, "graphile_worker._private_job_queues where locked_at is not null") == 0


def test_as_many_handlers_as_threads_are_in_a_transaction_at_once(queue: Queue) -> None:
    all_in = threading.Barrier(24)

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction():
            all_in.wait(30)

    for _ in range(24):
        queue.add_job("pay")
    assert queue.run_once(24).completed == 24


@pytest.mark.parametrize("of_the_worker", [True, False])
def test_a_transaction_that_follows_on_the_same_connection_is_left_alone(
    queue: Queue, effects: psycopg.Connection, told: list[Any], migrated_url: str, *, of_the_worker: bool
) -> None:
    first_wrote, second_wrote, first_ended = (threading.Event() for _ in range(3))
    queue.events.subscribe(JobCompleted, lambda event: first_ended.set())
    with ConnectionPool(migrated_url, min_size=1, max_size=1) as shared:

        def write(ctx: JobContext, act: Callable[[], object]) -> None:
            with ctx.transaction() if of_the_worker else shared.connection() as connection:
                connection.execute("insert into effects values (1)")
                act()
                connection.execute("insert into effects values (2)")
                if not of_the_worker:
                    ctx.complete(connection)

        def in_between() -> None:
            second_wrote.set()
            assert first_ended.wait(30)

        @queue.task
        def first(payload: object, ctx: JobContext) -> None:
            write(ctx, lambda: None)
            first_wrote.set()
            assert second_wrote.wait(30)

        @queue.task
        def second(payload: object, ctx: JobContext) -> None:
            assert first_wrote.wait(30)
            write(ctx, in_between)

        queue.add_job("first")
        queue.add_job("second")
        assert queue.run_once(2).completed == 2
    assert (count(effects, "effects"), jobs(effects)) == (4, 0)
    assert [kind for kind, _ in told] == [JobCompleted, JobCompleted]


def test_a_child_that_returns_leaves_its_parents_transaction_and_helpers_alone(
    queue: Queue, effects: psycopg.Connection, migrated_url: str
) -> None:
    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        go = threading.Event()
        ctx.submit(go.wait, 30)
        connection = psycopg.connect(migrated_url)
        connection.execute("insert into effects values (1)")
        ctx.complete(connection)
        child = os.fork()
        if child == 0:
            return
        try:
            eventually(lambda: os.waitpid(child, os.WNOHANG)[0])
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            go.set()
        connection.execute("insert into effects values (2)")
        connection.commit()
        connection.close()

    queue.add_job("pay")
    assert queue.run_once(1).completed == 1
    assert (count(effects, "effects"), jobs(effects)) == (2, 0)


def test_a_job_in_an_open_transaction_does_not_hold_up_the_release_of_others(
    queue: Queue, effects: psycopg.Connection, migrated_url: str, pools: Callable[..., WorkerPool]
) -> None:
    queue.point_at(f"{migrated_url} options='-c lock_timeout=5s'")
    both, go = threading.Barrier(3), threading.Event()

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with psycopg.connect(migrated_url) as connection:
            ctx.complete(connection)
            both.wait(30)
            assert go.wait(30)

    @queue.task
    def plain(payload: object) -> None:
        both.wait(30)
        assert go.wait(30)

    paid = queue.add_job("pay")
    queue.add_job("plain")
    pool = pools(2)
    both.wait(30)
    try:
        pool.release(pool.stop(timeout=0))
        locked = effects.execute("select id from graphile_worker._private_jobs where locked_at is not null").fetchall()
        assert locked == [(paid.id,)]
    finally:
        go.set()


KILLED = """
import os, signal, sys
from graphile_worker_py import Queue, WorkerPool
queue = Queue(sys.argv[1])
@queue.task
def pay(payload, ctx):
    with ctx.transaction() as connection:
        connection.execute("insert into effects values (1)")
        if sys.argv[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "after":
        os.kill(os.getpid(), signal.SIGKILL)
WorkerPool(queue, 1, heartbeat=0.1, dead_after=0.5).run()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_between_write_and_return_leaves_one_effect(
    queue: Queue, effects: psycopg.Connection, migrated_url: str, moment: str, pools: Callable[..., WorkerPool]
) -> None:
    job = queue.add_job("pay")
    done = subprocess.run([sys.executable, "-c", KILLED, migrated_url, moment], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (count(effects, "effects"), jobs(effects)) == ((0, 1) if moment == "before" else (1, 0))

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")

    pools(1, heartbeat=0.1, dead_after=0.5)
    if moment == "before":
        eventually(lambda: not count(effects, "graphile_worker._private_jobs where locked_at is not null"))
        queue.reschedule_jobs([job.id], run_at=job.created_at)
    eventually(lambda: jobs(effects) == 0)
    assert count(effects, "effects") == 1
