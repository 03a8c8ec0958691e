"""Events in many threads, subscribers that do their worst, and context that stays with its job."""

from __future__ import annotations

import contextvars
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import (
    JobCompleted,
    JobContext,
    JobFailed,
    JobSpec,
    JobStarted,
    PoolStarted,
    PoolStopped,
    Queue,
    RunSummary,
    WorkerPool,
)
from graphile_worker_py.events import Events

NEVER = 3600.0  # a poll interval no test lives to see
Expected = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def hurried() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_subscriptions_of_many_threads_do_not_get_lost() -> None:
    events = Events()
    lost: list[int] = []
    begin = threading.Barrier(4)

    def subscribe_and_unsubscribe() -> None:
        begin.wait(30)
        for number in range(2000):
            heard: list[object] = []
            unsubscribe = events.subscribe(JobStarted, heard.append)
            event = JobStarted(number)  # type: ignore[arg-type]
            events.emit(event)
            if not any(other is event for other in heard):
                lost.append(number)
            unsubscribe()

    threads = [threading.Thread(target=subscribe_and_unsubscribe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert lost == []
    assert not events.wants(JobStarted)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
@pytest.mark.parametrize("kind", [PoolStarted, JobStarted, JobCompleted, JobFailed, PoolStopped])
def test_whatever_a_subscriber_raises_harms_nothing(
    queue: Queue, kind: type[Any], error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    def broken(event: object) -> None:
        raise error("from a subscriber")

    queue.events.subscribe(kind, broken)
    queue.events.subscribe(kind, told.append)
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    for number in range(6):
        queue.add_job("fine" if number % 2 else "bad", max_attempts=1)
    assert queue.run_once(2) == RunSummary(completed=3, retrying=0, failed=3)
    assert len(told) == {PoolStarted: 1, JobStarted: 6, JobCompleted: 3, JobFailed: 3, PoolStopped: 1}[kind]
    assert caplog.text.count(f"a subscriber to {kind.__name__} failed") == len(told)


def test_a_lasting_pool_outlasts_a_subscriber_that_exits(queue: Queue, expected: Expected) -> None:
    def leave(event: object) -> None:
        sys.exit(1)

    for kind in (JobStarted, JobFailed, JobCompleted):
        queue.events.subscribe(kind, leave)
    failed = threading.Event()
    queue.events.subscribe(JobFailed, lambda event: failed.set())
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    with WorkerPool(queue, 2, poll_interval=NEVER):
        queue.add_job("bad")
        assert failed.wait(30)
        with expected(3):
            queue.add_jobs(JobSpec("fine") for _ in range(3))


request = contextvars.ContextVar("request", default="none")


@pytest.mark.parametrize("with_context", [False, True], ids=["payload", "payload and context"])
def test_context_variables_stay_with_their_job(queue: Queue, with_context: bool) -> None:
    seen: list[str] = []

    def work(payload: int) -> None:
        seen.append(request.get())
        request.set(f"job {payload}")
        if payload == 1:
            raise ValueError

    def work_with_context(payload: int, ctx: JobContext) -> None:
        ctx.submit(lambda: seen.append(request.get())).result(30)
        work(payload)

    queue.task("work")(work_with_context if with_context else work)
    token = request.set("of the caller")
    queue.add_jobs(JobSpec("work", number) for number in range(4))
    assert queue.run_once(1, helper_threads=1) == RunSummary(3, 1, 0)
    request.reset(token)
    assert set(seen) == {"none"}


@pytest.mark.parametrize("name", ["add_job", "add_jobs"])
def test_the_context_adds_jobs_with_all_the_options_of_the_queue(name: str) -> None:
    of_the_queue = inspect.signature(getattr(Queue, name))
    assert inspect.signature(getattr(JobContext, name)) == of_the_queue


def test_the_options_given_to_the_context_arrive(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    later = datetime(2031, 2, 3, tzinfo=timezone.utc)
    progress: list[int] = []
    first = queue.add_job("leaf", job_key="k", run_at=later)

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        with psycopg.connect(migrated_url) as connection:
            ctx.add_jobs(
                [JobSpec("leaf", 1, job_key="k", run_at=timedelta(0)), JobSpec("leaf", 2, priority=3)],
                job_key_preserve_run_at=True,
                connection=connection,
                on_progress=progress.append,
            )
            assert db.execute("select count(*) from graphile_worker.jobs where priority = 3").fetchone() == (0,)

    work.add_job()
    assert queue.run_once(1).completed == 1
    kept = queue.job(first.id)
    assert kept is not None
    assert (kept.run_at, kept.payload) == (later, 1)
    assert progress == [2]
    eventually(lambda: db.execute("select count(*) from graphile_worker.jobs where priority = 3").fetchone() == (1,))
