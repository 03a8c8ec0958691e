"""Lists of jobs, queues and workers: filters, counts, and searches that end in time and say how far they came."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from plain_sql import Ear, counts

from graphile_worker_py import Cancellation, InvalidJobSpec, JobCount, JobSpec, Queue, WorkerPool, _scanning
from graphile_worker_py._one_connection import OneConnection
from graphile_worker_py._version import __version__

FAILED = "attempts = max_attempts"
HELD = "locked_at = now() - interval '1 minute', attempts = 1, locked_by = "


def change(db: psycopg.Connection, id: int, what: str) -> None:
    db.execute(f"update graphile_worker._private_jobs set {what} where id = {id}")  # noqa: S608


def ids(jobs: Any) -> list[int]:
    return [job.id for job in jobs]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look through the jobs in ranges of two ids at first."""
    monkeypatch.setattr(_scanning, "FIRST_PIECE", 2)


@pytest.fixture
def far_apart(queue: Queue, db: psycopg.Connection) -> list[int]:
    """Return the ids of nine jobs with wide gaps between them, of two tasks in turn."""
    far = [1, 2, 3, 70, 71, 10**9, 10**9 + 7, 2**62, 2**63 - 1]
    for number, id in enumerate(far):
        job = queue.add_job("ab"[number % 2])
        db.execute(
            "with gone as (delete from graphile_worker._private_jobs where id = %s returning task_id, run_at) "
            "insert into graphile_worker._private_jobs (id, task_id, run_at) overriding system value "
            "select %s, task_id, run_at from gone",
            [job.id, id],
        )
    return far


# What is found.


def test_jobs_are_found_by_priority_error_and_ids(queue: Queue, db: psycopg.Connection) -> None:
    one, two, three = ids(queue.add_jobs(JobSpec("task", priority=number) for number in (3, -1, 3)))
    change(db, one, "last_error = 'Timeout: 100% of %s_ \\ÄRGER'")
    assert ids(queue.jobs(priority=3)) == [one, three]
    assert ids(queue.jobs(ids=[three, two, 10**6])) == [two, three]
    assert ids(queue.jobs(ids=[])) == []
    assert [ids(queue.jobs(error=text)) for text in ("100% OF %S_ \\", "ärger", "1000", "")] == [
        [one],
        [one],
        [],
        [one],
    ]
    assert ids(queue.jobs(error="timeout", priority=-1)) == []


def test_pages_and_counts_are_the_same_in_whatever_pieces(
    queue: Queue, far_apart: list[int], small_pieces: None
) -> None:
    assert ids(queue.jobs()) == far_apart
    assert ids(queue.jobs(task="b")) == far_apart[1::2]
    seen, after = [], 0
    while after is not None:
        page = queue.jobs(limit=2, after=after, patience=30)
        assert not page.gave_up
        seen += ids(page)
        after = page.next
    assert seen == far_apart
    assert queue.jobs.count() == JobCount(9, exact=True)
    assert queue.jobs.count(task="b", after=70) == JobCount(2, exact=True)
    assert [queue.jobs.count(at_most=number) for number in (8, 9)] == [
        JobCount(8, exact=False),
        JobCount(9, exact=True),
    ]
    assert queue.jobs.count(after=2**63 - 1) == queue.jobs.count(task="c") == JobCount(0, exact=True)


# Searches that end in time.


@pytest.fixture
def slow_job(queue: Queue, db: psycopg.Connection, far_apart: list[int]) -> int:
    """Return the id of a job whose error nobody reads in less than a minute."""
    (definition,) = db.execute("select pg_get_viewdef('graphile_worker.jobs'::regclass)").fetchone() or ("",)
    assert "jobs.last_error" in definition
    db.execute(  # stable, for the planner would look at every row of a view with a volatile function
        "create function slow(id bigint, error text) returns text language plpgsql stable "
        "as $$ begin perform pg_sleep(60) where id = 70; return error; end $$"
    )
    slow = "public.slow(jobs.id, jobs.last_error) as last_error"
    db.execute("create or replace view graphile_worker.jobs as " + definition.replace("jobs.last_error", slow))
    return 70


def test_a_search_that_has_to_give_up_says_how_far_it_came(
    queue: Queue, db: psycopg.Connection, slow_job: int, small_pieces: None
) -> None:
    change(db, 2, "last_error = 'no'")
    page = queue.jobs(error="no", patience=0.3)
    assert (ids(page), page.gave_up) == ([2], True)
    assert 2 <= page.next < slow_job
    assert queue.jobs.count(error="no", patience=0.3) == JobCount(1, exact=False)
    page = queue.jobs(error="no", after=slow_job)
    assert (ids(page), page.gave_up, page.next) == ([], False, None)
    assert db.execute("show statement_timeout").fetchone() == ("0",)


def test_a_table_that_is_locked_is_not_waited_for(queue: Queue, migrated_url: str) -> None:
    job = queue.add_job("task", queue_name="q")
    with psycopg.connect(migrated_url) as other:
        other.execute("lock table graphile_worker._private_jobs")
        page = queue.jobs(patience=0.1)
        assert (page.items, page.next, page.gave_up) == ([], 0, True)
        assert queue.jobs.count(patience=0.1) == JobCount(0, exact=False)
        (named,) = queue.queues(patience=0.1)
        assert (named.name, named.jobs, named.exact) == ("q", 0, False)
    assert ids(queue.jobs(patience=30)) == [job.id]


def test_the_limit_does_not_outlast_the_search(queue: Queue, migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as own, queue.elsewhere(OneConnection(own, schema="graphile_worker")):
        queue.add_job("task")
        assert len(queue.jobs(patience=30)) == 1
        assert own.execute("show statement_timeout").fetchone() == ("0",)
        own.rollback()


# Queues and workers.


def test_queues_say_who_holds_them_and_what_waits(queue: Queue, db: psycopg.Connection) -> None:
    for name in ("b", "", "a", "a", "c"):
        last = queue.add_job("task", queue_name=name)
    first = queue.jobs(queue_name="a").items[0]
    change(db, first.id, HELD + "'w'")
    change(db, last.id, "run_at = now() + interval '1 hour'")
    db.execute(
        "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'w' where queue_name = 'a'"
    )
    found = {named.name: named for named in queue.queues()}
    assert list(found) == ["", "a", "b", "c"]
    assert {name: (named.jobs, named.ready, named.locked_by) for name, named in found.items()} == {
        "": (1, 1, None),
        "a": (2, 1, "w"),
        "b": (1, 1, None),
        "c": (1, 0, None),
    }
    assert all(named.exact and (named.oldest_ready is None) == (not named.ready) for named in found.values())
    assert found["a"].locked_at is not None
    assert [named.name for named in queue.queues(locked=True)] == ["a"]
    assert [named.name for named in queue.queues(locked=False, limit=2, after="")] == ["b", "c"]
    assert queue.queues(after="c") == []


@pytest.fixture
def held(queue: Queue, db: psycopg.Connection, small_pieces: None) -> Iterator[WorkerPool]:
    """Yield a pool that runs no jobs, of those that three others hold."""
    for holder in ("node", "node", "node", "dead"):
        change(db, queue.add_job("task").id, f"{HELD}'{holder}'")
    queue.add_job("task", queue_name="q")
    db.execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'other'")
    queue.task("another")(print)
    with WorkerPool(queue, 3) as pool:
        db.execute(
            "insert into graphile_worker._private_py_pools (id, beat_at, dead_after, host, pid, concurrency, version) "
            "values ('dead', now() - interval '2 minutes', '1 minute', 'far away', 7, 1, '0')"
        )
        yield pool


def test_workers_are_ours_or_what_they_are(queue: Queue, held: WorkerPool) -> None:
    workers = {worker.id: worker for worker in queue.workers()}
    assert list(workers) == [held.id, "dead", "node", "other"]
    ours, dead, node, other = workers.values()
    assert (ours.alive, ours.host, ours.pid, ours.version) == (True, socket.gethostname(), os.getpid(), __version__)
    assert (ours.threads, ours.running, ours.queues, ours.since) == (3, 0, 0, None)
    assert ours.started_at <= ours.beat_at
    assert (dead.alive, dead.host, dead.running) == (False, "far away", 1)
    assert (node.alive, node.host, node.pid, node.threads, node.beat_at) == (None,) * 5
    assert (node.running, node.queues, other.running, other.queues) == (3, 0, 0, 1)
    assert node.since < other.since
    assert all(worker.exact for worker in workers.values())


def test_workers_without_tables_of_ours_are_those_who_hold_something(queue: Queue, db: psycopg.Connection) -> None:
    change(db, queue.add_job("task").id, HELD + "'w'")
    db.execute("drop table graphile_worker._private_py_pools")
    (worker,) = queue.workers()
    assert (worker.id, worker.alive, worker.running) == ("w", None, 1)


# What is changed.


def test_jobs_are_run_now(queue: Queue, db: psycopg.Connection) -> None:
    jobs = dict(zip(["due", "late", "retrying", "failed", "held"], queue.add_jobs([JobSpec("t")] * 5), strict=True))
    for name, what in {
        "due": "run_at = now() - interval '1 hour', attempts = 2",
        "late": "run_at = now() + interval '1 hour'",
        "retrying": "run_at = now() + interval '1 hour', attempts = 2",
        "failed": f"run_at = now() + interval '1 hour', {FAILED}",
        "held": HELD + "'w'",
    }.items():
        change(db, jobs[name].id, what)
    ran = queue.run_jobs_now([*(job.id for job in jobs.values()), 10**6])
    assert ids(ran) == [jobs[name].id for name in ("due", "late", "retrying", "failed")]
    assert [job.attempts for job in ran] == [2, 0, 2, 0]
    assert [info.state for info in queue.jobs()] == [*["ready"] * 4, "running"]
    first, *others = (job.run_at for job in ran)
    assert all(first < other for other in others)  # it keeps its place
    assert queue.run_jobs_now([]) == []


def test_jobs_that_are_run_now_wake_workers(
    queue: Queue, migrated_url: str, pools: Callable[..., WorkerPool], expected: Callable[[int], Any]
) -> None:
    queue.task("t")(lambda payload: None)
    later = ids(queue.add_jobs([JobSpec("t", run_at=timedelta(hours=1))] * 2))
    pools(1, poll_interval=3600.0)
    with Ear(migrated_url, "jobs:insert") as ear:
        with expected(2):
            queue.run_jobs_now([*later, 10**6])
        assert counts(ear.heard()) == [2]
        queue.run_jobs_now(later)
        assert ear.heard() == []


def test_many_are_cancelled_at_once(queue: Queue, db: psycopg.Connection) -> None:
    waiting, running, failed = ids(queue.add_jobs([JobSpec("t")] * 3))
    change(db, running, HELD + "'w'")
    change(db, failed, FAILED)
    assert queue.cancel_jobs([running, 10**6, failed, waiting, running], "enough") == {
        running: Cancellation.RUNNING,
        10**6: Cancellation.TOO_LATE,
        failed: Cancellation.TOO_LATE,
        waiting: Cancellation.WAITING,
    }
    assert [info.last_error for info in queue.jobs()] == ["cancelled: enough", "cancelled: enough", None]
    assert queue.cancel_jobs([]) == {}


BAD: list[tuple[str, Callable[[Queue, Any], object], list[Any]]] = [
    ("priority", lambda queue, wrong: queue.jobs(priority=wrong), [32_768, "1", True]),
    ("error", lambda queue, wrong: queue.jobs(error=wrong), [5, "\x00", "x" * 513]),
    ("ids", lambda queue, wrong: queue.jobs(ids=wrong), [5, ["1"], [2**63]]),
    ("patience", lambda queue, wrong: queue.jobs(patience=wrong), [0, -1, "1", float("nan"), 10**6]),
    ("state", lambda queue, wrong: queue.jobs.count(state=wrong), ["done", 5]),
    ("at_most", lambda queue, wrong: queue.jobs.count(at_most=wrong), [0, 10**10, None]),
    ("after", lambda queue, wrong: queue.jobs.count(after=wrong), [-1, None]),
    ("limit", lambda queue, wrong: queue.queues(limit=wrong), [0, 10_001]),
    ("after", lambda queue, wrong: queue.queues(after=wrong), [5, "\ud800", "q" * 129]),
    ("patience", lambda queue, wrong: queue.workers(patience=wrong), [0]),
    ("ids", lambda queue, wrong: queue.run_jobs_now(wrong), [5, ["1"], [None]]),
    ("ids", lambda queue, wrong: queue.cancel_jobs(wrong), [5]),
    ("id", lambda queue, wrong: queue.cancel_jobs([wrong]), ["1", 2**63]),
]


def test_bad_arguments_are_refused_by_their_names(queue: Queue) -> None:
    for name, call, values in BAD:
        for wrong in values:
            with pytest.raises(InvalidJobSpec, match=rf"^{name}: "):
                call(queue, wrong)
