"""Handlers that run longer than they may: told first, then interrupted, then reported; and nobody else is disturbed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from plain_sql import eventually
from programs import program
from tcp_proxy import TcpProxy

from graphile_worker_py import (
    InvalidJobSpec,
    JobContext,
    JobFailed,
    JobStuck,
    JobTimeout,
    Queue,
    RunSummary,
    SchemaMissing,
    WorkerPool,
    executable_tasks,
)
from graphile_worker_py.worker import deadlines

Pools = Callable[..., WorkerPool]
LONG = 60.0  # seconds; nothing here waits for them


def spin(seconds: float = LONG) -> None:
    """Wait, in Python and not in C."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)


@pytest.fixture
def failed(queue: Queue) -> list[JobFailed]:
    told: list[JobFailed] = []
    queue.events.subscribe(JobFailed, told.append)
    return told


@pytest.mark.parametrize("timeout", [0.2, timedelta(milliseconds=200)], ids=str)
def test_a_handler_without_a_context_is_interrupted(
    queue: Queue, pools: Pools, failed: list[JobFailed], timeout: Any
) -> None:
    @queue.task(timeout=timeout)
    def slow(payload: Any) -> None:
        spin()

    @queue.task
    def quick(payload: Any) -> None:
        pass

    job = queue.add_job("slow", "hunter2")
    began = time.monotonic()
    pools(1)
    eventually(lambda: failed)
    assert 0.2 <= time.monotonic() - began < 5
    assert (failed[0].job.id, failed[0].final) == (job.id, False)
    assert isinstance(failed[0].exception, JobTimeout)
    stored = queue.job(job.id)
    assert stored
    first, *rest = (stored.last_error or "").splitlines()
    assert first == "graphile_worker_py.errors.JobTimeout: the job ran longer than the 0.2 s it may"
    assert any(line.endswith("in spin") for line in rest)
    assert "hunter2" not in failed[0].error
    queue.add_job("quick")
    eventually(lambda: len(queue.jobs()) == 1)  # the thread goes on


def test_a_handler_is_told_first_and_may_end_by_itself(queue: Queue) -> None:
    seen: list[Any] = []

    @queue.task(timeout=0.3)
    def slow(payload: Any, ctx: JobContext) -> None:
        ctx.check_cancelled()
        seen.append(ctx.remaining)
        assert ctx.cancelled.wait(30)
        seen.append(ctx.remaining)
        with pytest.raises(JobTimeout, match=r"longer than the 0\.3 s"):
            ctx.check_cancelled()

    queue.add_job("slow")
    assert queue.run_once() == RunSummary(1, 0, 0)
    assert 0 < seen[0] <= 0.3
    assert seen[1] == 0.0


def test_one_that_goes_on_is_interrupted_a_second_later(queue: Queue, failed: list[JobFailed]) -> None:
    told_at: list[float] = []

    @queue.task(timeout=0.1)
    def deaf(payload: Any, ctx: JobContext) -> None:
        assert ctx.cancelled.wait(30)
        told_at.append(time.monotonic())
        spin()

    queue.add_job("deaf", max_attempts=1)
    assert queue.run_once() == RunSummary(0, 0, 1)
    assert time.monotonic() - told_at[0] >= 0.9
    assert isinstance(failed[0].exception, JobTimeout)


def test_the_own_clock_tells_before_anybody_else(queue: Queue) -> None:
    @queue.task(timeout=0.05, max_attempts=1)
    def busy(payload: Any, ctx: JobContext) -> None:
        while True:
            ctx.check_cancelled()

    queue.add_job("busy")
    assert queue.run_once() == RunSummary(0, 0, 1)
    assert "JobTimeout: the job" in (queue.jobs().items[0].last_error or "")


def test_without_a_limit_nothing_remains_to_be_said(queue: Queue) -> None:
    seen: list[Any] = []

    @queue.task
    def free(payload: Any, ctx: JobContext) -> None:
        ctx.check_cancelled()
        seen.extend([ctx.remaining, ctx.cancelled.is_set(), ctx.cancelled is ctx.cancelled])

    queue.add_job("free")
    queue.run_once()
    assert seen == [None, False, True]


def test_a_call_that_does_not_return_is_reported_and_fails_when_it_does(
    queue: Queue, pools: Pools, failed: list[JobFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "TO_ARRIVE", 0.05)
    stuck: list[JobStuck] = []
    queue.events.subscribe(JobStuck, stuck.append)
    lock = threading.Lock()
    lock.acquire()

    @queue.task(timeout=0.05)
    def blocked(payload: Any) -> None:
        lock.acquire()  # a call of C, which looks at nothing else

    job = queue.add_job("blocked")
    pools(1, stuck_after=None)
    eventually(lambda: len(stuck) >= 2)
    assert not failed
    lock.release()
    eventually(lambda: failed)
    assert isinstance(failed[0].exception, JobTimeout)
    assert [event.job.id for event in stuck[:2]] == [job.id, job.id]
    assert stuck[0].stack.splitlines()[0].endswith("in blocked")
    assert stuck[1].seconds >= 2 * stuck[0].seconds


def test_a_handler_that_swallows_it_is_not_interrupted_again(queue: Queue, pools: Pools) -> None:
    swallowed: list[BaseException] = []
    done = threading.Event()

    @queue.task(timeout=0.05)
    def stubborn(payload: Any) -> None:
        try:
            spin()
        except JobTimeout as error:
            swallowed.append(error)
        spin(0.3)
        done.set()

    queue.add_job("stubborn")
    pools(1)
    assert done.wait(30)
    eventually(lambda: not queue.jobs())
    assert len(swallowed) == 1


def test_jobs_that_end_when_their_time_does_disturb_no_others(
    queue: Queue, pools: Pools, failed: list[JobFailed]
) -> None:
    """Each of these ends at about the moment it is interrupted; those of the other task run in the same threads."""
    ran: list[int] = []

    @queue.task(timeout=0.02, max_attempts=1)
    def close_call(payload: int) -> None:
        spin(0.02 + (payload % 11 - 5) / 1000)

    @queue.task(max_attempts=1)
    def bystander(payload: int) -> None:
        spin(0.001)
        ran.append(payload)

    for number in range(150):
        queue.add_job("close_call", number)
        queue.add_job("bystander", number)
    pools(4)
    eventually(lambda: not queue.jobs(state="ready") and not queue.jobs(state="running"), seconds=60)
    assert sorted(ran) == list(range(150))
    assert {event.job.task_identifier for event in failed} == {"close_call"}
    assert all(isinstance(event.exception, JobTimeout) for event in failed)


def test_a_statement_of_a_transaction_is_cancelled_and_nothing_is_left_of_it(
    queue: Queue, failed: list[JobFailed], db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    db.execute("create table written (n int)")

    @queue.task(timeout=0.2, max_attempts=1)
    def slow(payload: Any, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into written values (1)")
            connection.execute("select pg_sleep(60)")

    queue.add_job("slow")
    assert queue.run_once() == RunSummary(0, 0, 1)
    assert isinstance(failed[0].exception, JobTimeout)
    assert db.execute("select count(*) from written").fetchone() == (0,)
    sleeping = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"
    eventually(lambda: db.execute(sleeping).fetchone() == (0,))
    assert not [record for record in caplog.records if record.name.startswith("psycopg")]


def test_connections_of_the_queue_are_not_lost_by_it(queue: Queue, migrated_url: str, failed: list[JobFailed]) -> None:
    """Handlers that do nothing but add jobs are interrupted while they do: the pool, of three, stays as it was."""
    with Queue(migrated_url, max_size=3) as small:
        small.events.subscribe(JobFailed, failed.append)

        @small.task(timeout=0.05, max_attempts=1)
        def adder(payload: Any) -> None:
            while True:
                small.add_job("nobody", job_key="k")

        for _ in range(30):
            small.add_job("adder")
        assert small.run_once(concurrency=2).failed == 30
        assert all(isinstance(event.exception, JobTimeout) for event in failed)
        held = []
        for _ in range(3):
            lent = small.database.connection()
            lent.__enter__()
            held.append(lent)
        for lent in held:
            lent.__exit__(None, None, None)


def test_one_that_waits_for_a_connection_takes_it_and_gives_it_back(migrated_url: str) -> None:
    """The only connection is handed to a thread that is to be interrupted: it must not vanish on the way."""
    with Queue(migrated_url, max_size=1, connect_timeout=20) as small:
        began, taken = threading.Event(), threading.Event()
        failed: list[JobFailed] = []
        small.events.subscribe(JobFailed, failed.append)

        @small.task(timeout=1, max_attempts=1)
        def waits(payload: Any) -> None:
            began.set()
            assert taken.wait(30)
            small.remove_job("nobody's")
            spin()

        small.add_job("waits")
        with WorkerPool(small, 1) as pool:
            assert began.wait(30)
            (job,) = pool.running()
            with small.database.connection():
                taken.set()
                eventually(lambda: pool._crew and pool._crew.grips[0].reason(job))
                spin(0.1)  # it would be interrupted by now, were it not for what it is in
            eventually(lambda: failed)
        assert isinstance(failed[0].exception, JobTimeout)
        with small.database.connection() as one:
            assert not one.closed


def test_helper_threads_are_told_and_waited_for(
    queue: Queue, failed: list[JobFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "TO_HEED", 0.05)
    ended: list[str] = []

    @queue.task(timeout=0.1, max_attempts=1)
    def shared(payload: list[int], ctx: JobContext) -> list[Any]:
        def part(number: int) -> None:
            assert ctx.cancelled.wait(30)
            spin(0.3)  # past the exception for the handler's thread
            ended.append("part")
            ctx.check_cancelled()

        return ctx.map(part, payload)

    queue.add_job("shared", [1, 2])
    assert queue.run_once() == RunSummary(0, 0, 1)
    assert ended == ["part", "part"]
    assert isinstance(failed[0].exception, JobTimeout)


def test_a_job_may_have_a_limit_of_its_own(queue: Queue, pools: Pools, failed: list[JobFailed]) -> None:
    free = threading.Event()
    seen: list[float | None] = []

    @queue.task
    def unlimited(payload: Any) -> None:
        spin()

    @queue.task(timeout=1.5)
    def limited(payload: Any, ctx: JobContext) -> None:
        while not ctx.cancelled.wait(0.01) and not free.is_set():
            seen.append(ctx.remaining)

    short, long = queue.add_job("unlimited"), queue.add_job("limited")
    assert queue.set_timeout(short.id, 0.3)
    assert queue.set_timeout(long.id, None)
    pools(2)
    eventually(lambda: failed)
    assert [event.job.id for event in failed] == [short.id]
    assert "longer than the 0.3 s it may" in failed[0].error
    eventually(lambda: None in seen)  # it was told that its limit is gone
    assert queue.set_timeout(long.id, timedelta(hours=1))
    eventually(lambda: seen[-1] is not None and 3000 < seen[-1] <= 3600)  # while it runs
    free.set()
    eventually(lambda: queue.job(long.id) is None)
    assert not queue.set_timeout(long.id, 1)


def test_a_limit_may_be_given_in_the_transaction_that_adds_the_job(queue: Queue, migrated_url: str) -> None:
    queue.task("work")(lambda payload: spin())
    with psycopg.connect(migrated_url) as connection:
        job = queue.add_job("work", max_attempts=1, connection=connection)
        assert not queue.set_timeout(job.id, 0.1)  # others do not see it yet
        assert queue.set_timeout(job.id, 0.1, connection=connection)
    assert queue.run_once() == RunSummary(0, 0, 1)


def test_without_the_table_tasks_have_limits_all_the_same(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("drop table graphile_worker._private_py_timeouts")

    @queue.task(timeout=1.2, max_attempts=1)
    def slow(payload: Any) -> None:
        spin()

    job = queue.add_job("slow")
    assert queue.run_once() == RunSummary(0, 0, 1)
    with pytest.raises(SchemaMissing):
        queue.set_timeout(job.id, 1)


def test_limits_hold_while_the_database_is_away(proxied_url: str, proxy: TcpProxy) -> None:
    ended, started = threading.Event(), threading.Event()
    with Queue(proxied_url, connect_timeout=1) as queue:

        @queue.task(timeout=1.0)
        def slow(payload: Any) -> None:
            started.set()
            try:
                spin()
            except JobTimeout:
                ended.set()
                raise

        queue.add_job("slow")
        with WorkerPool(queue, 1):
            assert started.wait(30)
            proxy.refuse()
            proxy.reset()
            assert ended.wait(4)
            proxy.accept()


def test_an_executable_is_stopped(queue: Queue, tmp_path: Path) -> None:
    program(tmp_path, "x", "sleep 60\n")
    queue.include(executable_tasks(tmp_path))
    job = queue.add_job("x", max_attempts=1)
    queue.set_timeout(job.id, 0.2)
    assert queue.run_once() == RunSummary(0, 0, 1)
    stored = queue.job(job.id)
    assert stored
    assert "Process was stopped: the job ran longer than the 0.2 s it may" in (stored.last_error or "")


@pytest.mark.parametrize("timeout", [0, -1, True, "1", float("nan"), timedelta(0), timedelta(days=400)], ids=str)
def test_what_is_no_limit_is_refused(queue: Queue, timeout: Any) -> None:
    with pytest.raises(InvalidJobSpec, match="timeout: expected"):
        queue.task(timeout=timeout)(spin)
    with pytest.raises(InvalidJobSpec, match="timeout: expected"):
        queue.set_timeout(1, timeout)
