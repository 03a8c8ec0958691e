"""Queue's administration: removing, completing, failing, rescheduling, unlocking, cleaning up, listing, counting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import InvalidJobSpec, Job, JobSpec, Queue

LATER = datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
RUNNING = "locked_at = now(), locked_by = 'w', attempts = 1"
STALE = "locked_at = now() - interval '4 hours 1 minute', locked_by = 'w', attempts = 1"
FAILED = "attempts = max_attempts, last_error = 'no'"


def change(db: psycopg.Connection, job: Job, what: str) -> None:
    db.execute(f"update graphile_worker._private_jobs set {what} where id = {job.id}")  # noqa: S608


def names(db: psycopg.Connection, table: str, column: str) -> set[str]:
    return {row[0] for row in db.execute(f"select {column} from graphile_worker.{table}")}  # noqa: S608


# One job, or some.


def test_remove_job_deletes_the_job_and_returns_it(queue: Queue) -> None:
    job = queue.add_job("task", [1], job_key="k", queue_name="q")
    other = queue.add_job("task", job_key="other")
    assert queue.remove_job("k") == job
    assert queue.remove_job("k") is None
    assert queue.job(other.id) == other


def test_remove_job_takes_key_and_retries_from_a_running_job(queue: Queue, db: psycopg.Connection) -> None:
    job = queue.add_job("task", job_key="k", max_attempts=3)
    change(db, job, RUNNING)
    removed = queue.remove_job("k")
    assert (removed.id, removed.key, removed.attempts, removed.locked_by) == (job.id, None, 3, "w")
    assert queue.job(job.id) == removed


def test_only_what_nobody_works_on_is_administered(queue: Queue, db: psycopg.Connection) -> None:
    ids = {}
    for state in ("attempts = 0", FAILED, STALE, RUNNING):
        ids[state] = queue.add_job("task", [1], queue_name="q").id
        db.execute(f"update graphile_worker._private_jobs set {state} where id = {ids[state]}")  # noqa: S608
    free = [id for state, id in ids.items() if state != RUNNING]
    all_of_them = [*ids.values(), 10**6]
    rescheduled = queue.reschedule_jobs(all_of_them, run_at=LATER, priority=-3, attempts=2, max_attempts=9)
    assert sorted(job.id for job in rescheduled) == free
    for job in rescheduled:
        assert (job.run_at, job.priority, job.attempts, job.max_attempts) == (LATER, -3, 2, 9)
        assert (job.payload, job.queue_name, queue.job(job.id)) == ([1], "q", job)
    failed = queue.permanently_fail_jobs(all_of_them, "enough")
    assert sorted(job.id for job in failed) == free
    assert {(job.attempts, job.last_error) for job in failed} == {(9, "enough")}
    assert queue.permanently_fail_jobs(free[:1])[0].last_error == "Manually marked as failed"
    assert sorted(job.id for job in queue.complete_jobs(iter(all_of_them))) == free
    assert [info.id for info in queue.jobs()] == [ids[RUNNING]]


def test_reschedule_jobs_keeps_what_is_not_said_and_sets_zeros(queue: Queue, db: psycopg.Connection) -> None:
    job = queue.add_job("task", run_at=LATER, priority=5, max_attempts=3)
    change(db, job, FAILED)
    (kept,) = queue.reschedule_jobs([job.id])
    assert (kept.run_at, kept.priority, kept.attempts, kept.max_attempts) == (LATER, 5, 3, 3)
    (anew,) = queue.reschedule_jobs([job.id], attempts=0, priority=0)
    assert (anew.run_at, anew.priority, anew.attempts, anew.max_attempts) == (LATER, 0, 0, 3)
    (delayed,) = queue.reschedule_jobs([job.id], run_at=timedelta(hours=1))
    assert delayed.run_at == delayed.updated_at + timedelta(hours=1)


def test_no_ids_are_no_jobs(queue: Queue) -> None:
    assert queue.complete_jobs([]) == queue.permanently_fail_jobs(()) == queue.reschedule_jobs(iter([])) == []
    queue.force_unlock_workers([])


@pytest.mark.parametrize("alone", [False, True])
def test_force_unlock_workers_frees_jobs_and_queues(queue: Queue, db: psycopg.Connection, alone: bool) -> None:
    for holder in ("dead", "alive"):
        job = queue.add_job("task", queue_name=holder)
        change(db, job, f"locked_at = now(), locked_by = '{holder}', attempts = 1")
    db.execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = queue_name")
    queue.force_unlock_workers("dead" if alone else {"dead", "unknown"})
    assert [(info.locked_by, info.state, info.attempts) for info in queue.jobs()] == [
        (None, "ready", 1),
        ("alive", "running", 1),
    ]
    assert names(db, "_private_job_queues", "locked_by") == {None, "alive"}


BAD: list[tuple[str, Callable[[Queue, Any], object], list[Any]]] = [
    ("job_key", lambda queue, wrong: queue.remove_job(wrong), ["", None, "a\x00", "\ud800", 5, "x" * 513]),
    ("ids", lambda queue, wrong: queue.complete_jobs(wrong), [5, None, "12", ["1"], [True], [2**63], [10**5000]]),
    ("ids", lambda queue, wrong: queue.permanently_fail_jobs([wrong]), [1.0, None]),
    ("ids", lambda queue, wrong: queue.reschedule_jobs(wrong), [5, ["1"]]),
    ("ids", lambda queue, wrong: queue.force_unlock_workers(wrong), [5, None, [5], ["\ud800"]]),
    ("reason", lambda queue, wrong: queue.permanently_fail_jobs([1], wrong), [5, "a\x00"]),
    ("run_at", lambda queue, wrong: queue.reschedule_jobs([1], run_at=wrong), [datetime.now(), "now", timedelta.max]),
    ("priority", lambda queue, wrong: queue.reschedule_jobs([1], priority=wrong), [40_000, "1"]),
    ("attempts", lambda queue, wrong: queue.reschedule_jobs([1], attempts=wrong), [-1, 32_768, True]),
    ("max_attempts", lambda queue, wrong: queue.reschedule_jobs([1], max_attempts=wrong), [0, 32_768, 1.0]),
    ("tasks", lambda queue, wrong: queue.cleanup(wrong), [5, ["GC"], "gc_job_queues", [None], [[]]]),
    ("keep_tasks", lambda queue, wrong: queue.cleanup(keep_tasks=wrong), [5, [5], ["\x00"]]),
    ("id", lambda queue, wrong: queue.job(wrong), ["1", None, True, 2**63, 10**5000]),
    ("limit", lambda queue, wrong: queue.jobs(limit=wrong), [0, 10_001, "1", None, True]),
    ("after", lambda queue, wrong: queue.jobs(after=wrong), [-1, "1", None, 2**63]),
    ("state", lambda queue, wrong: queue.jobs(state=wrong), ["dead", "", 5, []]),
    ("task", lambda queue, wrong: queue.jobs(task=wrong), [5, "\x00", "\ud800"]),
    ("queue_name", lambda queue, wrong: queue.jobs(queue_name=wrong), [5]),
    ("job_key", lambda queue, wrong: queue.jobs(job_key=wrong), [b"k"]),
]


def test_bad_arguments_are_refused_by_their_names(queue: Queue) -> None:
    job = queue.add_job("task", job_key="k")
    for name, call, values in BAD:
        for wrong in values:
            with pytest.raises(ValueError, match=rf"^{name}: "):
                call(queue, wrong)
    assert queue.job(job.id) == job
    assert issubclass(InvalidJobSpec, ValueError)


# Cleaning up.


def test_cleanup_deletes_jobs_first_so_that_their_names_go_as_well(queue: Queue, db: psycopg.Connection) -> None:
    for name, state in [("failed", FAILED), ("running", RUNNING), ("waiting", "attempts = 1")]:
        change(db, queue.add_job(name, queue_name=f"{name} queue"), state)
    queue.complete_jobs([queue.add_job("gone", queue_name="gone queue").id])
    cleaned = queue.cleanup(["GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"])
    assert list(cleaned.items()) == [("DELETE_PERMAFAILED_JOBS", 1), ("GC_TASK_IDENTIFIERS", 2), ("GC_JOB_QUEUES", 2)]
    assert [info.task_identifier for info in queue.jobs()] == ["running", "waiting"]
    assert names(db, "_private_tasks", "identifier") == {"running", "waiting"}
    assert names(db, "_private_job_queues", "queue_name") == {"running queue", "waiting queue"}


def test_cleanup_does_what_it_is_asked_and_nothing_else(queue: Queue, db: psycopg.Connection) -> None:
    change(db, queue.add_job("failed", queue_name="q"), FAILED)
    queue.complete_jobs([queue.add_job("gone", queue_name="gone").id])
    assert queue.cleanup() == {"GC_JOB_QUEUES": 1}
    assert queue.cleanup([]) == {}
    assert queue.cleanup("DELETE_PERMAFAILED_JOBS") == {"DELETE_PERMAFAILED_JOBS": 1}
    assert names(db, "_private_tasks", "identifier") == {"failed", "gone"}
    assert names(db, "_private_job_queues", "queue_name") == {"q"}


def test_cleanup_keeps_a_failed_job_that_still_runs_and_a_queue_that_is_held(
    queue: Queue, db: psycopg.Connection
) -> None:
    change(db, queue.add_job("task"), f"{RUNNING}, max_attempts = 1")
    queue.complete_jobs([queue.add_job("task", queue_name="held").id])
    db.execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'w'")
    assert queue.cleanup(["DELETE_PERMAFAILED_JOBS", "GC_JOB_QUEUES"]) == {
        "DELETE_PERMAFAILED_JOBS": 0,
        "GC_JOB_QUEUES": 0,
    }


@pytest.mark.parametrize(("keep", "left"), [((), {"own"}), (["kept"], {"own", "kept"}), ("kept", {"own", "kept"})])
def test_cleanup_keeps_the_names_of_own_tasks_and_of_those_it_is_told(
    queue: Queue, db: psycopg.Connection, keep: Any, left: set[str]
) -> None:
    queue.task("own")(print)
    queue.complete_jobs([queue.add_job(name).id for name in ("own", "kept", "k", "other")])
    queue.cleanup(["GC_TASK_IDENTIFIERS"], keep_tasks=keep)
    assert names(db, "_private_tasks", "identifier") == left


def test_cleanup_waits_two_seconds_for_a_transaction_that_adds(queue: Queue, migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as own:
        job = queue.add_job("new", queue_name="new", connection=own)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            queue.cleanup(["GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"])
        own.commit()
    assert queue.cleanup(["GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"]) == {"GC_TASK_IDENTIFIERS": 0, "GC_JOB_QUEUES": 0}
    assert queue.job(job.id) == job


@pytest.mark.parametrize("add", ["add_job", "add_jobs"])
def test_a_job_added_while_its_names_are_dropped_makes_them_anew(
    queue: Queue, db: psycopg.Connection, migrated_url: str, add: str
) -> None:
    queue.complete_jobs([queue.add_job("task", queue_name="q").id])
    with ThreadPoolExecutor(1) as thread, psycopg.connect(migrated_url) as cleaner:
        cleaner.execute("lock table graphile_worker._private_jobs in share row exclusive mode")
        cleaner.execute("delete from graphile_worker._private_tasks")
        cleaner.execute("delete from graphile_worker._private_job_queues")
        if add == "add_job":
            adding = thread.submit(lambda: queue.add_job("task", queue_name="q"))
        else:
            adding = thread.submit(lambda: queue.add_jobs([JobSpec("task", queue_name="q")])[0])
        waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        eventually(lambda: db.execute(waiting).fetchall())
        cleaner.commit()
        job = adding.result(timeout=30)
    assert queue.job(job.id) == job
    assert [(info.task_identifier, info.queue_name) for info in queue.jobs()] == [("task", "q")]


# Looking.


def test_jobs_come_in_pages_in_the_order_of_their_ids(queue: Queue) -> None:
    jobs = queue.add_jobs(JobSpec("task", index, priority=-index) for index in range(7))
    seen, after, sizes = [], 0, []
    while after is not None:
        page = queue.jobs(limit=3, after=after)
        seen += [info.id for info in page]
        sizes.append(len(page))
        after = page.next
    assert (seen, sizes) == ([job.id for job in jobs], [3, 3, 1])
    assert queue.jobs(limit=7).next is None
    assert len(queue.jobs(limit=10_000)) == 7


STATES = {
    "ready": "run_at = now() - interval '1 minute'",
    "scheduled": "run_at = now() + interval '1 day'",
    "running": RUNNING,
    "retrying": "run_at = now() + interval '1 day', attempts = 1",
    "failed": FAILED,
}


def test_every_job_has_one_state(queue: Queue, db: psycopg.Connection) -> None:
    for what in STATES.values():
        change(db, queue.add_job("task"), what)
    for state in STATES:
        assert [info.state for info in queue.jobs(state=state)] == [state]
    change(db, queue.add_job("tried"), "attempts = 3")  # its time has come again
    change(db, queue.add_job("late"), f"{FAILED}, locked_at = now(), locked_by = 'w'")  # the last attempt runs
    assert [info.state for info in queue.jobs(task="tried")] == ["ready"]
    assert [info.state for info in queue.jobs(task="late")] == ["running"]
    late, task, tried = queue.stats()
    assert (task.identifier, task.ready, task.scheduled, task.running, task.retrying, task.failed) == ("task", *[1] * 5)
    assert (tried.ready, tried.failed, late.running, late.failed, late.oldest_ready) == (1, 0, 1, 0, None)
    assert 0 <= task.oldest_ready < 60  # counted from when it was added, not from a run_at in the past


def test_jobs_can_be_filtered(queue: Queue) -> None:
    one = queue.add_job("a", queue_name="q", job_key="k", flags=["f"], priority=3, run_at=LATER)
    two = queue.add_job("b", queue_name="")
    three = queue.add_job("a")
    assert [info.id for info in queue.jobs(task="a")] == [one.id, three.id]
    assert [info.id for info in queue.jobs(queue_name="q")] == [one.id]
    assert [info.id for info in queue.jobs(queue_name="")] == [two.id]
    assert [info.id for info in queue.jobs(job_key="k", task="a", queue_name="q", state="scheduled")] == [one.id]
    assert queue.jobs(job_key="k", task="b").items == []
    (info,) = queue.jobs(job_key="k")
    for name in ("id", "task_identifier", "queue_name", "priority", "run_at", "attempts", "max_attempts", "last_error",
                 "created_at", "updated_at", "key", "locked_at", "locked_by", "revision", "flags"):  # fmt: skip
        assert getattr(info, name) == getattr(one, name)


def test_a_job_that_is_not_there_is_none(queue: Queue) -> None:
    assert queue.job(1) is queue.job(-1) is queue.job(0) is queue.job(2**63 - 1) is None
    assert queue.stats() == []


ODD_TIMES = {"infinity": 9999, "-infinity": 1, "0044-03-15 12:00 BC": 1, "20000-01-01": 9999, "9999-12-31 23:59": 9999}


def test_a_run_at_that_python_does_not_have_breaks_nothing(queue: Queue, db: psycopg.Connection) -> None:
    add = "select id from graphile_worker.add_job('odd', '[1]', run_at => %s::timestamptz, job_key => 'k')"
    other = queue.add_job("task")
    for run_at, year in ODD_TIMES.items():
        (id,) = db.execute(add, [run_at]).fetchone()
        assert [info.run_at.year for info in queue.jobs()] == [other.run_at.year, year]
        assert queue.job(id).run_at.year == year
        assert queue.stats()[0].ready == (1 if year == 1 else 0)
        (kept,) = queue.add_jobs([JobSpec("odd", [2], job_key="k")], job_key_preserve_run_at=True)
        assert (kept.run_at.year, kept.payload) == (year, [1, 2])
        kept = queue.add_job("odd", [3], job_key="k", job_key_mode="preserve_run_at")
        assert (kept.run_at.year, kept.payload) == (year, [1, 2, 3])
        stored = db.execute("select run_at = %s from graphile_worker.jobs where id = %s", [run_at, id])
        assert stored.fetchone() == (True,)
        assert queue.permanently_fail_jobs([id])[0].run_at.year == year
        assert queue.remove_job("k").run_at.year == year
