"""Limits: how many jobs of a task or a key run at a time, how many begin in a period, and who waits for whom."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import JobContext, JobSpec, Limit, NotSupported, Queue, Rate, RunSummary, WorkerPool
from graphile_worker_py.worker import gates
from graphile_worker_py.worker.pace import Throughput

HOUR = timedelta(hours=1)
HELD = "select count(*) from graphile_worker._private_jobs where locked_by is not null"
# A row that was claimed, or given back, is a new version of it.
VERSIONS = "select id, xmin::text, attempts from graphile_worker._private_jobs where locked_by is null order by id"
WAITING_FOR = "select count(*) from pg_stat_activity as a, unnest(pg_blocking_pids(a.pid)) as b (pid) where b.pid = "
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]


class Gauge:
    """A handler that counts how many of its jobs run at a time, by key; each waits for leave to end."""

    def __init__(self, key: Callable[[Any], object] = lambda payload: None) -> None:
        self.most: Counter[object] = Counter()
        self.running: Counter[object] = Counter()
        self.ended: list[Any] = []
        self.changed = threading.Condition()
        self._key = key
        self._leave = threading.Semaphore(0)

    def __call__(self, payload: Any) -> None:
        key = self._key(payload)
        with self.changed:
            self.running[key] += 1
            self.most[key] = max(self.most[key], self.running[key])
            self.changed.notify_all()
        assert self._leave.acquire(timeout=60)
        with self.changed:
            self.running[key] -= 1
            self.ended.append(payload)
            self.changed.notify_all()

    def let(self, jobs: int) -> None:
        self._leave.release(jobs)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=30)

    def wait_for_running(self, jobs: int) -> None:
        self.wait_for(lambda: self.running.total() == jobs)


@pytest.fixture
def gauge() -> Iterator[Gauge]:
    gauge = Gauge()
    yield gauge
    gauge.let(100_000)


@contextmanager
def beside(
    migrated_url: str, register: Callable[[Queue], object], concurrency: int = 4, **options: Any
) -> Iterator[WorkerPool]:
    """Run another pool, as another host would."""
    with Queue(migrated_url) as queue:
        register(queue)
        pool = WorkerPool(queue, concurrency, **options)
        pool.start()
        try:
            yield pool
        finally:
            pool.stop(timeout=30)


def rows(db: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    return db.execute(statement).fetchall()  # type: ignore[arg-type]


def test_a_task_runs_no_more_than_its_concurrency_and_leaves_the_other_threads_to_others(
    queue: Queue, pools: Pools, gauge: Gauge, expected: Expected
) -> None:
    queue.task("slow", concurrency=2)(gauge)
    done = threading.Semaphore(0)
    queue.task("fast")(lambda payload: done.release())
    queue.add_jobs(JobSpec("slow", number) for number in range(20))
    with expected(25):
        pools(4)
        gauge.wait_for_running(2)
        queue.add_jobs(JobSpec("fast", number) for number in range(5))
        for _ in range(5):
            assert done.acquire(timeout=30)
        gauge.let(20)
    assert gauge.most == {None: 2}
    assert gauge.ended[:2] in ([0, 1], [1, 0])


def test_a_limit_holds_across_pools(
    queue: Queue, pools: Pools, gauge: Gauge, migrated_url: str, db: psycopg.Connection
) -> None:
    def register(queue: Queue) -> None:
        queue.task("work", limit=Limit(3))(gauge)

    register(queue)
    queue.add_jobs(JobSpec("work", number) for number in range(60))
    with beside(migrated_url, register):
        pools(4)
        for left in range(60, 0, -1):
            gauge.wait_for_running(min(3, left))
            gauge.let(1)
            gauge.wait_for(lambda left=left: len(gauge.ended) == 61 - left)
    assert gauge.most == {None: 3}
    eventually(lambda: not queue.jobs())


def test_a_slot_that_another_pool_leaves_is_taken_within_a_second_or_so(
    queue: Queue, pools: Pools, gauge: Gauge, migrated_url: str
) -> None:
    other = Gauge()
    queue.task("mine", limit=Limit(1, key="shared"))(gauge)
    with beside(migrated_url, lambda queue: queue.task("theirs", limit=Limit(1, key="shared"))(other)):
        queue.add_job("theirs")
        other.wait_for_running(1)
        pools(2)
        queue.add_job("mine")
        eventually(lambda: rows_of_slots(queue) == 1)
        other.let(1)
        gauge.wait_for_running(1)


def rows_of_slots(queue: Queue) -> int:
    with queue.database.connection() as connection:
        return int(connection.execute("select count(*) from graphile_worker._private_py_slots").fetchone()[0])


def test_each_key_has_a_limit_of_its_own(queue: Queue, pools: Pools, expected: Expected) -> None:
    gauge = Gauge(key=lambda payload: payload["tenant"])
    task = queue.task("work", limit=Limit(2, key=lambda payload: payload["tenant"]))(gauge)
    jobs = [task.add_job({"tenant": tenant, "n": n}) for tenant in (1, 2, "x") for n in range(10)]
    assert [job.flags for job in jobs[::10]] == [("limit:1",), ("limit:2",), ("limit:x",)]
    with expected(30):
        pools(8)
        gauge.wait_for_running(6)
        gauge.let(30)
    assert gauge.most == {1: 2, 2: 2, "x": 2}


def test_a_key_of_none_is_no_limit(queue: Queue, pools: Pools, gauge: Gauge) -> None:
    task = queue.task("work", limit=Limit(1, key=lambda payload: payload.get("key")))(gauge)
    assert task.add_job({}).flags == ()
    assert task.add_job({"key": None}, flags=["mine"]).flags == ("mine",)
    pools(2)
    gauge.wait_for_running(2)


def test_jobs_over_the_limit_wait_without_being_claimed_again_and_hold_nobody_up(
    queue: Queue, pools: Pools, gauge: Gauge, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "LOOK_AFTER", 0.01)  # however often it looks
    done = threading.Semaphore(0)
    queue.task("work", limit=Limit(2, key=lambda payload: payload["key"]))(gauge)
    queue.task("other")(lambda payload: done.release())
    queue.add_jobs(JobSpec("work", {"key": "full"}) for _ in range(10_000))
    pools(8, poll_interval=0.05)
    gauge.wait_for_running(2)
    queue.add_job("work", {"key": "free"})
    gauge.wait_for_running(3)
    eventually(lambda: rows(db, HELD) == [(3,)])
    before = rows(db, VERSIONS)
    for _ in range(50):
        queue.add_job("other")
        assert done.acquire(timeout=30)
    eventually(lambda: rows(db, HELD) == [(3,)])
    assert rows(db, VERSIONS) == before
    assert len(before) == 9_998
    assert {attempts for _, _, attempts in before} == {0}


@pytest.mark.parametrize(("keys", "at_most", "in_vain"), [(1, 2, 30), (10, 1, 300)])
def test_hardly_a_job_is_claimed_in_vain(
    queue: Queue,
    pools: Pools,
    expected: Expected,
    monkeypatch: pytest.MonkeyPatch,
    keys: int,
    at_most: int,
    in_vain: int,
) -> None:
    refused: list[int] = []
    run = queue.database.run

    def counted(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "refuse_jobs":
            refused.append(len(arguments[0]["ids"]))
        return run(name, *arguments, **options)

    monkeypatch.setattr(queue.database, "run", counted)
    queue.task("work", limit=Limit(at_most, key=lambda payload: payload % keys))(lambda payload: None)
    queue.add_jobs(JobSpec("work", number) for number in range(300))
    with expected(300):
        pools(8)
    assert sum(refused) <= in_vain


def test_a_pool_that_waited_for_the_lock_of_a_key_sees_what_was_taken_meanwhile(
    queue: Queue, pools: Pools, gauge: Gauge, db: psycopg.Connection, migrated_url: str
) -> None:
    queue.task("work", limit=Limit(1))(gauge)
    other = queue.add_job("other")
    db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'another'")
    with psycopg.connect(migrated_url, autocommit=True) as observer, db.transaction():
        db.execute("insert into graphile_worker._private_py_limits (name) values ('limit:work')")
        job = queue.add_job("work")
        pools(1)
        waiting = WAITING_FOR + str(db.info.backend_pid)
        eventually(lambda: rows(observer, waiting) == [(1,)])
        db.execute(
            "insert into graphile_worker._private_py_slots (name, job_id, since, holder)"
            " select 'limit:work', id, locked_at, locked_by from graphile_worker._private_jobs where id = %s",
            [other.id],
        )
    eventually(lambda: (refused := queue.job(job.id)) is not None and refused.locked_by is None)
    assert gauge.running.total() == 0
    db.execute("delete from graphile_worker._private_jobs where id = %s", [other.id])
    gauge.wait_for_running(1)


@pytest.mark.parametrize(("first", "then"), [("limited", "plain"), ("plain", "limited")])
def test_who_comes_first_runs_first_limit_or_not(queue: Queue, first: str, then: str) -> None:
    order: list[str] = []

    def work(payload: str) -> None:
        order.append(payload)
        time.sleep(0.02)  # so that a claim is for the few that will run soon

    queue.task("limited", limit=Limit(5))(work)
    queue.task("plain")(work)
    queue.add_jobs(JobSpec(then, then, priority=1) for _ in range(20))
    queue.add_jobs(JobSpec(first, first, priority=0) for _ in range(20))
    assert queue.run_once(1) == RunSummary(40, 0, 0)
    assert order[:20].count(first) >= 15
    assert order[-15:] == [then] * 15


def test_run_once_runs_what_the_last_job_adds(queue: Queue) -> None:
    @queue.task
    def first(payload: Any, ctx: JobContext) -> None:
        ctx.add_job("second")

    queue.task("second", limit=Limit(1))(lambda payload: None)
    queue.add_job("first")
    assert queue.run_once() == RunSummary(2, 0, 0)


def test_what_was_claimed_when_the_database_failed_goes_back_and_runs(
    queue: Queue, expected: Expected, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    run, begin = queue.database.run, queue.database.begin_by_index

    def failing(name: str, *arguments: Any, **options: Any) -> Any:
        sent.append(name)
        if sent.count("take_slots") == 2 and name == "take_slots":  # the first is the look at the start
            raise psycopg.OperationalError("the server went away")
        return begin(name, *arguments, **options)

    def noted(name: str, *arguments: Any, **options: Any) -> Any:
        sent.append(name)
        return run(name, *arguments, **options)

    monkeypatch.setattr(queue.database, "begin_by_index", failing)
    monkeypatch.setattr(queue.database, "run", noted)
    attempts: list[int] = []

    @queue.task(limit=Limit(5))
    def work(payload: Any, ctx: JobContext) -> None:
        attempts.append(ctx.job.attempts)

    queue.add_jobs(JobSpec("work", number) for number in range(3))
    with expected(3):
        pools(4)
    assert attempts == [1, 1, 1]
    assert sent.count("return_strays") == 1


def test_a_look_at_many_keys_stays_small_however_fast_the_jobs_are(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the statement for the limits takes grows with the square of their number, and others wait for its locks."""
    monkeypatch.setattr(Throughput, "soon", lambda self: 2000)
    counts: list[int] = []
    begin = queue.database.begin_by_index

    def counted(name: str, parameters: dict[str, Any], **options: Any) -> Any:
        counts.append(len(parameters.get("gates", [])))
        return begin(name, parameters, **options)

    monkeypatch.setattr(queue.database, "begin_by_index", counted)
    queue.task("work", limit=Limit(3, key=lambda payload: payload))(lambda payload: None)
    queue.add_jobs(JobSpec("work", number) for number in range(1600))
    assert queue.run_once() == RunSummary(1600, 0, 0)
    assert 250 < max(counts) <= 500


def test_a_limit_and_a_rate_hold_together(queue: Queue, pools: Pools, gauge: Gauge) -> None:
    queue.task("work", limit=Limit(2), rate=Rate(5, per=HOUR))(gauge)
    queue.add_jobs(JobSpec("work", number) for number in range(10))
    pools(8)
    gauge.wait_for_running(2)
    gauge.let(5)
    gauge.wait_for(lambda: len(gauge.ended) == 5)
    assert gauge.most == {None: 2}
    eventually(lambda: {job.state for job in queue.jobs()} == {"ready"})


def test_what_was_added_without_its_flag_gets_it_when_it_has_to_wait(
    queue: Queue, pools: Pools, gauge: Gauge, db: psycopg.Connection
) -> None:
    queue.task("work", limit=Limit(1, key=lambda payload: payload["key"]))(gauge)
    for _ in range(3):
        db.execute("""select graphile_worker.add_job('work', '{"key": "a"}', flags => array['mine'])""")
    pools(4)
    gauge.wait_for_running(1)
    eventually(lambda: all(set(job.flags) == {"mine", "limit:a"} for job in queue.jobs() if job.locked_at is None))
    gauge.let(3)
    gauge.wait_for(lambda: len(gauge.ended) == 3)
    assert gauge.most == {None: 1}


def test_jobs_whose_key_cannot_be_computed_fail_in_their_handler(queue: Queue, db: psycopg.Connection) -> None:
    @queue.task(limit=Limit(1, key=lambda payload: payload["key"]), max_attempts=1)
    def work(payload: Any) -> None:
        payload["key"]

    with pytest.raises(KeyError):
        work.add_job({})
    db.execute("select graphile_worker.add_job('work', '{}', max_attempts => 1)")
    assert queue.run_once() == RunSummary(0, 0, 1)


def test_named_queues_and_limits_go_together(queue: Queue, pools: Pools, gauge: Gauge, expected: Expected) -> None:
    queue.task("work", limit=Limit(2))(gauge)
    queue.add_jobs(JobSpec("work", [number, name], queue_name=name) for number in range(5) for name in "abc")
    with expected(15):
        pools(8)
        gauge.wait_for_running(2)
        gauge.let(15)
    assert gauge.most == {None: 2}
    for queue_name in "abc":
        assert [number for number, name in gauge.ended if name == queue_name] == list(range(5))


def test_without_the_tables_a_pool_with_such_limits_does_not_start(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("drop table graphile_worker._private_py_slots")
    queue.task("here", concurrency=1)(lambda payload: None)
    queue.add_job("here")
    assert queue.run_once() == RunSummary(1, 0, 0)
    queue.task("everywhere", limit=Limit(1))(lambda payload: None)
    with pytest.raises(NotSupported, match=r"everywhere.*migrate"):
        queue.run_once()


def test_names_that_nobody_uses_are_forgotten(queue: Queue, db: psycopg.Connection, gauge: Gauge, pools: Pools) -> None:
    queue.task("work", limit=Limit(2, key=lambda payload: payload["key"]))(gauge)
    queue.add_jobs(JobSpec("work", {"key": key}) for key in ("old", "held"))
    pool = pools(2)
    gauge.wait_for_running(2)
    queue.database.run("sweep_limits")
    names = "select name from graphile_worker._private_py_limits order by name"
    assert rows(db, names) == [("limit:held",), ("limit:old",)]
    db.execute("update graphile_worker._private_py_limits set used_at = now() - interval '2 days'")
    db.execute("delete from graphile_worker._private_jobs where flags ? 'limit:old'")
    queue.database.run("sweep_limits")
    assert rows(db, names) == [("limit:held",)]
    assert rows(db, "select distinct name from graphile_worker._private_py_slots") == [("limit:held",)]
    gauge.let(2)
    pool.stop(timeout=30)
