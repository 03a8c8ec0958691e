"""How a pool starts and stops: grace, what goes back, breaking migrations, nothing left behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import psycopg
import pytest
from command_line import listeners
from plain_sql import eventually

from graphile_worker_py import (
    GraphileWorkerError,
    JobContext,
    JobSpec,
    PoolStarted,
    Queue,
    SchemaTooNew,
    WorkerPool,
)

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]


def test_stopping_gives_back_what_nobody_started(queue: Queue, pools: Pools, db: psycopg.Connection) -> None:
    running, go = threading.Event(), threading.Event()

    @queue.task
    def work(payload: int) -> None:
        if payload == 300:
            running.set()
            assert go.wait(30)

    queue.add_jobs(JobSpec("work", number) for number in range(900))
    pool = pools(1, poll_interval=NEVER)
    assert running.wait(30)
    (claimed,) = db.execute("select count(*) from graphile_worker.jobs where locked_by = %s", [pool.id]).fetchone()
    assert claimed > 1, "nothing was fetched ahead, so this test shows nothing"
    stuck = pool.stop(timeout=0.01)
    assert [job.payload for job in stuck] == [300]
    rows = "select count(locked_by), max(attempts) from graphile_worker.jobs where id <> %s"
    assert db.execute(rows, [stuck[0].id]).fetchone() == (0, 0)
    go.set()
    assert pool.stop(30) == []
    assert queue.job(stuck[0].id) is None


def test_stopping_waits_for_handlers_and_tells_them(queue: Queue, pools: Pools) -> None:
    running = threading.Event()

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        running.set()
        assert ctx.cancelled.wait(30)

    job = work.add_job()
    pool = pools(1)
    assert running.wait(30)
    assert [stuck.id for stuck in pool.stop(timeout=0.01)] == [job.id]
    assert pool.stop(30) == []
    assert queue.job(job.id) is None
    assert pool.stop() == []


def test_a_pool_starts_once(queue: Queue, pools: Pools) -> None:
    queue.task("work")(lambda payload: None)
    pool = pools(1)
    with pytest.raises(GraphileWorkerError, match="make a new one"):
        pool.start()
    pool.stop(30)
    with pytest.raises(GraphileWorkerError, match="make a new one"):
        pool.start()


def run_in_thread(pool: WorkerPool) -> tuple[threading.Thread, list[BaseException]]:
    """Let pool.run() block a thread of its own, as a host program might; collect what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            pool.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    started = threading.Event()
    unsubscribe = pool.queue.events.subscribe(PoolStarted, lambda event: started.set())
    thread.start()
    assert started.wait(30)
    unsubscribe()
    return thread, raised


def test_run_ends_when_another_thread_stops_the_pool(queue: Queue, expected: Expected) -> None:
    queue.task("work")(lambda payload: None)
    pool = WorkerPool(queue, 1)
    thread, raised = run_in_thread(pool)
    with expected(1):
        queue.add_job("work")
    pool.stop(30)
    thread.join(30)
    assert not thread.is_alive()
    assert raised == []


def test_a_breaking_migration_ends_run_unless_it_is_one_we_know(
    queue: Queue, expected: Expected, db: psycopg.Connection
) -> None:
    queue.task("work")(lambda payload: None)
    thread, raised = run_in_thread(WorkerPool(queue, 1, poll_interval=NEVER))
    eventually(lambda: listeners(db))  # these notifications announce nothing that the ledger would tell as well
    for harmless in ('{"migrationNumber":19,"breaking":true}', '{"migrationNumber":21,"breaking":false}', "", "[1]"):
        db.execute("select pg_notify('worker:migrate', %s)", [harmless])
    with expected(1):
        queue.add_job("work")
    assert thread.is_alive()
    db.execute("""select pg_notify('worker:migrate', '{"migrationNumber":21,"breaking":true}')""")
    thread.join(30)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [SchemaTooNew]


def test_a_pool_leaves_no_connection_behind(queue: Queue, expected: Expected, db: psycopg.Connection) -> None:
    queue.task("work")(lambda payload: None)
    with WorkerPool(queue, 24), expected(100):
        queue.add_jobs(JobSpec("work") for _ in range(100))
        (count,) = db.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> %s",
            [db.info.backend_pid],
        ).fetchone() or (None,)
        assert count is not None
        assert count <= 6
    queue.close()
    deadline = time.monotonic() + 30
    others = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    while db.execute(others).fetchall():
        assert time.monotonic() < deadline


def test_a_signal_that_another_thread_catches_stops_the_pool_too(queue: Queue) -> None:
    """Nothing ends the main thread's wait then; a signal just before that wait is the same, but cannot be staged."""
    queue.task("work")(lambda payload: None)
    pool = WorkerPool(queue, 1, poll_interval=NEVER)
    catcher = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
    queue.events.subscribe(PoolStarted, lambda event: catcher.start())
    assert pool.run() == []
    catcher.join()
