"""Named queues: one job at a time, in order, whatever fails, stops or holds a row; claimed and worked off in runs."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

import attrs
import psycopg
import pytest
from plain_sql import eventually
from psycopg import sql

from graphile_worker_py import Job, JobContext, JobFailed, JobLost, JobSpec, Queue, RunSummary, WorkerPool
from graphile_worker_py.worker import local_queue
from graphile_worker_py.worker.pace import Throughput

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]

LOCK = "select from graphile_worker._private_jobs where payload::text = %s for update"


# Several queues, and rows that others hold.


def test_slow_jobs_of_several_queues_take_all_threads_at_once(queue: Queue, expected: Expected, pools: Pools) -> None:
    together = threading.Barrier(4)

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        if ctx.job.id in first:
            together.wait(20)

    jobs = queue.add_jobs(JobSpec("work", queue_name=name) for name in "abcd" for _ in range(20))
    first = {job.id for job in jobs[::20]}
    with expected(len(jobs)):
        pools(4, poll_interval=NEVER)


@pytest.mark.parametrize("run_length", [1, 2, 10])
@pytest.mark.parametrize("locked", [1, 2, 3])
def test_nothing_overtakes_a_job_whose_row_somebody_holds(
    queue: Queue, migrated_url: str, monkeypatch: pytest.MonkeyPatch, locked: int, run_length: int
) -> None:
    monkeypatch.setattr(Throughput, "soon_for_one", lambda self: run_length)
    ran: list[int] = []
    queue.task("work")(ran.append)
    queue.add_jobs(JobSpec("work", number, queue_name="one") for number in (1, 2, 3, 4))
    with psycopg.connect(migrated_url) as other:
        other.execute(LOCK, [str(locked)])
        assert queue.run_once(4).completed == locked - 1
        assert ran == list(range(1, locked))
        states = {info.state for info in queue.jobs()}
        assert states == {"ready"}
    assert queue.run_once(2).completed == 5 - locked
    assert ran == [1, 2, 3, 4]


def test_a_job_that_is_being_replaced_by_its_key_is_waited_for(queue: Queue, migrated_url: str) -> None:
    ran: list[int] = []
    queue.task("work")(ran.append)
    queue.add_job("work", 1, queue_name="one", job_key="k")
    queue.add_job("work", 2, queue_name="one")
    with psycopg.connect(migrated_url) as other:
        keep = {"job_key": "k", "job_key_mode": "preserve_run_at"}
        queue.add_job("work", 10, queue_name="one", connection=other, **keep)  # type: ignore[arg-type]
        assert queue.run_once(4) == RunSummary(0, 0, 0)
    queue.run_once(4)
    assert ran == [10, 2]


def test_a_held_row_holds_up_its_own_queue_only(
    queue: Queue, expected: Expected, pools: Pools, migrated_url: str
) -> None:
    queue.task("work")(lambda payload: None)
    queue.add_jobs(JobSpec("work", number, queue_name="held") for number in range(50))
    with psycopg.connect(migrated_url) as other:
        other.execute(LOCK, ["0"])
        pools(1, poll_interval=NEVER)
        with expected(3):
            queue.add_jobs([JobSpec("work", queue_name="free"), JobSpec("work", queue_name="idle"), JobSpec("work")])
        assert len(queue.jobs(queue_name="held", state="ready")) == 50
        with expected(50):
            other.rollback()


# Runs: of one queue many jobs are claimed at once, for one thread.


@attrs.frozen
class Start:
    """A job's start: what was asked for, its attempt, the claim it came from, and how many were claimed behind it."""

    number: int
    attempt: int
    claim: datetime | None
    behind: int


class Runs:
    """Works off jobs of the queue `one`, and acts once, in the first job that has others of its run behind it."""

    SOONEST = 200  # a run is as long as a thread is fast, so that has to be found out first

    def __init__(self, queue: Queue, db: psycopg.Connection, act: Callable[[], object]) -> None:
        self.starts: list[Start] = []
        self.acted: Start | None = None
        self._db = db
        self._act = act
        queue.task("work")(self.work)
        self.jobs = queue.add_jobs(JobSpec("work", number, queue_name="one") for number in range(1000))

    def work(self, payload: int, ctx: JobContext) -> None:
        job = ctx.job
        behind = 0
        if payload >= self.SOONEST and self.acted is None:
            count = "select count(*) from graphile_worker._private_jobs where locked_by = %s and id > %s"
            (behind,) = self._db.execute(count, [job.locked_by, job.id]).fetchone() or (0,)
        start = Start(payload, job.attempts, job.locked_at, behind)
        self.starts.append(start)
        if behind > 2:
            self.acted = start
            eventually(lambda: self._left() == len(self.jobs) - payload)  # those before this one are written
            self._act()

    def _left(self) -> int:
        (count,) = self._db.execute("select count(*) from graphile_worker._private_jobs").fetchone() or (0,)
        return int(count)

    def checked(self) -> Start:
        """Return where something happened, having checked that the jobs started in order, each at its first attempt."""
        assert self.acted is not None, "no run was ever longer than three, so this test shows nothing"
        assert [start.number for start in self.starts] == list(range(len(self.starts)))
        assert {start.attempt for start in self.starts} == {1}
        return self.acted


def fail() -> None:
    raise ValueError("in the middle of a run")


def test_a_failure_ends_a_run_and_the_rest_is_claimed_anew_in_order(queue: Queue, db: psycopg.Connection) -> None:
    failures: list[JobFailed] = []
    queue.events.subscribe(JobFailed, failures.append)
    runs = Runs(queue, db, fail)
    assert queue.run_once(2) == RunSummary(completed=999, retrying=1, failed=0)
    failed = runs.checked()
    assert [failure.job.payload for failure in failures] == [failed.number]
    assert len(runs.starts) == 1000
    assert runs.starts[failed.number + 1].claim != failed.claim


def test_a_run_ends_when_its_jobs_have_waited_for_long(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_queue, "TIME_TO_LIVE", 0.5)
    runs = Runs(queue, db, lambda: time.sleep(0.6))
    assert queue.run_once(2).completed == 1000
    slow = runs.checked()
    assert runs.starts[slow.number + 1].claim != slow.claim


def test_a_stop_in_the_middle_of_a_run_gives_back_the_rest(queue: Queue, db: psycopg.Connection, pools: Pools) -> None:
    running, go = threading.Event(), threading.Event()

    def act() -> None:
        running.set()
        assert go.wait(30)

    runs = Runs(queue, db, act)
    pool = pools(2, poll_interval=NEVER)
    assert running.wait(60)
    (stuck,) = pool.stop(timeout=0.01)
    assert stuck.payload == runs.checked().number
    go.set()
    assert pool.stop(30) == []
    assert [start.number for start in runs.starts] == list(range(stuck.payload + 1))
    columns = "select count(*), max(attempts), count(locked_at), min(payload::text::integer)"
    left = columns + " from graphile_worker._private_jobs"
    assert db.execute(left).fetchone() == (999 - stuck.payload, 0, 0, stuck.payload + 1)
    assert db.execute("select locked_by from graphile_worker._private_job_queues").fetchall() == [(None,)]
    assert queue.run_once(2).completed == 999 - stuck.payload
    assert len(runs.starts) == 1000
    runs.checked()


def test_release_gives_back_the_rest_of_a_run_as_well(queue: Queue, db: psycopg.Connection, pools: Pools) -> None:
    lost: list[JobLost] = []
    queue.events.subscribe(JobLost, lost.append)
    running, go = threading.Event(), threading.Event()

    def act() -> None:
        running.set()
        assert go.wait(30)

    runs = Runs(queue, db, act)
    pool = pools(2, poll_interval=NEVER)
    assert running.wait(60)
    stuck = pool.stop(timeout=0.01)
    pool.release(stuck)
    left = "select count(*), max(attempts), count(locked_at) from graphile_worker._private_jobs"
    number = runs.checked().number
    assert db.execute(left).fetchone() == (1000 - number, 0, 0)
    assert db.execute("select locked_by from graphile_worker._private_job_queues").fetchall() == [(None,)]
    go.set()
    assert pool.stop(30) == []
    assert db.execute(left).fetchone() == (1000 - number, 0, 0)
    assert [event.job.payload for event in lost] == [number]
    assert queue.run_once(2).completed == 1000 - number


def test_a_pool_that_was_declared_dead_in_the_middle_of_a_run_begins_no_more_of_it(
    queue: Queue, db: psycopg.Connection, pools: Pools
) -> None:
    lost: list[JobLost] = []
    queue.events.subscribe(JobLost, lost.append)

    def act() -> None:
        for table in ("_private_jobs", "_private_job_queues"):
            taken = "update graphile_worker.{} set locked_by = 'other' where locked_by is not null"
            db.execute(sql.SQL(taken).format(sql.Identifier(table)))
        db.execute("delete from graphile_worker._private_py_pools")
        eventually(lambda: db.execute("select from graphile_worker._private_py_pools").fetchall())  # it has noticed

    runs = Runs(queue, db, act)
    pool = pools(2, poll_interval=NEVER, heartbeat=0.05, dead_after=60)
    eventually(lambda: lost)
    pool.stop(30)
    number = runs.checked().number
    assert len(runs.starts) == number + 1
    taken = "select count(*), min(payload::text::integer) from graphile_worker._private_jobs where locked_by = 'other'"
    (count, first) = db.execute(taken).fetchone() or (0, 0)
    assert count > 3
    assert first == number


# All of it at once.


class Watch:
    """A handler that keeps watch over order and overlaps, and lets jobs fail by chance; `last` are to fail for good."""

    def __init__(self, chance: random.Random) -> None:
        self.order: dict[str, list[int]] = {}
        self.attempts: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._chance = chance
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def work(self, payload: object, ctx: JobContext) -> None:
        name = ctx.job.queue_name or ""
        with self._lock:
            self._begin(name, ctx.job)
            fails = self._chance.random() < 0.05
        if self._chance.random() < 0.02:
            time.sleep(0.005)  # a slow one now and then
        with self._lock:
            self._running[name] -= 1
        if fails:
            raise ValueError

    def _begin(self, name: str, job: Job) -> None:
        self.attempts[job.id] += 1
        if self.attempts[job.id] != job.attempts:
            self.wrong.append(f"job {job.id} was called {self.attempts[job.id]} times in attempt {job.attempts}")
        if job.attempts == 1:
            self.order.setdefault(name, []).append(job.id)
        if name and self._running[name]:
            self.wrong.append(f"queue {name} ran two jobs at a time")
        self._running[name] += 1


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_queues_keep_their_order_and_nothing_is_skipped_or_doubled(
    queue: Queue, pools: Pools, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    watch = Watch(chance)
    queue.task("work")(watch.work)
    queue.events.subscribe(
        JobFailed, lambda event: event.final or queue.reschedule_jobs([event.job.id], run_at=timedelta(0))
    )
    lost: list[JobLost] = []
    queue.events.subscribe(JobLost, lost.append)
    names = [None, "a", "b", "c", "d"]
    jobs = queue.add_jobs(
        JobSpec(
            "work", queue_name=chance.choice(names), priority=chance.randrange(3), max_attempts=chance.choice([1, 4])
        )
        for _ in range(1200)
    )
    for concurrency in (1, 2, 4):
        pools(concurrency, poll_interval=0.05)
    eventually(lambda: {info.state for info in queue.jobs(limit=1200)} <= {"failed"})
    assert watch.wrong == []
    assert lost == []
    assert set(watch.attempts) == {job.id for job in jobs}
    in_order = sorted(jobs, key=lambda job: (job.priority, job.run_at, job.id))
    for name in "abcd":
        assert watch.order[name] == [job.id for job in in_order if job.queue_name == name]
