"""Pools that vanish, freeze or lose the database: what becomes of their jobs, and of theirs alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon
from plain_sql import eventually

from graphile_worker_py import JobLost, Queue, RunSummary, WorkerPool
from graphile_worker_py.worker.heartbeat import Heart, now

Pools = Callable[..., WorkerPool]
QUICK = {"heartbeat": 0.1, "dead_after": 0.5, "poll_interval": 0.1}

LIVING = "select id from graphile_worker._private_py_pools order by started_at"
SILENCE = "update graphile_worker._private_py_pools set beat_at = now() - interval '61 seconds' where id = %s"


def rows(db: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    return db.execute(query).fetchall()


def heart(queue: Queue, pool_id: str) -> Heart:
    made = Heart(
        queue.database,
        pool_id,
        concurrency=1,
        interval=10,
        dead_after=60,
        on_alive=lambda until: None,
        on_dead=lambda: None,
    )
    made.register()
    return made


def test_a_pool_lives_in_the_table_as_long_as_it_runs(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("work")(print)
    with WorkerPool(queue, 3) as pool:
        assert rows(db, "select id, concurrency from graphile_worker._private_py_pools") == [(pool.id, 3)]
    assert rows(db, LIVING) == []
    queue.run_once()
    assert rows(db, LIVING) == []


def test_a_pool_may_do_without_the_table(migrated_url: str) -> None:
    with Queue(f"{migrated_url} options='-c role=pg_monitor'") as queue:  # which may not use the schema
        heart(queue, "pool-x")


def test_the_jobs_of_a_killed_worker_come_back(
    daemon: Callable[..., Daemon], folder: Path, queue: Queue, pools: Pools, db: psycopg.Connection
) -> None:
    worker = daemon("-c", "1")
    job = queue.add_job("wait", str(folder / "gate"), queue_name="line")
    assert worker.next_line() == "waiting"
    behind = queue.add_job("note", queue_name="line")
    worker.signal(signal.SIGKILL)
    worker.end()
    ((dead,),) = rows(db, LIVING)
    done: list[object] = []
    queue.task("wait")(done.append)
    queue.task("note")(done.append)
    pools(1, **QUICK)
    db.execute(SILENCE, [dead])
    eventually(lambda: len(done) == 1)  # the queue is free again, for what comes next in it
    eventually(lambda: queue.job(behind.id) is None)
    found = queue.job(job.id)
    assert found is not None
    assert (found.attempts, found.locked_by) == (1, None)
    assert str(found.last_error).startswith(f"worker vanished: {dead}")
    queue.reschedule_jobs([job.id], run_at=found.created_at)
    eventually(lambda: len(done) == 2)


def test_only_the_silent_are_judged_and_only_by_those_who_were_heard(queue: Queue, db: psycopg.Connection) -> None:
    lock = "update graphile_worker._private_jobs set locked_at = now(), locked_by = %s, attempts = 1 where id = %s"
    for holder in ("silent", "living", "node"):
        db.execute(lock, [holder, queue.add_job("work", max_attempts=1).id])
    heart(queue, "silent")
    heart(queue, "living")
    judge = heart(queue, "judge")
    db.execute(SILENCE, ["silent"])
    judge.step()
    assert len(rows(db, LIVING)) == 3  # the judge has not been heard for a minute
    judge._heard_since -= 61
    judge.step()
    assert rows(db, LIVING) == [("living",), ("judge",)]
    jobs = "select locked_by, attempts, left(last_error, 23) from graphile_worker._private_jobs order by id"
    assert rows(db, jobs) == [(None, 1, "worker vanished: silent"), ("living", 1, None), ("node", 1, None)]


def test_a_job_in_a_transaction_that_nobody_ends_holds_up_no_judge(
    queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    queue.point_at(f"{migrated_url} options='-c lock_timeout=5s'")
    heart(queue, "frozen")
    judge = heart(queue, "judge")
    judge._heard_since -= 3600
    doubted, other = (queue.add_job("work", queue_name=name).id for name in ("a", "b"))
    db.execute("update graphile_worker._private_jobs set locked_by = 'frozen', locked_at = now(), attempts = 1")
    db.execute("update graphile_worker._private_job_queues set locked_by = 'frozen', locked_at = now()")
    held = "select id from graphile_worker._private_jobs where locked_at is not null"
    queues = "select queue_name from graphile_worker._private_job_queues where locked_at is not null"
    with psycopg.connect(migrated_url) as transaction:
        transaction.execute("delete from graphile_worker._private_jobs where id = %s", [doubted])
        db.execute(SILENCE, ["frozen"])
        judge.step()
        assert (rows(db, held), rows(db, queues)) == ([(doubted,)], [("a",)])
        judge.step()
        assert (rows(db, held), rows(db, queues)) == ([(doubted,)], [("a",)])
        transaction.rollback()
    judge.step()
    assert (rows(db, held), rows(db, queues)) == ([], [])
    assert rows(db, LIVING) == [("judge",)]
    failed = "select id from graphile_worker._private_jobs where last_error like 'worker vanished: %' order by id"
    assert rows(db, failed) == [(doubted,), (other,)]


def test_a_pool_with_a_job_in_doubt_hears_that_it_was_declared_dead(
    queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    queue.point_at(f"{migrated_url} options='-c lock_timeout=5s'")
    frozen, judge = heart(queue, "frozen"), heart(queue, "judge")
    died: list[None] = []
    frozen._on_dead = lambda: died.append(None)
    judge._heard_since -= 3600
    queue.add_job("work")
    db.execute("update graphile_worker._private_jobs set locked_by = 'frozen', locked_at = now(), attempts = 1")
    with psycopg.connect(migrated_url) as transaction:
        transaction.execute("delete from graphile_worker._private_jobs")
        db.execute(SILENCE, ["frozen"])
        judge.step()
        frozen.step()
        assert died == [None]
        frozen.step()
        judge.step()
    assert died == [None]
    assert rows(db, LIVING) == [("frozen",), ("judge",)]


def test_a_silence_of_its_own_makes_a_judge_wait(queue: Queue, db: psycopg.Connection) -> None:
    judge = heart(queue, "judge")
    heart(queue, "other")
    judge._heard_since -= 3600
    judge._heard_at -= 3600  # as after an outage of the database, when nobody could be heard
    db.execute(SILENCE, ["other"])
    judge.step()
    assert rows(db, LIVING) == [("judge",), ("other",)]


def test_a_pool_that_was_declared_dead_goes_on_and_its_late_outcomes_change_nothing(
    queue: Queue, db: psycopg.Connection
) -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)
    lost: list[JobLost] = []
    queue.events.subscribe(JobLost, lost.append)

    @queue.task
    def work(payload: object) -> None:
        begun.release()
        assert gate.wait(30)

    first = queue.add_job("work")
    with WorkerPool(queue, 1, poll_interval=0.05, heartbeat=0.05, dead_after=60) as pool:
        assert begun.acquire(timeout=30)
        db.execute("delete from graphile_worker._private_py_pools")
        taken = "update graphile_worker._private_jobs set locked_by = 'other', locked_at = now() where id = %s"
        db.execute(taken, [first.id])
        eventually(lambda: rows(db, LIVING) == [(pool.id,)])
        gate.set()
        eventually(lambda: bool(lost))
        second = queue.add_job("work")
        eventually(lambda: queue.job(second.id) is None)
    assert [event.job.id for event in lost] == [first.id]
    assert rows(db, "select locked_by from graphile_worker._private_jobs") == [("other",)]


def test_a_pool_that_cannot_be_heard_begins_no_job(queue: Queue, pools: Pools, db: psycopg.Connection) -> None:
    began: list[float] = []
    queue.task("work")(lambda payload: began.append(now()))
    pool = pools(1, **QUICK)
    claimed = "select count(*) from graphile_worker._private_jobs where locked_by is not null"
    with db.transaction():
        db.execute("lock table graphile_worker._private_py_pools in access exclusive mode")
        local_queue = pool._local_queue
        assert local_queue is not None
        eventually(lambda: now() > local_queue._alive_until)
        queue.add_job("work")
        eventually(lambda: rows(db, claimed) == [(1,)])
        assert began == []
    eventually(lambda: len(began) == 1)


def test_without_the_table_there_is_all_but_recovery(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("drop table graphile_worker._private_py_pools, graphile_worker._private_py_migrations")
    queue.task("work")(lambda payload: None)
    queue.add_job("work")
    assert queue.run_once() == RunSummary(1, 0, 0)


@pytest.mark.parametrize("options", [{"heartbeat": 0}, {"dead_after": 29}, {"heartbeat": "1"}], ids=str)
def test_a_silence_shorter_than_three_beats_is_refused(queue: Queue, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        WorkerPool(queue, **options)  # type: ignore[arg-type]
