"""stop() from wherever it may be called: handlers, helpers, subscribers, several threads, before and during start()."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import (
    JobCompleted,
    JobContext,
    JobFailed,
    JobStarted,
    PoolStarted,
    PoolStopped,
    Queue,
    RunSummary,
    SchemaMissing,
    SchemaTooNew,
    WorkerPool,
    _service,
    migrate,
)

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]


class Aside:
    """A call in a thread of its own; `ended` says whether it is over, `result` and `error` what came of it."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._call, args=(function, args, kwargs), daemon=True)
        self._thread.start()

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self.result = function(*args, **kwargs)
        except BaseException as error:
            self.error = error

    def ended(self, *, within: float = 0) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()


def stopping_handler(queue: Queue, stop: Callable[[], object]) -> None:
    queue.task("last")(lambda payload: stop())


def stopping_helper(queue: Queue, stop: Callable[[], object]) -> None:
    queue.task("last")(lambda payload, ctx: ctx.submit(stop))


def stopping_subscriber(kind: type[Any]) -> Callable[[Queue, Callable[[], object]], None]:
    def prepare(queue: Queue, stop: Callable[[], object]) -> None:
        queue.task("last")(lambda payload: None if kind is not JobFailed else 1 / 0)
        queue.events.subscribe(kind, lambda event: stop())

    return prepare


@pytest.mark.parametrize("timeout", [None, 30], ids=["without a timeout", "with a timeout"])
@pytest.mark.parametrize(
    "prepare",
    [stopping_handler, stopping_helper, *map(stopping_subscriber, (JobStarted, JobCompleted, JobFailed))],
    ids=["handler", "helper", "JobStarted", "JobCompleted", "JobFailed"],
)
def test_stop_from_one_of_the_pools_own_threads_waits_for_nobody(
    queue: Queue, prepare: Callable[[Queue, Callable[[], object]], None], timeout: float | None
) -> None:
    pool = WorkerPool(queue, 2, poll_interval=NEVER)
    stopped = threading.Event()

    def stop() -> None:
        pool.stop(timeout)
        stopped.set()

    prepare(queue, stop)
    queue.add_job("last", max_attempts=1)
    running = Aside(pool.run)
    assert stopped.wait(20)
    assert running.ended(within=20)
    assert (running.result, running.error) == ([], None)
    assert len(queue.jobs(state="running")) == 0


@pytest.mark.parametrize("kind", [PoolStarted, JobCompleted, PoolStopped])
def test_a_subscriber_that_stops_the_pool_every_time_hinders_nobody(queue: Queue, kind: type[Any]) -> None:
    """The outcomes that are written last are told while the pool is ending already."""
    pool = WorkerPool(queue, 4, poll_interval=NEVER)
    together = threading.Barrier(4)
    queue.task("work")(lambda payload: together.wait(30) and None)
    for _ in range(4):
        queue.add_job("work")
    queue.events.subscribe(JobCompleted, lambda event: pool.stop())
    queue.events.subscribe(kind, lambda event: pool.stop())
    running = Aside(pool.run)
    assert running.ended(within=20)
    assert (running.result, running.error) == ([], None)
    assert len(queue.jobs()) == (4 if kind is PoolStarted else 0)


def test_a_subscriber_may_stop_a_pool_that_waits_for_it(queue: Queue) -> None:
    pool = WorkerPool(queue, 2, poll_interval=NEVER)
    stopped: list[int] = []

    def stop(event: JobCompleted) -> None:
        if stopped:
            eventually(lambda: not queue_threads("crew 1") and pool._lock.locked())  # by who ends this very thread
        stopped.append(event.job.id)
        pool.stop()

    together = threading.Barrier(2)
    queue.task("work")(lambda payload: together.wait(30) and None)
    for _ in range(2):
        queue.add_job("work")
    queue.events.subscribe(JobCompleted, stop)
    running = Aside(pool.run)
    assert running.ended(within=20)
    assert (running.result, running.error) == ([], None)
    assert len(stopped) == 2


def test_stop_from_a_handler_tells_what_runs(queue: Queue) -> None:
    told: list[list[int]] = []
    pool = WorkerPool(queue, 1, poll_interval=NEVER)

    @queue.task
    def last(payload: object) -> None:
        told.append([job.id for job in pool.stop()])

    job = last.add_job()
    assert pool.run_once() == RunSummary(1, 0, 0)
    assert told == [[job.id]]


def test_a_stop_with_a_timeout_does_not_wait_for_another_without(queue: Queue, pools: Pools) -> None:
    running, go = threading.Event(), threading.Event()

    @queue.task
    def work(payload: object) -> None:
        running.set()
        assert go.wait(30)

    job = work.add_job()
    pool = pools(1, poll_interval=NEVER)
    assert running.wait(30)
    patient = Aside(pool.stop)
    eventually(lambda: not queue_threads("local queue"))  # the patient one has begun
    hasty = Aside(pool.stop, timeout=0.01)
    assert hasty.ended(within=20)
    assert [stuck.id for stuck in hasty.result] == [job.id]
    assert not patient.ended()
    go.set()
    assert patient.ended(within=20)
    assert patient.result == []


def queue_threads(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(name)]


def test_many_may_stop_a_pool_at_the_same_time(queue: Queue, pools: Pools) -> None:
    running, go = threading.Event(), threading.Event()
    stopped: list[PoolStopped] = []
    queue.events.subscribe(PoolStopped, stopped.append)

    @queue.task
    def work(payload: object) -> None:
        running.set()
        assert go.wait(30)

    work.add_job()
    pool = pools(2, poll_interval=NEVER)
    assert running.wait(30)
    stops = [Aside(pool.stop, timeout) for timeout in (None, None, 3600, 3600)]
    eventually(lambda: not queue_threads("listener"))
    go.set()
    for stop in stops:
        assert stop.ended(within=20)
        assert (stop.result, stop.error) == ([], None)
    assert len(stopped) == 1


def test_stop_without_a_timeout_cancels_after_the_grace(queue: Queue) -> None:
    running = threading.Event()

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        running.set()
        assert ctx.cancelled.wait(30)

    job = work.add_job()
    with WorkerPool(queue, 1, grace=0.01):
        assert running.wait(30)
    assert queue.job(job.id) is None


def test_what_helpers_still_do_counts_as_running(queue: Queue, pools: Pools) -> None:
    running, go = threading.Event(), threading.Event()

    def help_out() -> None:
        running.set()
        assert go.wait(30)

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        ctx.submit(help_out)

    job = work.add_job()
    pool = pools(1)
    assert running.wait(30)
    assert [stuck.id for stuck in pool.stop(timeout=0.01)] == [job.id]
    assert queue.job(job.id) is not None
    go.set()
    assert pool.stop(30) == []
    assert queue.job(job.id) is None


# Before and during start().


def test_a_pool_that_was_stopped_before_its_start_does_not_start(queue: Queue) -> None:
    queue.task("work")(lambda payload: None)
    job = queue.add_job("work")
    for begin, expected in (("start", None), ("run", []), ("run_once", RunSummary(0, 0, 0))):
        pool = WorkerPool(queue, 1)
        assert pool.stop() == []
        beginning = Aside(getattr(pool, begin))
        assert beginning.ended(within=20)
        assert (beginning.result, beginning.error) == (expected, None)
        assert not queue_threads("crew 1")
        assert pool.stop() == []
    assert queue.job(job.id) == job


def test_a_stop_during_the_start_wins(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    checking, go = threading.Event(), threading.Event()
    check = migrate.check

    def slow_check(database: Any) -> None:
        checking.set()
        assert go.wait(30)
        check(database)

    monkeypatch.setattr(migrate, "check", slow_check)
    queue.task("work")(lambda payload: None)
    job = queue.add_job("work")
    pool = WorkerPool(queue, 1)
    running = Aside(pool.run)
    assert checking.wait(30)
    assert pool.stop() == []
    go.set()
    assert running.ended(within=20)
    assert (running.result, running.error) == ([], None)
    assert not queue_threads("crew 1")
    assert queue.job(job.id) == job


# The database does not play along.


def test_a_claim_whose_answer_got_lost_goes_back_at_the_stop(
    queue: Queue, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.Event()
    begin = queue.database.begin_by_index

    def claim_and_cut(*args: Any) -> Any:
        cursor = begin(*args)()
        if cursor.rowcount > 1:  # the first is no job
            lost.set()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return lambda: cursor

    for name in ("SHORTEST_BACKOFF", "LONGEST_BACKOFF"):
        monkeypatch.setattr(_service, name, NEVER)  # so that it is the stop that gives them back
    monkeypatch.setattr(queue.database, "begin_by_index", claim_and_cut)
    queue.task("work")(lambda payload: None)
    jobs = [queue.add_job("work", queue_name="one"), queue.add_job("work")]
    pool = pools(2, poll_interval=NEVER)
    assert lost.wait(30)
    assert len(queue.jobs(state="running")) > 0
    assert pool.stop(30) == []
    assert [(info.state, info.attempts) for info in queue.jobs()] == [("ready", 0)] * 2
    monkeypatch.undo()
    assert queue.run_once(1).completed == len(jobs)


def test_a_schema_that_is_dropped_under_a_pool_does_not_keep_it_from_stopping(
    queue: Queue, pools: Pools, db: psycopg.Connection
) -> None:
    running, go = threading.Event(), threading.Event()

    @queue.task
    def work(payload: object) -> None:
        running.set()
        assert go.wait(30)

    for _ in range(9):
        work.add_job()
    pool = pools(2)
    assert running.wait(30)
    db.execute("drop schema graphile_worker cascade")
    go.set()
    assert pool.stop(30) == []


def test_run_once_ends_when_the_schema_goes(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("work")(lambda payload: db.execute("drop schema graphile_worker cascade") and None)
    queue.add_job("work")
    with pytest.raises(SchemaMissing, match=r"queue\.migrate"):
        queue.run_once(1)


def test_a_breaking_migration_that_nobody_announced_ends_run_when_the_listener_is_back(
    queue: Queue, db: psycopg.Connection
) -> None:
    queue.task("work")(lambda payload: None)
    started = threading.Event()
    queue.events.subscribe(PoolStarted, lambda event: started.set())
    running = Aside(WorkerPool(queue, 1, poll_interval=NEVER).run)
    assert started.wait(30)
    listening = "from pg_stat_activity where datname = current_database() and query like 'listen%'"
    eventually(lambda: db.execute(f"select {listening}".replace("select", "select 1")).fetchall())
    db.execute("insert into graphile_worker.migrations values (21, now(), false)")
    assert not running.ended()
    db.execute("update graphile_worker.migrations set breaking = true where id = 21")
    deadline = time.monotonic() + 30
    while not running.ended(within=0.05):  # it may have begun to listen again between two of these
        db.execute(f"select pg_terminate_backend(pid) {listening}")
        assert time.monotonic() < deadline
    assert isinstance(running.error, SchemaTooNew)
