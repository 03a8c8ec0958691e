"""A job is cancelled wherever it is: waiting, claimed, running here or elsewhere, given back, or over already."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from command_line import graphile
from plain_sql import eventually

from graphile_worker_py import (
    Cancellation,
    InvalidJobSpec,
    JobCancelled,
    JobContext,
    JobFailed,
    JobSpec,
    JobStuck,
    Queue,
    RunSummary,
    WorkerPool,
)
from graphile_worker_py.worker import deadlines

Pools = Callable[..., WorkerPool]
AS_CANCELLED = "cancelled: no longer wanted"


@pytest.fixture(params=["notified", "polling"])
def elsewhere(migrated_url: str, request: pytest.FixtureRequest) -> Any:
    """Return a queue of another host, as it were, whose worker is notified or has to poll."""
    with Queue(migrated_url, listen=request.param == "notified") as queue:
        yield queue


class Handler:
    """A handler that goes on until it is told to end, and notes when that was."""

    def __init__(self, queue: Queue, identifier: str = "long") -> None:
        self.began = threading.Event()
        self.told_at = 0.0
        self.ended = threading.Event()
        queue.task(identifier)(self)

    def __call__(self, payload: Any, ctx: JobContext) -> None:
        self.began.set()
        try:
            assert ctx.cancelled.wait(60)
            self.told_at = time.monotonic()
            ctx.check_cancelled()
        finally:
            self.ended.set()


def wait_until_asked(pool: WorkerPool) -> None:
    """Return when the pool has seen that nobody has cancelled the job so far; it hears of it now, or asks again."""
    oversight = pool._oversight
    assert oversight
    eventually(lambda: oversight._cancellations._asked)


def state(queue: Queue, id: int) -> tuple[str, str | None] | None:
    return next(((job.state, job.last_error) for job in queue.jobs() if job.id == id), None)


def test_one_that_waits_never_runs(queue: Queue) -> None:
    ran: list[Any] = []
    queue.task("work")(ran.append)
    first, second, later = (queue.add_job("work", number, job_key=f"k{number}") for number in range(3))
    assert queue.cancel(first.id, "no longer wanted") is Cancellation.WAITING
    assert queue.cancel(later.id) is Cancellation.WAITING
    assert queue.cancel(later.id) is Cancellation.TOO_LATE
    assert queue.run_once() == RunSummary(1, 0, 0)
    assert ran == [1]
    assert state(queue, first.id) == ("failed", AS_CANCELLED)
    assert state(queue, later.id) == ("failed", "cancelled")
    queue.reschedule_jobs([first.id], attempts=0)
    queue.add_job("work", "again", job_key="k2")  # the key is free for a new job
    assert queue.run_once() == RunSummary(2, 0, 0)
    assert queue.cancel(second.id) is Cancellation.TOO_LATE


def test_one_that_runs_elsewhere_is_told_within_a_second(queue: Queue, elsewhere: Queue) -> None:
    handler = Handler(elsewhere)
    failed: list[JobFailed] = []
    elsewhere.events.subscribe(JobFailed, failed.append)
    job = queue.add_job("long")
    with WorkerPool(elsewhere, 2) as pool:
        assert handler.began.wait(30)
        wait_until_asked(pool)
        asked_at = time.monotonic()
        assert queue.cancel(job.id, "no longer wanted") is Cancellation.RUNNING
        eventually(lambda: failed)
        assert handler.told_at - asked_at < 1.0
        assert pool.running() == []
    assert (failed[0].job.id, failed[0].final) == (job.id, True)
    assert isinstance(failed[0].exception, JobCancelled)
    assert (failed[0].error or "").splitlines()[0].endswith(f"JobCancelled: {AS_CANCELLED}")
    assert queue.cancel(job.id) is Cancellation.TOO_LATE


def test_the_key_of_one_that_runs_is_free_for_another(queue: Queue, elsewhere: Queue, migrated_url: str) -> None:
    """In one transaction too; the one that was cancelled stays cancelled."""
    handler = Handler(elsewhere)
    failed: list[JobFailed] = []
    elsewhere.events.subscribe(JobFailed, failed.append)
    job = queue.add_job("long", job_key="k")
    with WorkerPool(elsewhere, 1) as pool:
        assert handler.began.wait(30)
        wait_until_asked(pool)
        with psycopg.connect(migrated_url) as connection:
            assert queue.cancel(job.id, connection=connection) is Cancellation.RUNNING
            another = queue.add_job("later", job_key="k", connection=connection)
        eventually(lambda: failed)
    assert (failed[0].job.id, failed[0].final) == (job.id, True)
    assert another.id != job.id
    assert state(queue, another.id) == ("ready", None)


def test_one_without_a_context_is_interrupted_within_a_second(queue: Queue, elsewhere: Queue) -> None:
    began = threading.Event()
    ended_at: list[float] = []

    @elsewhere.task
    def deaf(payload: Any) -> None:
        began.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended_at.append(time.monotonic())

    job = queue.add_job("deaf")
    with WorkerPool(elsewhere, 1) as pool:
        assert began.wait(30)
        wait_until_asked(pool)
        asked_at = time.monotonic()
        assert queue.cancel(job.id) is Cancellation.RUNNING
        eventually(lambda: ended_at)
        assert ended_at[0] - asked_at < 1.0
        eventually(lambda: state(queue, job.id) is not None and queue.job(job.id).locked_by is None)  # type: ignore[union-attr]
    assert state(queue, job.id)[0] == "failed"  # type: ignore[index]


def test_no_other_job_is_touched(queue: Queue, pools: Pools) -> None:
    one, other = Handler(queue, "one"), Handler(queue, "other")
    job = queue.add_job("one")
    queue.add_job("other")
    pool = pools(2)
    assert one.began.wait(30)
    assert other.began.wait(30)
    queue.cancel(job.id)
    assert one.ended.wait(30)
    assert not other.ended.wait(0.2)
    assert pool.stop(timeout=0) == [] or pool.stop(timeout=20) == []
    assert other.ended.is_set()


def test_one_that_completes_all_the_same_is_done(queue: Queue, pools: Pools) -> None:
    began = threading.Event()

    @queue.task
    def careful(payload: Any, ctx: JobContext) -> None:
        began.set()
        assert ctx.cancelled.wait(30)

    job = queue.add_job("careful")
    pools(1)
    assert began.wait(30)
    assert queue.cancel(job.id) is Cancellation.RUNNING
    eventually(lambda: queue.job(job.id) is None)


def test_the_reason_stays_before_what_the_handler_makes_of_it(queue: Queue, pools: Pools) -> None:
    began = threading.Event()

    @queue.task
    def stubborn(payload: Any, ctx: JobContext) -> None:
        began.set()
        assert ctx.cancelled.wait(30)
        raise ValueError("half done")

    job = queue.add_job("stubborn")
    pools(1)
    assert began.wait(30)
    queue.cancel(job.id, "no longer wanted")
    eventually(lambda: queue.job(job.id).locked_by is None)  # type: ignore[union-attr]
    told = state(queue, job.id)
    assert told is not None
    assert told[0] == "failed"
    assert (told[1] or "").startswith(f"{AS_CANCELLED}\n\nValueError: half done\n")


def test_what_it_has_shared_out_is_dropped_and_reported_where_it_does_not_end(
    queue: Queue, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "TO_HEED", 0.05)
    monkeypatch.setattr(deadlines, "TO_ARRIVE", 0.05)
    ran: list[int] = []
    futures: list[Any] = []
    free, stuck = threading.Event(), threading.Event()
    failed: list[JobFailed] = []
    queue.events.subscribe(JobStuck, lambda event: stuck.set())
    queue.events.subscribe(JobFailed, failed.append)

    def part(number: int) -> None:
        ran.append(number)
        assert free.wait(30)

    @queue.task
    def shared(payload: list[int], ctx: JobContext) -> Any:
        futures.extend(ctx.map(part, payload))
        return futures

    job = queue.add_job("shared", [0, 1, 2])
    pool = pools(1, helper_threads=1, stuck_after=None)
    eventually(lambda: ran)
    wait_until_asked(pool)
    queue.cancel(job.id)
    assert stuck.wait(30)
    assert [future.cancelled() for future in futures] == [False, True, True]
    assert not failed
    free.set()
    eventually(lambda: failed)
    assert isinstance(failed[0].exception, JobCancelled)
    assert ran == [0]


def test_one_cancelled_before_it_began_is_told_when_it_runs(queue: Queue, pools: Pools) -> None:
    """The second job of a run is claimed, and not begun, while the first is running."""
    gate, began = threading.Event(), threading.Event()

    @queue.task
    def first(payload: Any) -> None:
        began.set()
        assert gate.wait(30)

    second = Handler(queue, "second")
    third = Handler(queue, "third")
    queue.task("quick")(lambda payload: None)
    queue.add_jobs(JobSpec("quick") for _ in range(40))  # a run of several takes a pool that knows its jobs as quick
    pools(1)
    eventually(lambda: not queue.jobs())
    specs = [JobSpec(name, queue_name="q") for name in ("first", "second", "third")]
    _, job, last = queue.add_jobs(specs)
    assert began.wait(30)
    assert queue.cancel(job.id) in (Cancellation.RUNNING, Cancellation.WAITING)
    gate.set()
    eventually(lambda: queue.job(job.id) is not None and queue.job(job.id).locked_by is None)  # type: ignore[union-attr]
    assert second.ended.is_set() == second.began.is_set()
    assert state(queue, job.id)[0] == "failed"  # type: ignore[index]
    assert third.began.wait(30)
    queue.cancel(last.id)
    assert third.ended.wait(30)


def test_one_that_is_given_back_does_not_run_again(queue: Queue, pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "TO_HEED", 3600.0)
    began, gate = threading.Event(), threading.Event()

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        began.set()
        assert gate.wait(30)

    job = queue.add_job("work")
    pool = pools(1)
    assert began.wait(30)
    assert queue.cancel(job.id) is Cancellation.RUNNING
    pool.release(pool.stop(timeout=0))
    gate.set()
    pool.stop()
    assert queue.run_once() == RunSummary(0, 0, 0)
    assert state(queue, job.id) == ("failed", "cancelled")


def test_one_that_another_worker_runs_has_no_attempt_left(queue: Queue, db: psycopg.Connection) -> None:
    """Node's worker cannot be interrupted; when it fails or vanishes, the job is over."""
    job = queue.add_job("work", max_attempts=32767)
    db.execute("update graphile_worker._private_jobs set locked_by = 'node', locked_at = now(), attempts = 32767")
    assert queue.cancel(job.id) is Cancellation.RUNNING
    db.execute("update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = attempts - 1")
    queue.task("work")(print)
    assert queue.run_once() == RunSummary(0, 0, 0)
    assert state(queue, job.id) == ("failed", "cancelled")


def test_a_second_attempt_is_not_the_one_that_was_cancelled(queue: Queue, pools: Pools) -> None:
    """What was asked of a claim that is over does not reach the next one, though the job is the same."""
    told: list[bool] = []

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        told.append(ctx.cancelled.wait(1.5 if told else 30))
        ctx.check_cancelled()

    job = queue.add_job("work")
    pool = pools(1)
    eventually(pool.running)
    assert queue.cancel(job.id) is Cancellation.RUNNING
    eventually(lambda: state(queue, job.id) == ("failed", queue.job(job.id).last_error))  # type: ignore[union-attr]
    queue.reschedule_jobs([job.id], attempts=0, run_at=timedelta(0))
    pool.nudge()
    eventually(lambda: queue.job(job.id) is None)
    assert told == [True, False]


def test_it_is_part_of_the_callers_transaction(queue: Queue, migrated_url: str) -> None:
    job = queue.add_job("work")
    with psycopg.connect(migrated_url) as connection:
        assert queue.cancel(job.id, connection=connection) is Cancellation.WAITING
        connection.rollback()
    assert state(queue, job.id) == ("ready", None)


def test_a_pool_asks_nothing_while_no_job_goes_on(queue: Queue, pools: Pools, expected: Any) -> None:
    asked: Counter[str] = Counter()
    run = queue.database.run

    def counted(name: str, params: Mapping[str, Any] | None = None, *, connection: object = None) -> Any:
        asked[name] += 1
        return run(name, params, connection=connection)

    queue.database.run = counted  # type: ignore[method-assign]
    queue.task("quick")(lambda payload: None)
    handler = Handler(queue)
    pools(2)
    with expected(50):
        queue.add_jobs(JobSpec("quick") for _ in range(50))
    time.sleep(1.2)  # an idle pool; this is what is measured
    assert asked["cancelled_jobs"] + asked["job_timeouts"] <= 2  # a look when it began to listen may have met jobs
    before = asked["cancelled_jobs"]
    job = queue.add_job("long")
    assert handler.began.wait(30)
    time.sleep(2.2)
    assert 1 <= asked["cancelled_jobs"] - before <= 3  # once when it had run for a while, perhaps once by the clock
    queue.cancel(job.id)
    assert handler.ended.wait(30)


def test_a_pool_that_stops_tells_its_handlers(queue: Queue, pools: Pools) -> None:
    seen: list[str] = []
    began = threading.Event()

    @queue.task
    def long(payload: Any, ctx: JobContext) -> None:
        began.set()
        assert ctx.cancelled.wait(30)
        with pytest.raises(JobCancelled) as caught:
            ctx.check_cancelled()
        seen.append(str(caught.value))

    queue.add_job("long")
    pool = pools(1)
    assert began.wait(30)
    pool.stop(timeout=0)
    pool.stop()
    assert seen == ["the worker pool is stopping"]
    assert queue.jobs().items == []


def test_what_is_no_id_or_reason_is_refused(queue: Queue) -> None:
    with pytest.raises(InvalidJobSpec, match="id: expected an int"):
        queue.cancel("1")  # type: ignore[arg-type]
    with pytest.raises(InvalidJobSpec, match="reason: "):
        queue.cancel(1, "\0")


def test_on_the_command_line(queue: Queue, migrated_url: str) -> None:
    job = queue.add_job("work")
    done = graphile("jobs", "cancel", str(job.id), "--reason", "no longer wanted", "--database", migrated_url)
    assert (done.returncode, done.stdout) == (0, "1 job cancelled.\n")
    assert state(queue, job.id) == ("failed", AS_CANCELLED)
    again = graphile("jobs", "cancel", str(job.id), "--database", migrated_url)
    assert (again.returncode, again.stderr) == (1, f"Error: left alone: {job.id} (failed)\n")
