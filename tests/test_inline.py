"""Jobs that are run by the thread that asks for it, one after the other."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from datetime import timedelta

import psycopg
import pytest

from graphile_worker_py import (
    GraphileWorkerError,
    JobCompleted,
    JobContext,
    JobFailed,
    JobLogFilter,
    JobLost,
    JobStarted,
    Queue,
    UnknownTask,
    current_job,
)
from graphile_worker_py._one_connection import OneConnection
from graphile_worker_py.testing import drain
from graphile_worker_py.worker.inline import InlineWorker


def test_jobs_run_here_in_order_until_none_is_due(queue: Queue) -> None:
    ran: list[str] = []

    @queue.task
    def note(payload: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        ran.append(payload)
        if payload == "first":
            queue.add_job("note", "added by first", priority=3)

    for payload, priority in (("last", 9), ("first", -1), ("second", 0), ("third", 0)):
        queue.add_job("note", payload, priority=priority)
    queue.add_job("note", "later", run_at=timedelta(minutes=1), priority=-9)
    done = drain(queue)
    assert ran == ["first", "second", "third", "added by first", "last"]
    assert [job.payload for job in done.completed] == ran
    assert (done.ran, done.failed, done.tasks) == (done.completed, (), ["note"] * 5)
    assert [info.state for info in queue.jobs()] == ["scheduled"]


def test_a_handler_is_known_by_its_thread_while_it_runs(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(known := JobLogFilter())

    @queue.task
    def outer(payload: str, ctx: JobContext) -> None:
        assert current_job() is ctx.job
        if payload == "outer":
            queue.add_job("outer", "inner")
            drain(queue)
            assert current_job() is ctx.job
        logging.getLogger("mine").warning("here")

    job = queue.add_job("outer", "outer")
    drain(queue)
    caplog.handler.removeFilter(known)
    assert current_job() is None
    ids = [record.job_id for record in caplog.records if record.name == "mine"]  # type: ignore[attr-defined]
    assert ids == [job.id + 1, job.id]


def test_a_drain_starts_no_thread(queue: Queue) -> None:
    before = threading.active_count()
    names: list[str] = []

    @queue.task
    def send(items: list[int], ctx: JobContext) -> list[Future[None]]:
        assert not ctx.cancelled.is_set()
        return ctx.map(lambda item: names.append(threading.current_thread().name), items)

    queue.add_job("send", [1, 2])
    assert drain(queue).tasks == ["send"]
    assert names == [threading.main_thread().name] * 2
    assert threading.active_count() == before


def test_what_time_would_bring_is_run_in_its_order(queue: Queue) -> None:
    ran: list[object] = []

    @queue.task
    def flaky(payload: object, ctx: JobContext) -> None:
        ran.append((payload, ctx.job.attempts))
        raise OSError("away")

    queue.add_job("flaky", "hour", run_at=timedelta(hours=1), priority=-5)
    queue.add_job("flaky", "now", max_attempts=3)
    drain(queue, within=timedelta(seconds=3605), raise_errors=False)
    assert ran == [("now", 1), ("now", 2), ("now", 3), ("hour", 1), ("hour", 2)]
    assert [info.state for info in queue.jobs()] == ["retrying", "failed"]


def test_a_failure_is_recorded_and_raised_as_it_was(queue: Queue) -> None:
    error = ValueError("no")

    @queue.task
    def refuse(payload: object) -> None:
        raise error

    first, second = queue.add_job("refuse", max_attempts=7), queue.add_job("refuse")
    with pytest.raises(ValueError, match="no") as raised:
        drain(queue)
    assert raised.value is error
    assert getattr(error, "__notes__", [f"raised by job {first.id} (refuse), attempt 1 of 7"]) == [
        f"raised by job {first.id} (refuse), attempt 1 of 7"
    ]
    assert raised.traceback[-1].name == "refuse"
    assert not any("executor.py" in str(entry.path) for entry in raised.traceback)
    tried, waiting = queue.jobs()
    assert (tried.state, waiting.state, waiting.id) == ("retrying", "ready", second.id)
    assert tried.last_error is not None
    assert tried.last_error.startswith("ValueError: no")


def test_failures_are_returned_if_told_so_and_not_tried_again(queue: Queue) -> None:
    @queue.task
    def half(items: list[int]) -> list[Exception | None]:
        return [None, OSError("busy")]

    @queue.task(max_attempts=1)
    def refuse(payload: object) -> None:
        raise SystemExit(3)

    batch, single = queue.add_job("half", [1, 2]), queue.add_job("refuse")
    done = drain(queue, raise_errors=False)
    assert [(event.job.id, event.final, event.remaining) for event in done.failed] == [
        (batch.id, False, 1),
        (single.id, True, None),
    ]
    left = queue.job(batch.id)
    assert left is not None
    assert left.payload == [2]
    assert (drain(queue).ran, done.completed) == ((), ())


def test_what_interrupts_a_handler_interrupts_the_test(queue: Queue) -> None:
    @queue.task
    def pressed(payload: object) -> None:
        raise KeyboardInterrupt

    @queue.task
    def failing(payload: object) -> None:
        pytest.fail("so says the test")

    for task in ("pressed", "failing"):
        queue.add_job(task)
    with pytest.raises(KeyboardInterrupt):
        drain(queue, raise_errors=False)
    with pytest.raises(pytest.fail.Exception, match="so says the test"):
        drain(queue, raise_errors=False)
    assert {info.state for info in queue.jobs()} == {"retrying"}


def test_a_named_queue_is_held_and_freed(queue: Queue, db: psycopg.Connection) -> None:
    held: list[tuple[object, ...]] = []

    @queue.task
    def step(payload: int) -> None:
        held.extend(db.execute("select queue_name, locked_by is not null from graphile_worker._private_job_queues"))
        if payload == 1:
            raise OSError("once")

    for payload in (1, 2):
        queue.add_job("step", payload, queue_name="steps")
    assert len(drain(queue, raise_errors=False).ran) == 2
    assert held == [("steps", True)] * 2
    assert db.execute(
        "select count(*) from graphile_worker._private_job_queues where locked_by is null"
    ).fetchone() == (1,)
    last = queue.add_job("step", 3, queue_name="steps")
    other = queue.add_job("step", 4, priority=5)
    db.execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'another'")
    done = drain(queue)
    assert ([job.id for job in done.ran], done.without_handler) == ([other.id], ())
    assert [info.id for info in queue.jobs(state="ready")] == [last.id]


def test_what_nobody_handles_is_left_and_named(queue: Queue) -> None:
    queue.add_job("of_node")
    with pytest.raises(UnknownTask, match="no task is registered"):
        drain(queue)
    queue.task("other")(print)
    queue.add_job("later", run_at=timedelta(days=1))
    assert drain(queue).without_handler == ("of_node",)
    assert len(queue.jobs()) == 2


def test_a_handler_that_adds_itself_does_not_run_for_ever(queue: Queue) -> None:
    @queue.task
    def again(payload: object, ctx: JobContext) -> None:
        ctx.add_job("again")

    queue.add_job("again")
    with pytest.raises(GraphileWorkerError, match=r"5 jobs were run, the last of 'again'.*at_most"):
        drain(queue, at_most=5)


def test_events_are_told(queue: Queue) -> None:
    queue.task("fine")(lambda payload: None)
    heard: list[object] = []
    for kind in (JobStarted, JobCompleted):
        queue.events.subscribe(kind, heard.append)
    job = queue.add_job("fine")
    event = InlineWorker(queue).run_next()
    assert isinstance(event, JobCompleted)
    assert (heard, event.job.id) == ([JobStarted(event.job), event], job.id)


def test_a_failure_that_is_due_again_at_once_waits_for_the_next_drain(queue: Queue) -> None:
    @queue.task
    def refuse(payload: object) -> None:
        raise ValueError("no")

    queue.events.subscribe(JobFailed, lambda event: queue.reschedule_jobs([event.job.id], run_at=timedelta(0)))
    queue.add_job("refuse")
    for attempts in (1, 2):
        (failed,) = drain(queue, raise_errors=False).failed
        assert failed.job.attempts == attempts


def test_a_job_that_is_taken_away_is_lost(queue: Queue, db: psycopg.Connection) -> None:
    @queue.task
    def lose(payload: object) -> None:
        db.execute("update graphile_worker._private_jobs set locked_by = 'another'")

    queue.add_job("lose")
    done = drain(queue)
    assert (len(done.ran), done.completed, done.failed) == (1, (), ())
    queue.force_unlock_workers(["another"])
    assert isinstance(InlineWorker(queue).run_next(), JobLost)


def test_a_drain_keeps_results_too_and_within_its_transaction(
    queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    queue.task("work", keep_result=True)(lambda payload: payload + 1)
    with psycopg.connect(migrated_url) as connection, queue.elsewhere(OneConnection(connection, schema=queue.schema)):
        job = queue.add_job("work", 1)
        drain(queue, connection=connection)
        assert queue.wait_for(job, 0) == 2
        assert db.execute("select from graphile_worker._private_py_results").fetchall() == []
        connection.rollback()
    assert queue.wait_for(job.id, 0) is None
