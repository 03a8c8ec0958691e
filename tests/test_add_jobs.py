"""add_jobs: order, chunks, all or nothing, keys that come twice, and bodies that answer as Node's may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import GraphileWorkerError, InvalidJobSpec, JobSpec, Queue

LATER = datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
SOONER = datetime(2030, 1, 1, tzinfo=timezone.utc)


BLOCKED = "select cardinality(pg_blocking_pids(%s)) > 0"


def count(db: psycopg.Connection) -> int:
    (number,) = db.execute("select count(*) from graphile_worker._private_jobs").fetchone()
    return int(number)


def specs(number: int, **options: Any) -> Iterator[JobSpec]:
    return (JobSpec(f"task{index % 3}", index, queue_name=f"q{index % 2}", **options) for index in range(number))


def test_jobs_are_answered_in_the_order_of_their_specs(queue: Queue) -> None:
    queue.add_job("task", job_key="b")
    keys = ["z", None, "c", "b", None, "a"]
    jobs = queue.add_jobs(JobSpec(f"task{i}", i, job_key=key, priority=i) for i, key in enumerate(keys))
    expected = [(f"task{i}", i, key, i) for i, key in enumerate(keys)]
    assert [(job.task_identifier, job.payload, job.key, job.priority) for job in jobs] == expected
    assert [queue.job(job.id) for job in jobs] == jobs


def test_five_thousand_specs_of_a_generator_are_added_in_chunks(queue: Queue, db: psycopg.Connection) -> None:
    progress: list[int] = []
    jobs = queue.add_jobs(specs(5000), on_progress=progress.append)
    assert [(job.payload, job.task_identifier, job.queue_name) for job in jobs] == [
        (index, f"task{index % 3}", f"q{index % 2}") for index in range(5000)
    ]
    assert progress == [2000, 4000, 5000]
    assert [queue.job(job.id) for job in jobs[1990:2010]] == jobs[1990:2010]
    assert len({job.created_at for job in jobs}) == 1  # one transaction
    assert count(db) == 5000


def test_large_payloads_make_small_chunks(queue: Queue) -> None:
    progress: list[int] = []
    queue.add_jobs([JobSpec("task", "x" * 3_000_000) for _ in range(5)], on_progress=progress.append)
    assert progress == [2, 4, 5]


def test_nothing_to_add_adds_nothing(queue: Queue) -> None:
    for nothing in ([], (), iter(()), {}):
        assert queue.add_jobs(nothing, on_progress=pytest.fail) == []


def test_what_is_not_an_iterable_of_specs_is_refused(queue: Queue, db: psycopg.Connection) -> None:
    wrongs: list[Any] = [None, 5, JobSpec("task"), "task", ["task"], [{"identifier": "task"}], [None]]
    for wrong in wrongs:
        with pytest.raises(InvalidJobSpec, match=r"^specs: expected "):
            queue.add_jobs(wrong)
    assert count(db) == 0


def test_a_key_that_comes_twice_counts_as_added_one_after_the_other(queue: Queue, db: psycopg.Connection) -> None:
    batch = [
        JobSpec("a", [1], job_key="k", priority=1),
        JobSpec("free", 0),
        JobSpec("b", [2], job_key="k"),
        JobSpec("c", [3], job_key="k", priority=3),
        JobSpec("d", {"other": 1}, job_key="other"),
    ]
    first, free, second, third, other = queue.add_jobs(batch)
    assert (first.id, first.revision, first.payload, first.priority) == (third.id, 0, [1], 1)
    assert (second.revision, second.payload, second.task_identifier, second.priority) == (1, [1, 2], "b", 0)
    assert (third.revision, third.payload, third.task_identifier, third.priority) == (2, [1, 2, 3], "c", 3)
    assert [queue.job(job.id) for job in (third, free, other)] == [third, free, other]
    assert count(db) == 3


@pytest.mark.parametrize(("preserve", "kept"), [(True, SOONER), (False, LATER)])
def test_run_at_of_waiting_jobs_can_be_preserved(queue: Queue, preserve: bool, kept: datetime) -> None:
    queue.add_job("task", job_key="k", run_at=SOONER)
    batch = [JobSpec("task", job_key="k", run_at=LATER), JobSpec("task", job_key="new", run_at=LATER)]
    jobs = queue.add_jobs(batch, job_key_preserve_run_at=preserve)
    assert [job.run_at for job in jobs] == [kept, LATER]


# All, or nothing.


def broken(kind: str) -> Iterator[Any]:
    yield from specs(2500)
    if kind == "raises":
        raise ZeroDivisionError
    yield JobSpec("task", float("nan")) if kind == "invalid" else "no spec"


@pytest.mark.parametrize(
    ("kind", "error"), [("raises", ZeroDivisionError), ("invalid", InvalidJobSpec), ("foreign", InvalidJobSpec)]
)
def test_a_generator_that_breaks_off_adds_nothing(
    queue: Queue, db: psycopg.Connection, migrated_url: str, kind: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        queue.add_jobs(broken(kind))
    with pytest.raises(error):
        queue.add_jobs(broken(kind), connection=db)
    assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with psycopg.connect(migrated_url) as own:
        with pytest.raises(error):
            queue.add_jobs(broken(kind), connection=own)
        own.commit()
        queue.add_job("kept", connection=own)
        with pytest.raises(error):
            queue.add_jobs(broken(kind), connection=own)
        queue.add_job("kept", connection=own)
    assert db.execute("select task_identifier from graphile_worker.jobs").fetchall() == [("kept",), ("kept",)]


def test_an_error_in_on_progress_adds_nothing(queue: Queue, db: psycopg.Connection) -> None:
    def refuse(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        queue.add_jobs(specs(10), on_progress=refuse)
    assert count(db) == 0


def test_a_generator_may_use_the_same_connection(queue: Queue, migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as own:
        own.execute("create table source as select generate_series(1, 3000) as n")
        with own.cursor("cursor") as cursor:
            cursor.execute("select n from source order by n")
            jobs = queue.add_jobs((JobSpec("task", n) for (n,) in cursor), connection=own)
        own.rollback()
    assert [job.payload for job in jobs] == list(range(1, 3001))
    assert queue.jobs().items == []


# Workers, and other adders, in between.


def test_keys_a_worker_takes_in_between_are_added_anew(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    old = queue.add_jobs([JobSpec("task", [1], job_key="a"), JobSpec("task", [1], job_key="b")])
    with ThreadPoolExecutor(1) as thread, psycopg.connect(migrated_url) as worker, psycopg.connect(migrated_url) as own:
        worker.execute("update graphile_worker._private_jobs set locked_at = now(), attempts = 1 where key = 'a'")
        new = [JobSpec("task", [2]), JobSpec("task", [2], job_key="b"), JobSpec("task", [2], job_key="a")]
        adding = thread.submit(queue.add_jobs, new, connection=own)
        eventually(lambda: db.execute(BLOCKED, [own.info.backend_pid]).fetchone() == (True,))
        worker.commit()
        jobs = adding.result(timeout=30)
        own.commit()
    assert [job.payload for job in jobs] == [[2], [1, 2], [2]]
    assert jobs[1].id == old[1].id
    assert jobs[2].id != old[0].id
    assert [queue.job(job.id) for job in jobs] == jobs
    assert (queue.job(old[0].id).key, queue.job(old[0].id).payload) == (None, [1])


def test_twenty_threads_add_to_the_same_keys_and_nothing_is_lost(queue: Queue) -> None:
    start = threading.Barrier(20)

    def add(number: int) -> None:
        start.wait()
        keys = ["a", "b", "c"]
        queue.add_jobs(JobSpec("task", [number], job_key=key) for key in (keys if number % 2 else reversed(keys)))

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(add, range(20)))
    waiting = [queue.job(info.id) for info in queue.jobs()]
    assert sorted(job.key for job in waiting) == ["a", "b", "c"]
    assert [sorted(job.payload) for job in waiting] == [list(range(20))] * 3


# Bodies that Node may have installed answer without a row when they lose a race. The real ones are moved
# behind a function that answers so a number of times, counted in a sequence, which no rollback winds back.

ADD_JOBS = """
    create schema really;
    alter function graphile_worker.add_jobs set schema really;
    create sequence calls;
    create function graphile_worker.add_jobs(
      specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false
    ) returns setof graphile_worker._private_jobs language plpgsql as $$
    begin
      if nextval('calls') <= {times} then
        return query select * from really.add_jobs(
          array(select s from unnest(specs) as s where s.job_key is null or s.job_key <> 'lost'), $2);
        {and_then}
      else
        return query select * from really.add_jobs(specs, $2);
      end if;
    end $$"""
ADD_JOB = """
    create schema really;
    alter function graphile_worker.add_job set schema really;
    create sequence calls;
    create function graphile_worker.add_job(
      identifier text, payload json default null, queue_name text default null, run_at timestamptz default null,
      max_attempts integer default null, job_key text default null, priority integer default null,
      flags text[] default null, job_key_mode text default 'replace'
    ) returns graphile_worker._private_jobs language plpgsql as $$
    begin
      if nextval('calls') <= {times} then return null; end if;
      return really.add_job($1, $2, $3, $4, $5, $6, $7, $8, $9);
    end $$"""


@pytest.mark.parametrize("own", [False, True])
def test_an_empty_row_from_add_job_is_asked_for_again(queue: Queue, db: psycopg.Connection, own: bool) -> None:
    db.execute(ADD_JOB.format(times=2))
    job = queue.add_job("task", [1], job_key="k", connection=db if own else None)
    assert (job.payload, job.key, queue.job(job.id)) == ([1], "k", job)
    assert db.execute("select last_value from calls").fetchone() == (3,)


@pytest.mark.parametrize("and_then", ["", "return query select (null::graphile_worker._private_jobs).*;"])
def test_a_row_that_add_jobs_left_out_is_asked_for_again(queue: Queue, db: psycopg.Connection, and_then: str) -> None:
    db.execute(ADD_JOBS.format(times=2, and_then=and_then))
    keys = [None, "lost", "kept", None]
    jobs = queue.add_jobs(JobSpec("task", [index], job_key=key) for index, key in enumerate(keys))
    assert [(job.payload, job.key) for job in jobs] == [([index], key) for index, key in enumerate(keys)]
    assert [queue.job(job.id) for job in jobs] == jobs
    assert count(db) == 4


def test_a_row_that_never_comes_is_an_error_in_the_end(queue: Queue, db: psycopg.Connection) -> None:
    db.execute(ADD_JOBS.format(times=1000, and_then=""))
    with pytest.raises(GraphileWorkerError, match="nothing was added, try again"):
        queue.add_jobs([JobSpec("task", 1), JobSpec("task", 2, job_key="lost")])
    assert count(db) == 0
    db.execute("drop schema really cascade; drop sequence calls")
    db.execute(ADD_JOB.format(times=1000))
    with pytest.raises(GraphileWorkerError, match="nothing was added, try again"):
        queue.add_job("task", job_key="lost")
