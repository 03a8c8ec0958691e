"""Rates: how many jobs begin in any period, what counts, and what is left for later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import psycopg

from graphile_worker_py import JobSpec, Limit, Queue, Rate, RunSummary, WorkerPool

HOUR = timedelta(hours=1)
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]


def rows(db: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    return db.execute(statement).fetchall()  # type: ignore[arg-type]


def test_of_a_rate_no_more_begin_in_a_period_than_it_says(
    queue: Queue, db: psycopg.Connection, expected: Expected, pools: Pools
) -> None:
    count, per, jobs = 5, timedelta(seconds=0.5), 23
    queue.task("work", rate=Rate(count, per=per))(lambda payload: None)
    db.execute(
        "create table starts (at timestamptz, jobs integer);"
        "create function note_start() returns trigger language plpgsql as $$ begin"
        " insert into starts values"
        " (clock_timestamp(), new.jobs - case when tg_op = 'UPDATE' then old.jobs else 0 end);"
        " return new; end $$;"
        "create trigger note_start before insert or update on graphile_worker._private_py_starts"
        " for each row execute function note_start();"
    )
    queue.add_jobs(JobSpec("work", number) for number in range(jobs))
    with expected(jobs):
        pools(8)
    begun: list[datetime] = [at for at, more in rows(db, "select * from starts order by at") for _ in range(more)]
    assert len(begun) == jobs
    assert all(later - first > per for first, later in zip(begun, begun[count:], strict=False))
    assert begun[-1] - begun[0] < 6 * per


def test_a_start_counts_for_a_whole_period_at_least(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("work", rate=Rate(5, per=HOUR))(lambda payload: None)
    queue.add_job("work")
    ((before,),) = rows(db, "select clock_timestamp()")
    queue.run_once()
    ((slice, jobs, kept_until),) = rows(db, "select slice, jobs, kept_until from graphile_worker._private_py_starts")
    assert before <= slice < before + HOUR / 40
    assert (jobs, kept_until) == (1, slice + HOUR)


def test_run_once_leaves_what_a_rate_holds_back(queue: Queue) -> None:
    queue.task("work", rate=Rate(3, per=HOUR))(lambda payload: None)
    queue.task("other")(lambda payload: None)
    queue.add_jobs(JobSpec(name, number) for number in range(10) for name in ("work", "other"))
    assert queue.run_once() == RunSummary(13, 0, 0)
    assert {(job.state, job.attempts) for job in queue.jobs()} == {("ready", 0)}
    assert queue.run_once() == RunSummary(0, 0, 0)


def test_a_job_that_failed_leaves_its_slot_and_a_failed_start_counts(queue: Queue) -> None:
    @queue.task(limit=Limit(1), rate=Rate(2, per=HOUR), max_attempts=1)
    def work(payload: Any) -> None:
        raise ValueError

    queue.add_jobs(JobSpec("work", number) for number in range(3))
    assert queue.run_once() == RunSummary(0, 0, 2)


def test_of_two_tasks_that_share_a_rate_the_stricter_one_counts(queue: Queue) -> None:
    queue.task("one", rate=Rate(4, per=HOUR, key="shared"))(lambda payload: None)
    queue.task("other", rate=Rate(4, per=HOUR / 60, key="shared"))(lambda payload: None)
    queue.add_jobs(JobSpec(name) for _ in range(5) for name in ("one", "other"))
    assert queue.run_once(8) == RunSummary(4, 0, 0)


def test_a_flag_too_long_for_a_key_harms_nobody(queue: Queue) -> None:
    queue.task("work", rate=Rate(1, per=HOUR, key=lambda payload: payload["key"]))(lambda payload: None)
    queue.add_jobs(JobSpec("work", {"key": key}, flags=["rate:" + "x" * 9000]) for key in "aab")
    assert queue.run_once() == RunSummary(2, 0, 0)
