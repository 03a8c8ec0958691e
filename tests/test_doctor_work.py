"""What the doctor finds in the jobs, and in those who work on them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
from doctoring import NOTHING, assert_mended, findings, one, update_jobs

from graphile_worker_py import JobSpec, Queue, Tasks, WorkerPool


def test_workers(queue: Queue, db: psycopg.Connection, pools: Callable[..., WorkerPool]) -> None:
    one(findings(queue, "workers"), "note", "no worker of ours is running")
    db.execute(
        "insert into graphile_worker._private_py_pools (id, beat_at, dead_after, host, pid, concurrency, version)"
        " values ('pool-''gone', now() - interval '10 minutes', '1 minute', 'elsewhere', 77, 8, '0.1')"
    )
    job = queue.add_job("work")
    update_jobs(db, "locked_at = now() - interval '2 hours', locked_by = 'pool-''gone'")
    found = findings(queue, "workers")
    one(found, "note", "no worker of ours is running")
    dead = one(found, "warning", "pool-'gone (process 77 on elsewhere) has given no sign of life for 10 min")
    assert_mended(db, queue, dead)
    assert queue.job(job.id).locked_by is None
    queue.task("other")(print)
    pools()
    assert findings(queue, "workers") == NOTHING


def test_locks(queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("work", queue_name="one")
    queue.add_job("work")
    for hours, level in ((2, "note"), (5, "warning")):
        since = f"locked_at = now() - interval '{hours} hours', locked_by = 'worker-é''1'"
        update_jobs(db, since)
        db.execute(f"update graphile_worker._private_job_queues set {since}".encode())  # noqa: S608
        found = one(findings(queue, "locks"), level, "worker-é'1, of which no sign of life is known")
        assert f"for up to {hours} h: of jobs 2, of queues 1; after four hours" in found.what
    assert_mended(db, queue, found)
    db.execute(
        "insert into graphile_worker._private_py_pools (id, dead_after, host, pid, concurrency, version)"
        " values ('p', '1 minute', 'h', 1, 1, '')"
    )
    update_jobs(db, "locked_at = now() - interval '2 hours', locked_by = 'p'", "id = 2")
    assert findings(queue, "locks") == NOTHING
    update_jobs(db, "locked_at = now() - interval '5 hours'", "id = 2")
    one(findings(queue, "locks"), "warning", "p, which lives, has held locks for up to 5 h: of jobs 1, of queues 0")


def test_jobs_that_wait(queue: Queue, db: psycopg.Connection) -> None:
    tasks = Tasks()
    tasks.task("known")(lambda payload: None)
    for task, priority in (("known", 0), ("strange", -5), ("known", 9)):
        queue.add_job(task, priority=priority)
    queue.add_job("later", run_at=timedelta(days=1))
    update_jobs(db, "created_at = now() - interval '3 hours', run_at = run_at - interval '3 hours'")
    one(findings(queue, "waiting"), "warning", "known (2, for up to 3 h), strange (1, for up to 3 h)")
    assert findings(queue, "unknown-tasks") == NOTHING
    queue.include(tasks)
    assert one(findings(queue, "waiting"), "warning", "known (2, ").what.endswith("known (2, for up to 3 h)")
    one(findings(queue, "unknown-tasks"), "warning", "no handler here: later, strange")
    for task in ("strange", "later"):
        queue.task(task)(lambda payload: None)
    assert queue.run_once().completed == 3
    assert findings(queue, "waiting") == findings(queue, "unknown-tasks") == NOTHING


def test_jobs_that_failed_for_good(queue: Queue, db: psycopg.Connection) -> None:
    for number in range(7):
        queue.add_jobs([JobSpec(f"task {number}")] * (7 - number))
    update_jobs(db, "attempts = max_attempts")
    found = one(findings(queue, "failed"), "warning", "task 0 (7), task 1 (6)", "task 4 (3) and 2 more")
    assert "cleanup DELETE_PERMAFAILED_JOBS" in found.do
    queue.cleanup(["DELETE_PERMAFAILED_JOBS"])
    assert findings(queue, "failed") == NOTHING
