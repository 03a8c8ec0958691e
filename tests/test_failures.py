"""What becomes of handlers that fail, in whatever way, and of payloads nobody can read."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from graphile_worker_py import (
    InvalidHandler,
    Job,
    JobCompleted,
    JobFailed,
    JobLost,
    Queue,
    RunSummary,
    WorkerPool,
)


def fail(queue: Queue, error: BaseException | type[BaseException], **options: object) -> Job:
    """Run a job whose handler raises this once; return what is stored of it then."""

    @queue.task("bad")
    def bad(payload: object) -> None:
        raise error

    job = queue.add_job("bad", {"secret": "payload"}, **options)
    queue.run_once(1)
    stored = queue.job(job.id)
    assert stored is not None
    return stored


def test_last_error_holds_the_message_and_the_traceback(queue: Queue) -> None:
    error = fail(queue, ValueError("no such order")).last_error or ""
    assert error.startswith("ValueError: no such order\n\nTraceback (most recent call last):")
    assert "raise error" in error
    assert "executor.py" not in error
    assert "secret" not in error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException, MemoryError])
def test_whatever_a_handler_raises_fails_its_job_only(queue: Queue, kind: type[BaseException]) -> None:
    queue.task("fine")(lambda payload: None)
    queue.add_job("fine", priority=1)
    assert fail(queue, kind).attempts == 1
    assert [info.task_identifier for info in queue.jobs()] == ["bad"]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a\x00b"), "ValueError: a\\x00b"),
        (ValueError("half \ud800 of it"), "ValueError: half \\ud800 of it"),
        (Unprintable(), "Unprintable"),
        (Hostile(), "Hostile"),
        (ValueError("x" * 10_000_000), "ValueError: xxx"),
        (ValueError(), "ValueError"),
    ],
    ids=["NUL", "surrogate", "unprintable", "hostile", "10 MB", "empty"],
)
def test_every_error_can_be_stored(queue: Queue, error: Exception, expected: str) -> None:
    stored = fail(queue, error).last_error or ""
    assert expected in stored
    assert len(stored) < 17_000


def test_an_error_the_database_cannot_store_is_replaced_and_harms_no_other(
    database_url: str, migrated_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = f"{connection.info.dbname}_latin1"
        # Since 15 a server may have locales of another provider, which know no encoding but UTF-8.
        locale = "locale_provider libc" if connection.info.server_version >= 150000 else ""
        options = f'encoding latin1 {locale} lc_collate "C" lc_ctype "C" template template0'
        connection.execute(f'create database "{name}" {options}')
        try:
            with Queue(make_conninfo(database_url, dbname=name)) as queue:
                queue.migrate()

                @queue.task
                def task(payload: dict[str, str]) -> None:
                    raise ValueError(payload["text"] + (chr(0x2603) if payload["text"] == "b" else ""))

                ids = [queue.add_job("task", {"text": text}).id for text in "abc"]
                assert queue.run_once(3) == RunSummary(completed=0, retrying=3, failed=0)
                errors = [job.last_error.split("\n")[0] for id in ids if (job := queue.job(id)) and job.last_error]
                assert errors[0] == "ValueError: a"
                assert "could not be stored" in errors[1]
                assert errors[2] == "ValueError: c"
        finally:
            connection.execute(f'drop database "{name}" with (force)')


@pytest.mark.parametrize("attempts", [0, 1, 4, 9, 15])
def test_a_failed_job_waits_as_long_as_in_node(queue: Queue, db: psycopg.Connection, attempts: int) -> None:
    queue.task("bad")(lambda payload: 1 / 0)
    job = queue.add_job("bad")
    queue.reschedule_jobs([job.id], attempts=attempts)
    queue.run_once(1)
    waits = "select extract(epoch from run_at - now())::float8 from graphile_worker._private_jobs"
    (seconds,) = db.execute(waits).fetchone() or (None,)
    expected = math.exp(min(attempts + 1, 10))
    assert expected - 30 < seconds <= expected


def test_the_last_attempt_fails_for_good(queue: Queue) -> None:
    failures: list[JobFailed] = []
    queue.events.subscribe(JobFailed, failures.append)
    job = fail(queue, ValueError("no"), max_attempts=1)
    assert (job.attempts, job.max_attempts) == (1, 1)
    assert [info.id for info in queue.jobs(state="failed")] == [job.id]
    assert [failure.final for failure in failures] == [True]
    assert queue.run_once() == RunSummary(0, 0, 0)


def test_a_payload_python_cannot_read_fails_alone(queue: Queue, db: psycopg.Connection) -> None:
    seen: list[int] = []
    queue.task("read")(seen.append)
    for payload in ("1", "9" * 5000, "3"):  # Python refuses to read more than 4,300 digits
        db.execute("select graphile_worker.add_job('read', %s::json)", [payload])
    assert queue.run_once(1) == RunSummary(completed=2, retrying=1, failed=0)
    assert seen == [1, 3]
    (info,) = queue.jobs()
    assert info.attempts == 1


def test_an_outcome_of_a_job_somebody_else_took_changes_nothing(queue: Queue, db: psycopg.Connection) -> None:
    lost: list[JobLost] = []
    queue.events.subscribe(JobLost, lost.append)

    @queue.task
    def slow(payload: str) -> None:
        db.execute("update graphile_worker._private_jobs set locked_by = 'somebody else'")
        db.execute("update graphile_worker._private_job_queues set locked_by = 'somebody else'")
        if payload == "fail":
            raise ValueError

    for payload in ("succeed", "fail"):
        job = slow.add_job(payload, queue_name="one")
        assert queue.run_once(1) == RunSummary(0, 0, 0)
        stored = queue.job(job.id)
        assert stored is not None
        assert (stored.locked_by, stored.attempts, stored.last_error) == ("somebody else", 1, None)
        held = db.execute("select locked_by from graphile_worker._private_job_queues").fetchone()
        assert held == ("somebody else",)
        queue.force_unlock_workers(["somebody else"])
        queue.complete_jobs([job.id])
    assert [event.job.payload for event in lost] == ["succeed", "fail"]


@pytest.mark.parametrize("wrong", [("JobFailed", print), (JobFailed, None), (Job, print), (Exception, print), ([], 5)])
def test_what_is_no_event_or_no_function_is_no_subscription(wrong: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidHandler, match=r"^subscribe: expected one of the classes .*, JobStuck, and a"):
        Queue().events.subscribe(*wrong)


def test_a_subscriber_that_raises_harms_nothing(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    completed: list[JobCompleted] = []

    def broken(event: JobCompleted) -> None:
        raise ValueError("broken subscriber")

    unsubscribe = queue.events.subscribe(JobCompleted, broken)
    queue.events.subscribe(JobCompleted, completed.append)
    queue.task("fine")(lambda payload: None)
    queue.add_job("fine")
    queue.run_once()
    assert len(completed) == 1
    assert "a subscriber to JobCompleted failed" in caplog.text
    unsubscribe()
    caplog.clear()
    queue.add_job("fine")
    queue.run_once()
    assert "broken" not in caplog.text


def test_logs_hold_no_payloads(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "graphile_worker_py")
    fail(queue, ValueError("why"))
    queue.task("fine")(lambda payload: None)
    queue.add_job("fine", {"secret": "payload"})
    queue.run_once()
    assert "secret" not in caplog.text
    assert "ValueError: why" in caplog.text
    assert all("payload" not in record.getMessage() for record in caplog.records)


def test_killed_connections_lose_nothing(
    queue: Queue, db: psycopg.Connection, pools: Callable[..., WorkerPool]
) -> None:
    done = threading.Semaphore(0)
    running, go = threading.Semaphore(0), threading.Event()
    queue.events.subscribe(JobCompleted, lambda event: done.release())

    @queue.task
    def work(payload: int) -> None:
        running.release()
        assert go.wait(30)

    pools(2, poll_interval=0.1)
    for number in range(4):
        work.add_job(number)
    for _ in range(2):
        assert running.acquire(timeout=30)
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> %s",
        [db.info.backend_pid],
    )
    go.set()
    for _ in range(4):
        assert done.acquire(timeout=30)
    assert len(queue.jobs()) == 0


def test_a_claim_whose_answer_got_lost_is_given_back(
    queue: Queue, db: psycopg.Connection, pools: Callable[..., WorkerPool], migrated_url: str
) -> None:
    done = threading.Event()
    queue.task("work")(lambda payload: done.set())
    job = queue.add_job("work", run_at=None, flags=["wait"])
    pool = pools(1, poll_interval=0.1, forbidden_flags=["wait"])
    db.execute(
        "update graphile_worker._private_jobs set flags = null, attempts = 1, locked_at = now(), locked_by = %s",
        [pool.id],
    )
    waiting = (
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and wait_event_type = 'Lock' and query like 'with recursive known%'"
    )
    with psycopg.connect(migrated_url) as blocker:
        blocker.execute("lock table graphile_worker._private_job_queues in access exclusive mode")
        deadline = time.monotonic() + 30
        while not db.execute(waiting).fetchall():
            assert time.monotonic() < deadline
            pool.nudge()
    assert done.wait(30)
    pool.stop(30)
    assert queue.job(job.id) is None


def test_a_job_whose_key_was_taken_while_it_ran_fails_for_good(queue: Queue) -> None:
    failures: list[JobFailed] = []
    queue.events.subscribe(JobFailed, failures.append)

    @queue.task
    def work(payload: str) -> None:
        if payload == "first":
            queue.add_job("work", "second", job_key="k")
            raise ValueError

    work.add_job("first", job_key="k")
    assert queue.run_once(1) == RunSummary(completed=1, retrying=0, failed=1)
    assert [failure.final for failure in failures] == [True]
