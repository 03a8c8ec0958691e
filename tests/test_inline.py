"""Jobs that are run by the thread that asks for it: all of it on one connection that is given, or on the queue's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from graphile_worker_py import (
    GraphileWorkerError,
    JobCompleted,
    JobContext,
    JobFailed,
    JobLost,
    JobSpec,
    JobStarted,
    NotSupported,
    Queue,
    UnknownTask,
    WorkerPool,
)
from graphile_worker_py._one_connection import OneConnection
from graphile_worker_py.errors import JobNotHeld
from graphile_worker_py.testing import drain
from graphile_worker_py.worker.inline import InlineWorker, moved


@pytest.fixture
def own(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Return the caller's connection, in a transaction that was begun by writing a row."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        connection.execute("create table effects (what text)")
        yield connection
        connection.rollback()


def effects(connection: psycopg.Connection[Any]) -> list[str]:
    return [row["what"] for row in connection.execute("select what from effects").fetchall()]


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


# On one connection.


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
    with moved(queue, OneConnection(own, schema=queue.schema)):
        for call in (queue.migrate, WorkerPool(queue, 1).start, queue.run_once):
            with pytest.raises(NotSupported, match="one connection of a test"):
                call()
        assert queue.add_job("fine").task_identifier == "fine"
        assert queue.cleanup() == {"GC_JOB_QUEUES": 0}
        queue.close()
    assert not own.closed
    assert not queue.jobs()
