"""Where a transaction that completes a job could go wrong unseen: autocommit, psycopg's own rollback, a small pool."""

from __future__ import annotations

import threading

import psycopg
from psycopg_pool import ConnectionPool

from graphile_worker_py import InvalidJobSpec, JobContext, JobSpec, Queue, RunSummary


def test_a_connection_in_autocommit_must_be_in_a_transaction(queue: Queue, migrated_url: str) -> None:
    raised: list[BaseException] = []

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            try:
                ctx.complete(connection)
            except InvalidJobSpec as error:
                raised.append(error)
            with connection.transaction():
                ctx.complete(connection)

    queue.add_job("pay")
    assert queue.run_once().completed == 1
    assert "no transaction is open on it; begin one" in str(raised[0])


def test_a_handler_that_rolls_back_in_psycopgs_way_has_failed(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("create table effects (job bigint)")

    @queue.task
    def pay(payload: object, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")
            raise psycopg.Rollback

    job = queue.add_job("pay")
    assert queue.run_once().retrying == 1
    found = queue.job(job.id)
    assert found is not None
    assert "rolled back the transaction" in str(found.last_error)
    assert db.execute("select * from effects").fetchall() == []


def test_a_transaction_that_is_left_open_is_a_failure_by_the_tasks_policy(queue: Queue, migrated_url: str) -> None:
    asked: list[BaseException] = []

    def rule(attempt: int, error: BaseException) -> None:
        asked.append(error)

    with psycopg.connect(migrated_url) as left_open:

        @queue.task(retry=rule)
        def forget(payload: object, ctx: JobContext) -> None:
            ctx.complete(left_open)

        @queue.task(retry=rule)
        def pay(payload: object, ctx: JobContext) -> None:
            with ctx.transaction():
                pass

        queue.add_job("forget")
        queue.add_job("pay")
        assert queue.run_once() == RunSummary(completed=1, retrying=0, failed=1)
    assert [str(error)[:36] for error in asked] == ["the handler returned before it commi"]


def test_handlers_leave_connections_of_a_given_pool_to_the_worker(migrated_url: str) -> None:
    with ConnectionPool(migrated_url, min_size=1, max_size=9, open=True) as given:
        queue = Queue(given)
        at_once: list[int] = []
        inside = threading.Semaphore(0)

        @queue.task
        def pay(payload: object, ctx: JobContext) -> None:
            with ctx.transaction() as connection:
                inside.release()
                at_once.append(inside._value)
                connection.execute("select pg_sleep(0.02)")
                inside.acquire()

        queue.add_jobs(JobSpec("pay") for _ in range(20))
        assert queue.run_once(8).completed == 20
        assert max(at_once) <= 2
