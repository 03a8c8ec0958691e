"""LocalQueue: how much it claims, when it looks again, and that no job waits for a look that nobody takes."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import Job, JobContext, JobSpec, Queue, RunSummary, WorkerPool
from graphile_worker_py.worker import claims, local_queue, pace
from graphile_worker_py.worker.claims import Run
from graphile_worker_py.worker.local_queue import LocalQueue

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]


def local(queue: Queue, holder: str = "holder", **options: Any) -> LocalQueue:
    """Return a local queue for jobs of the task `work`, not started: a test takes its steps one by one."""
    claims = LocalQueue(
        queue.database,
        holder,
        **{
            "concurrency": 1,
            "tasks": lambda: ["work"],
            "forbidden_flags": list,
            "poll_interval": NEVER,
            **options,
        },
    )
    claims.alive(math.inf)
    return claims


@contextmanager
def taker(claims: LocalQueue, taken: list[Job | Run]) -> Iterator[None]:
    """Let a thread take from a local queue, as one of the crew does, once; it has taken when the block ends."""
    thread = threading.Thread(target=lambda: taken.append(claims.get()), daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


def held(db: psycopg.Connection) -> int:
    (count,) = db.execute("select count(*) from graphile_worker._private_jobs where locked_by = 'holder'").fetchone()
    return int(count)


def next_delay(claims: LocalQueue, *, longest: float) -> float:
    """Take steps until one asks for no longer delay than this: until it has looked for a thread that was idle."""
    delays: list[float] = []

    def soon() -> bool:
        delays.append(claims.step() or 0.0)
        return delays[-1] <= longest

    eventually(soon)
    return delays[-1]


def test_nothing_is_claimed_in_advance_while_jobs_are_slow(queue: Queue, db: psycopg.Connection) -> None:
    queue.add_jobs(JobSpec("work", number) for number in range(9))
    claims = local(queue)
    taken: list[Any] = []
    with taker(claims, taken):
        eventually(lambda: claims.step() is not None and len(taken) == 1)
    for _ in range(5):
        claims.step()  # the thread is busy, as far as the local queue knows for ever
    assert held(db) == 1
    assert [job.payload for job in taken] == [0]


def test_a_job_behind_a_slow_one_goes_to_whoever_is_free(queue: Queue, migrated_url: str, pools: Pools) -> None:
    go, both = threading.Event(), threading.Barrier(3)

    def work(payload: int, ctx: JobContext) -> None:
        both.wait(30)
        assert go.wait(30)

    queue.task("work")(work)
    queue.add_jobs(JobSpec("work", number) for number in range(2))
    first = pools(1, poll_interval=NEVER)
    eventually(first.running)
    with Queue(migrated_url) as other:
        other.task("work")(work)
        with WorkerPool(other, 4, poll_interval=NEVER) as second:
            both.wait(30)  # both jobs run at the same time
            assert (len(first.running()), len(second.running())) == (1, 1)
            go.set()


def test_what_nobody_looked_for_is_looked_for_when_a_thread_is_idle(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification that comes while all threads are busy claims nothing; its job must not wait for the next poll."""
    queue.add_job("work")
    claims = local(queue)
    woken = threading.Event()
    monkeypatch.setattr(claims, "wake", woken.set)
    assert claims.step() == NEVER
    taken: list[Any] = []
    with taker(claims, taken):
        assert woken.wait(20)
        claims.step()
    assert [job.task_identifier for job in taken] == ["work"]


def test_the_work_is_not_over_where_the_last_job_ended_while_a_claim_passed_its_queue_over(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add_jobs(JobSpec("work", number, queue_name="one") for number in range(2))
    ended: list[Exception | None] = []
    claims = local(queue, on_end=ended.append)
    monkeypatch.setattr(claims, "_wanted", lambda: 1)
    claims.step()
    (first,) = claims.held.values()
    send = queue.database.begin_by_index

    def sent(name: str, parameters: dict[str, Any]) -> Callable[[], list[Any]]:
        answer = send(name, parameters)
        claims.settled([first])  # by the completer, in the meantime
        return answer

    monkeypatch.setattr(queue.database, "begin_by_index", sent)
    claims.step()
    assert ended == []


def test_what_waits_here_for_long_goes_back_however_rare_the_polls(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_queue, "TIME_TO_LIVE", 0.2)
    queue.add_jobs(JobSpec("work", number, queue_name="one" if number == 5 else None) for number in range(9))
    claims = local(queue)
    monkeypatch.setattr(claims, "_wanted", lambda: 9)  # as after a stretch of fast jobs
    delay = claims.step()
    assert held(db) == 9
    monkeypatch.setattr(claims, "_wanted", lambda: 0)
    waited = 0.0
    while held(db):
        assert delay is not None
        assert (waited := waited + delay) < 1
        time.sleep(delay)  # what the service does between two steps
        delay = claims.step()
    assert db.execute("select distinct attempts, locked_at from graphile_worker._private_jobs").fetchall() == [
        (0, None)
    ]
    assert db.execute("select locked_by from graphile_worker._private_job_queues").fetchall() == [(None,)]


def test_a_job_that_is_due_soon_starts_on_time_without_a_poll(queue: Queue, expected: Expected, pools: Pools) -> None:
    queue.task("work")(lambda payload: None)
    with expected(3):
        queue.add_job("work", run_at=timedelta(seconds=0.3))
        pools(2, poll_interval=NEVER)
        queue.add_job("work", run_at=timedelta(seconds=0.6))
        queue.add_job("work", run_at=timedelta(seconds=0.9), queue_name="one", priority=-1)


def test_a_job_due_after_the_next_poll_is_left_to_the_poll(queue: Queue) -> None:
    queue.add_job("work", run_at=timedelta(seconds=60))
    taken: list[Any] = []
    for poll_interval, longest in ((NEVER, 60), (2.0, 2.0)):
        claims = local(queue, poll_interval=poll_interval)
        with taker(claims, taken):
            assert next_delay(claims, longest=longest) > longest - 30
            claims.close()


def test_the_next_due_job_counts_while_some_places_are_left_out(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at named queues rest after one that took long for nothing; that must not put off a job that is due."""
    monkeypatch.setattr(pace, "REST", 10**6)
    queue.add_job("work", run_at=timedelta(seconds=30))
    claims = local(queue)
    taken: list[Any] = []
    with taker(claims, taken):
        next_delay(claims, longest=30)
        delay = claims.step()
        claims.close()
    assert delay is not None
    assert delay <= 30
    assert taken == [None]


# Bounds: while claims are slow they begin where the last one came to.


@pytest.fixture
def slow_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every claim count as slow, so that all but one in a while go by bounds."""
    monkeypatch.setattr(pace, "SLOW", -1.0)
    monkeypatch.setattr(pace, "SLOW_EACH", 0.0)
    monkeypatch.setattr(pace, "SHORTEST_REST", 0.2)


@pytest.mark.usefixtures("slow_claims")
def test_jobs_before_the_bounds_are_found_as_well(queue: Queue, expected: Expected, pools: Pools) -> None:
    queue.task("work")(lambda payload: None)
    pools(2, poll_interval=NEVER)
    with expected(3):
        queue.add_jobs([JobSpec("work"), JobSpec("work", priority=5), JobSpec("work", queue_name="one")])
    late = [
        JobSpec("work", run_at=timedelta(hours=-1)),
        JobSpec("work", run_at=timedelta(hours=-1), queue_name="one"),
        JobSpec("work", run_at=timedelta(hours=-1), queue_name="another"),
        JobSpec("work", priority=-3),
        JobSpec("work", priority=3),
        JobSpec("work", priority=7, run_at=timedelta(hours=-2)),
    ]
    for spec in late:
        with expected(1):
            queue.add_jobs([spec])
    with expected(300):
        queue.add_jobs(JobSpec("work", run_at=timedelta(seconds=-number), priority=number % 3) for number in range(300))


@pytest.mark.usefixtures("slow_claims")
def test_bounds_never_change_the_order_of_a_named_queue(
    queue: Queue, expected: Expected, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SHORTEST_REST", NEVER)
    ran: list[int] = []
    queue.task("work")(ran.append)
    pools(2, poll_interval=NEVER)
    for priority in (0, 4):
        with expected(1):  # these are the priorities the pool knows of
            queue.add_job("work", priority, priority=priority)
    with expected(4):
        queue.add_jobs(JobSpec("work", number, priority=number, queue_name="one") for number in (4, 3, 2, 1))
    assert ran == [0, 4, 1, 2, 3, 4]


@pytest.mark.usefixtures("slow_claims")
def test_a_transaction_that_commits_late_loses_nothing_to_the_bounds(
    queue: Queue, expected: Expected, pools: Pools, migrated_url: str
) -> None:
    queue.task("work")(lambda payload: None)
    pools(2, poll_interval=NEVER)
    with expected(1):
        queue.add_job("work")  # so that the transaction below is not the one that makes the name of the task
    with psycopg.connect(migrated_url) as connection:
        early = [queue.add_job("work", connection=connection), queue.add_job("work", connection=connection)]
        with expected(9):
            later = queue.add_jobs(JobSpec("work") for _ in range(9))
        assert max(job.run_at for job in early) < min(job.run_at for job in later)
        with expected(2):
            connection.commit()


def test_a_lost_claim_goes_back_even_of_a_job_that_is_held_from_before(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is taken from the pool, as from one declared dead, while it runs there, and the pool claims it anew."""
    queue.add_job("work")
    claims = local(queue)
    taken: list[Any] = []
    with taker(claims, taken):
        eventually(lambda: claims.step() is not None and len(taken) == 1)
    db.execute("update graphile_worker._private_jobs set locked_at = null, locked_by = null")
    begin = queue.database.begin_by_index

    def claim_and_cut(*args: Any) -> Any:
        begin(*args)()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def lost() -> bool:
        with suppress(psycopg.OperationalError):
            claims.step()
        return held(db) == 1

    with taker(claims, taken):
        monkeypatch.setattr(queue.database, "begin_by_index", claim_and_cut)
        eventually(lost)
        monkeypatch.undo()
        eventually(lambda: claims.step() is not None and len(taken) == 2, seconds=10)
    assert [job.attempts for job in taken] == [1, 2]


@pytest.mark.usefixtures("slow_claims")
def test_run_once_ends_only_when_nothing_is_left_before_the_bounds(queue: Queue) -> None:
    @queue.task
    def work(payload: int, ctx: JobContext) -> None:
        if payload:
            ctx.add_job("work", payload - 1, run_at=timedelta(minutes=-payload), priority=payload % 2)

    work.add_job(6)
    assert queue.run_once(2) == RunSummary(7, 0, 0)


def test_what_is_locked_again_after_an_outage_goes_back(queue: Queue, db: psycopg.Connection) -> None:
    """As after the failover to a standby that has not received the outcome of a job."""
    claims = local(queue)
    queue.task("work")(print)
    queue.add_job("work")
    db.execute("update graphile_worker._private_jobs set locked_by = 'holder', locked_at = now(), attempts = 1")
    claims.step()
    assert held(db) == 1
    queue.database.outage.note("listener", psycopg.OperationalError("gone"), 1.0)
    queue.database.outage.answered(math.inf)
    claims.step()
    assert [(info.state, info.attempts) for info in queue.jobs()] == [("ready", 0)]
    claims.close()


def test_short_jobs_are_claimed_in_bulk_however_long_a_claim_takes(
    queue: Queue, pools: Pools, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    begin = queue.database.begin_by_index

    def slowly(name: str, parameters: Any) -> Any:
        counts.append(parameters["count"])
        answer = begin(name, parameters)
        threading.Event().wait(0.05)
        return answer

    monkeypatch.setattr(queue.database, "begin_by_index", slowly)
    queue.task("work")(lambda payload: None)
    queue.add_jobs(JobSpec("work") for _ in range(2000))
    with expected(2000):
        pools(4)
    assert len(counts) < 40


def test_jobs_with_large_payloads_are_claimed_a_few_at_a_time(
    queue: Queue, pools: Pools, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "MOST_READY", 20_000)
    counts: list[int] = []
    begin = queue.database.begin_by_index

    def counted(name: str, parameters: Any) -> Any:
        counts.append(parameters["count"])
        return begin(name, parameters)

    monkeypatch.setattr(queue.database, "begin_by_index", counted)
    queue.task("work")(lambda payload: None)
    queue.add_jobs(JobSpec("work", "x" * 1000) for _ in range(1000))
    with expected(1000):
        pools(4)
    assert 4 < max(counts) < 20


def test_a_claim_that_cannot_be_read_goes_back_and_so_does_the_one_that_was_sent_after_it(
    queue: Queue, pools: Pools, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_queue, "LARGEST_CLAIM", 100)
    made = itertools.count()

    def job(*row: Any) -> Job:
        if next(made) == 750:
            raise MemoryError
        return Job(*row)

    monkeypatch.setattr(claims, "Job", job)
    attempts: list[int] = []

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        attempts.append(ctx.job.attempts)

    queue.add_jobs(JobSpec("work") for _ in range(2000))
    with expected(2000):
        pools(4)
    assert attempts == [1] * 2000


def test_the_job_of_a_queue_is_handed_out_by_its_priority(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.add_jobs(
        JobSpec("work", priority=number % 3, queue_name="one" if number in (3, 4, 6, 7) else None)
        for number in range(9)
    )
    local_claims = local(queue)
    monkeypatch.setattr(local_claims, "_wanted", lambda: 9)
    monkeypatch.setattr(pace.Throughput, "soon_for_one", lambda self: 9)
    local_claims.step()
    taken = [local_claims.get() for _ in range(6)]
    local_claims.close()
    ids = [[job.id for job in one.jobs] if isinstance(one, Run) else one and one.id for one in taken]
    assert ids == [1, [4, 7, 5, 8], 2, 3, 6, 9]
