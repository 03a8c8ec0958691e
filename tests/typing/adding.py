"""Adding jobs as typed users write it; checked by mypy --strict, never run.

A `type: ignore` here is a test too: it says that the line must be an error, for mypy complains of unused ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import psycopg
from psycopg_pool import ConnectionPool
from typing_extensions import assert_type

from graphile_worker_py import AddJob, Job, JobContext, JobInfo, JobSpec, Queue, TaskStats, quick_add_job


def connect(pool: ConnectionPool[psycopg.Connection[tuple[object, ...]]]) -> None:
    assert_type(Queue(), Queue)
    Queue("postgresql:///app", schema="jobs", min_size=0, max_size=4, connect_timeout=2.5, prepared_statements=False)
    Queue("postgresql:///app", max_lifetime=60, statement_timeout=None, listen=False)
    Queue("postgresql:///app", statement_timeout=5.0, listen="postgresql://direct/app")
    Queue(pool)
    with Queue() as queue:
        assert_type(queue, Queue)
        assert_type(queue.migrate(), list[int])
    Queue(5)  # type: ignore[arg-type]
    Queue("postgresql:///app", "jobs")  # type: ignore[call-arg]


def add(queue: Queue, connection: psycopg.Connection) -> None:
    assert_type(queue.add_job("send_email"), Job)
    job = queue.add_job(
        "send_email",
        {"to": "someone@example.com"},
        queue_name="mail",
        run_at=timedelta(minutes=5),
        priority=-1,
        max_attempts=3,
        job_key="mail:1",
        job_key_mode="preserve_run_at",
        flags=["bulk"],
        connection=connection,
    )
    assert_type(job.id, int)
    assert_type(job.run_at, datetime)
    assert_type(job.key, str | None)
    queue.add_job("x", run_at=datetime.now(timezone.utc), flags=(flag for flag in "ab"), connection=connection.cursor())
    queue.add_job(5)  # type: ignore[arg-type]
    queue.add_job("x", {}, "queue")  # type: ignore[call-arg]
    queue.add_job("x", run_at="tomorrow")  # type: ignore[arg-type]
    queue.add_job("x", job_key="k", job_key_mode="merge")  # type: ignore[arg-type]
    assert_type(quick_add_job("postgresql:///app", "x", [1, 2], priority=1), Job)
    quick_add_job(None, "x", queue="q")  # type: ignore[call-arg]


def specs() -> Iterator[JobSpec]:
    yield JobSpec("x", {"n": 1}, priority=3, job_key="k", flags=["a"])
    yield JobSpec("x", queue_name=5)  # type: ignore[arg-type]


def add_many(queue: Queue) -> None:
    assert_type(queue.add_jobs(specs()), list[Job])
    assert_type(queue.add_jobs([JobSpec("x")], job_key_preserve_run_at=True, on_progress=print), list[Job])
    queue.add_jobs(["x"])  # type: ignore[list-item]
    JobSpec("x").priority = 5  # type: ignore[misc]


def one_signature(queue: Queue, context: JobContext) -> list[AddJob]:
    """Queue.add_job and JobContext.add_job are the protocol that is stated once."""
    return [queue.add_job, context.add_job]


def administer(queue: Queue) -> None:
    assert_type(queue.remove_job("k"), Job | None)
    assert_type(queue.complete_jobs([1]), list[Job])
    assert_type(queue.permanently_fail_jobs([1], "no such customer"), list[Job])
    assert_type(queue.reschedule_jobs({1, 2}, run_at=timedelta(hours=1), priority=2, attempts=0), list[Job])
    queue.force_unlock_workers(["worker-1"])
    queue.cleanup(["GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"])
    queue.cleanup(["VACUUM"])  # type: ignore[list-item]
    assert_type(queue.job(1), Job | None)
    assert_type(queue.stats(), list[TaskStats])
    page = queue.jobs(state="failed", task="x", limit=10)
    assert_type(list(page), list[JobInfo])
    queue.jobs(state="lost")  # type: ignore[arg-type]
