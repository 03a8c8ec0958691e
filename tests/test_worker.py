"""WorkerPool in a host program: waking, polling, claiming, named queues, stopping."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import psycopg
import pytest
from psycopg import Notify, sql

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
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    Tasks,
    UnknownTask,
    WorkerPool,
)
from graphile_worker_py.worker.heartbeat import Sweeper
from graphile_worker_py.worker.listener import Listener

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]


def test_a_new_job_wakes_the_pool(queue: Queue, expected: Expected, pools: Pools) -> None:
    queue.task("work")(lambda payload: None)
    pools(poll_interval=NEVER)
    for _ in range(3):
        with expected(1):
            queue.add_job("work")


def test_a_job_added_before_the_pool_listens_is_found(queue: Queue, expected: Expected, pools: Pools) -> None:
    queue.task("work")(lambda payload: None)
    queue.add_job("work")
    with expected(1):
        pools(poll_interval=NEVER)


def test_the_pool_listens_again_after_its_connection_was_killed(
    queue: Queue, expected: Expected, pools: Pools, db: psycopg.Connection
) -> None:
    queue.task("work")(lambda payload: None)
    pools(poll_interval=NEVER)
    listening = "select count(*) from pg_stat_activity where datname = current_database() and query like 'listen%'"
    kill = listening.replace("count(*)", "count(pg_terminate_backend(pid))")
    for statement in (listening, kill, listening):
        deadline = time.monotonic() + 30
        while db.execute(statement).fetchone() == (0,):
            assert time.monotonic() < deadline
    with expected(1):
        queue.add_job("work")


def test_polling_finds_what_nobody_announces(queue: Queue, expected: Expected, pools: Pools) -> None:
    queue.task("work")(lambda payload: None)
    job = queue.add_job("work", run_at=None, max_attempts=1)
    queue.permanently_fail_jobs([job.id])
    pools(poll_interval=0.05)
    with expected(1):
        queue.reschedule_jobs([job.id], attempts=0)


def test_a_delayed_job_runs_when_it_is_due(
    queue: Queue, expected: Expected, pools: Pools, db: psycopg.Connection
) -> None:
    late: list[bool] = []

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        late.append(db.execute("select clock_timestamp() >= %s", [ctx.job.run_at]).fetchone() == (True,))

    with expected(1):
        pools(poll_interval=0.05)
        work.add_job(run_at=timedelta(seconds=0.5))
    assert late == [True]


def test_jobs_of_unknown_tasks_are_left_untouched(queue: Queue) -> None:
    queue.task("known")(lambda payload: None)
    stranger = queue.add_job("stranger")
    queue.add_job("known")
    assert queue.run_once() == RunSummary(1, 0, 0)
    left = queue.job(stranger.id)
    assert left == stranger


def test_forbidden_flags_are_left_alone(queue: Queue) -> None:
    seen: list[str] = []
    queue.task("work")(seen.append)
    forbidden = ["big", "slow"]
    for flags in (["big"], ["slow", "fine"], ["fine"], []):
        queue.add_job("work", flags, flags=flags)
    queue.add_job("work", "queued", flags=["big"], queue_name="q")
    assert queue.run_once(forbidden_flags=forbidden).completed == 2
    assert queue.run_once(forbidden_flags=lambda: ["slow"]).completed == 2
    assert queue.run_once(forbidden_flags=lambda: None).completed == 1
    assert len(seen) == 5


def test_a_flag_function_that_raises_stops_nothing_for_good(queue: Queue, expected: Expected, pools: Pools) -> None:
    answers = iter([ValueError("no flags today")])

    def flags() -> list[str]:
        for answer in answers:
            raise answer
        return []

    queue.task("work")(lambda payload: None)
    queue.add_job("work")
    with expected(1):
        pools(forbidden_flags=flags, poll_interval=NEVER)


def test_named_queues_run_one_at_a_time_in_order_across_pools(queue: Queue, expected: Expected, pools: Pools) -> None:
    lock = threading.Lock()
    running: set[str] = set()
    overlaps: list[str] = []
    order: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    @queue.task
    def work(payload: dict[str, object], ctx: JobContext) -> None:
        name = str(ctx.job.queue_name)
        with lock:
            overlaps.extend({name} & running)
            running.add(name)
            order[name].append(ctx.job.id)
        threading.Event().wait(0.001)
        with lock:
            running.discard(name)

    chance = random.Random(7)  # noqa: S311
    specs = [JobSpec("work", queue_name=name, priority=chance.randrange(3)) for name in "abc" for _ in range(40)]
    chance.shuffle(specs)
    jobs = queue.add_jobs(specs)
    with expected(len(jobs)):
        for _ in range(3):
            pools(4, poll_interval=0.05)
    assert overlaps == []
    for name, ids in order.items():
        mine = [job for job in jobs if job.queue_name == name]
        assert ids == [job.id for job in sorted(mine, key=lambda job: (job.priority, job.run_at, job.id))]


def test_a_failing_job_of_a_queue_lets_the_next_one_run(queue: Queue) -> None:
    seen: list[str] = []

    @queue.task
    def work(payload: str) -> None:
        seen.append(payload)
        if payload == "bad":
            raise ValueError

    for payload in ("bad", "good"):
        work.add_job(payload, queue_name="one")
    assert queue.run_once() == RunSummary(1, 1, 0)
    assert seen == ["bad", "good"]


def test_run_once_drains_a_named_queue_and_what_jobs_add(queue: Queue) -> None:
    @queue.task
    def count_down(payload: int, ctx: JobContext) -> None:
        if payload:
            ctx.add_job("count_down", payload - 1, queue_name="one")
            ctx.add_jobs([JobSpec("leaf"), JobSpec("leaf")])

    queue.task("leaf")(lambda payload: None)
    queue.add_job("count_down", 10, queue_name="one")
    later = queue.add_job("leaf", run_at=timedelta(seconds=3600))
    assert queue.run_once(2) == RunSummary(completed=31, retrying=0, failed=0)
    assert [info.id for info in queue.jobs()] == [later.id]


def test_run_once_says_what_cannot_be_mended(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("work")(lambda payload: None)
    db.execute("alter table graphile_worker._private_jobs rename column priority to importance")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        queue.run_once()


def test_a_task_row_that_was_collected_is_found_again(
    queue: Queue, expected: Expected, pools: Pools, db: psycopg.Connection
) -> None:
    queue.task("work")(lambda payload: None)
    pools(poll_interval=NEVER)
    with expected(1):
        queue.add_job("work")
    db.execute("delete from graphile_worker._private_tasks")
    with expected(1):
        queue.add_job("work")


def test_tasks_included_or_registered_later_are_worked_on(queue: Queue, expected: Expected, pools: Pools) -> None:
    library = Tasks()
    queue.include(library)
    queue.task("first")(lambda payload: None)
    pools(poll_interval=NEVER)
    late = library.task("late")(lambda payload: None)
    with expected(2):
        late.add_job()
        queue.add_job("first")


def test_the_context_tells_about_the_job(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    seen: list[JobContext] = []

    @queue.task
    def work(payload: dict[str, int], ctx: JobContext) -> None:
        seen.append(ctx)
        ctx.logger.info("at work")
        assert not ctx.cancelled.is_set()

    job = work.add_job({"a": 1}, queue_name="q", job_key="k", flags=["f"], priority=3)
    queue.run_once()
    (ctx,) = seen
    assert ctx.queue is queue
    assert (ctx.job.id, ctx.job.payload, ctx.job.attempts) == (job.id, {"a": 1}, 1)
    assert (ctx.job.queue_name, ctx.job.key, ctx.job.flags, ctx.job.priority) == ("q", "k", ("f",), 3)
    (record,) = [record for record in caplog.records if record.getMessage() == "at work"]
    assert (record.job_id, record.task_identifier, record.attempts) == (job.id, "work", 1)  # type: ignore[attr-defined]


def test_events_tell_the_story_of_a_pool(queue: Queue) -> None:
    story: list[object] = []
    for kind in (PoolStarted, JobStarted, JobCompleted, JobFailed, PoolStopped):
        queue.events.subscribe(kind, story.append)
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    queue.add_job("fine", priority=1)
    queue.add_job("bad", priority=2)
    done = threading.Event()
    queue.events.subscribe(JobCompleted, lambda event: done.set())
    with WorkerPool(queue, 1) as pool:
        assert done.wait(30)
    kinds = [type(event).__name__ for event in story]
    assert kinds[0] == "PoolStarted"
    assert kinds[-1] == "PoolStopped"
    assert kinds.index("JobStarted") < kinds.index("JobCompleted")
    started = story[0]
    assert started == PoolStarted(pool.id, 1, ("fine", "bad"))


def test_a_pool_without_tasks_or_schema_says_so(database_url: str, queue: Queue, db: psycopg.Connection) -> None:
    with pytest.raises(UnknownTask, match=r"@queue\.task"):
        queue.run_worker()
    queue.task("work")(lambda payload: None)
    for row, error in ((1_000_000, SchemaTooNew), (18, SchemaTooOld)):
        db.execute("delete from graphile_worker.migrations where id > 18")
        db.execute("insert into graphile_worker.migrations values (%s, now(), true) on conflict do nothing", [row])
        with pytest.raises(error):
            queue.run_worker()
    with Queue(database_url) as empty:
        empty.task("work")(lambda payload: None)
        with pytest.raises(SchemaMissing, match=r"queue\.migrate"):
            empty.run_once()


@pytest.mark.parametrize(
    ("payload", "nudges"),
    [('{"r":0.5,"count":3}', 1), ("", 1), ("nonsense", 1), ("[]", 1), ('{"count":"x"}', 1), ('{"count":-1}', 0)],
)
def test_notifications_are_read_leniently(queue: Queue, payload: str, nudges: int) -> None:
    nudged: list[str] = []
    listener = Listener(queue.database, on_jobs=lambda: nudged.append("!"), on_breaking=lambda number: None)
    listener.hear(Notify("jobs:insert", payload, 1))
    listener.on_stop()
    assert len(nudged) == nudges


def test_locks_older_than_four_hours_are_cleared(queue: Queue, db: psycopg.Connection) -> None:
    jobs = [queue.add_job("work", queue_name=f"q{age}") for age in (3, 5)]
    for job, hours in zip(jobs, (3, 5), strict=True):
        for table, id in (("_private_jobs", job.id), ("_private_job_queues", job.job_queue_id)):
            statement = sql.SQL(
                "update graphile_worker.{} set locked_by = 'dead', locked_at = now() - make_interval(hours => %s) "
                "where id = %s"
            )
            db.execute(statement.format(sql.Identifier(table)), [hours, id])
        db.execute("update graphile_worker._private_jobs set attempts = 1 where id = %s", [job.id])
    sweeper = Sweeper(queue.database, first=0)
    sweeper.start()
    deadline = time.monotonic() + 30
    while (stale := queue.job(jobs[1].id)) is None or stale.locked_by:
        assert time.monotonic() < deadline
    assert sweeper.stop(30)
    fresh = queue.job(jobs[0].id)
    assert fresh is not None
    assert (fresh.locked_by, stale.attempts, stale.run_at > jobs[1].run_at) == ("dead", 1, True)
    held = db.execute("select queue_name from graphile_worker._private_job_queues where locked_by = 'dead'").fetchall()
    assert held == [("q3",)]


def test_a_database_that_writes_dates_its_own_way_is_understood(queue: Queue, db: psycopg.Connection) -> None:
    db.execute(sql.SQL("alter database {} set datestyle = 'German'").format(sql.Identifier(db.info.dbname)))
    queue.task("work")(lambda payload: None)
    queue.add_job("work")
    assert queue.run_once() == RunSummary(1, 0, 0)
