"""remove_job, complete_jobs, permanently_fail_jobs, reschedule_jobs and force_unlock_workers, in plain SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from plain_sql import (
    DEAD,
    LOCKED,
    LOCKED_A_WHILE_AGO,
    LOCKED_LONG_AGO,
    Connection,
    Ear,
    Row,
    add,
    call,
    change,
    connect,
    counts,
    stored,
)
from psycopg import errors as pg

PENDING = "attempts = 0"
UNLOCKED = [PENDING, DEAD, LOCKED_LONG_AGO]
IN_WORK = [LOCKED, LOCKED_A_WHILE_AGO]
BY_IDS = ["complete_jobs", "permanently_fail_jobs", "reschedule_jobs"]


@pytest.fixture
def db(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url) as connection:
        yield connection


@pytest.fixture
def ear(migrated_url: str) -> Iterator[Ear]:
    with Ear(migrated_url, "jobs:insert") as ear:
        yield ear


def job_in(db: Connection, state: str, **arguments: Any) -> Row:
    """Add a job, bring it into a state, and date its last change back."""
    return change(db, add(db, **arguments), f"{state}, updated_at = 'epoch'")


def since_epoch(db: Connection, job: Row) -> bool:
    return bool(db.execute("select %s > timestamptz 'epoch' as since", [job["updated_at"]]).fetchone()["since"])


# remove_job.


@pytest.mark.parametrize("state", UNLOCKED)
def test_remove_job_deletes_what_nobody_works_on(db: Connection, ear: Ear, state: str) -> None:
    job = job_in(db, state, job_key="k")
    other = add(db, job_key="other")
    ear.heard()
    assert call(db, "remove_job", job_key="k") == [job]
    assert (stored(db, job), stored(db, other)) == (None, other)
    assert counts(ear.heard()) == [-1]


@pytest.mark.parametrize("state", IN_WORK)
def test_remove_job_takes_key_and_retries_from_what_is_in_work(db: Connection, ear: Ear, state: str) -> None:
    job = job_in(db, state, job_key="k", max_attempts=5)
    ear.heard()
    (removed,) = call(db, "remove_job", job_key="k")
    assert since_epoch(db, removed)
    assert removed == {**job, "key": None, "attempts": 5, "updated_at": removed["updated_at"]}
    assert stored(db, job) == removed
    assert ear.heard() == []


@pytest.mark.parametrize("key", ["another", None])
def test_remove_job_of_no_job_is_a_row_of_nulls(db: Connection, ear: Ear, key: str | None) -> None:
    job = add(db, job_key="k")
    ear.heard()
    (removed,) = call(db, "remove_job", job_key=key)
    assert set(removed.values()) == {None}
    assert stored(db, job) == job
    assert ear.heard() == []


def test_remove_job_is_strict(db: Connection) -> None:
    query = "select graphile_worker.remove_job(null) is null as strict, graphile_worker.remove_job('k')::text as row"
    assert db.execute(query).fetchone() == {"strict": True, "row": f"({',' * 16})"}


# The functions that take ids.


@pytest.mark.parametrize("state", UNLOCKED)
def test_complete_jobs_deletes(db: Connection, ear: Ear, state: str) -> None:
    jobs = [job_in(db, state, queue_name="q") for _ in range(2)]
    left = add(db)
    db.execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'w'")
    ear.heard()
    found = call(db, "complete_jobs", job_ids=[*(job["id"] for job in jobs), 999])
    assert sorted(found, key=lambda job: job["id"]) == jobs
    assert db.execute("select * from graphile_worker._private_jobs").fetchall() == [left]
    assert db.execute("select locked_by from graphile_worker._private_job_queues").fetchone() == {"locked_by": "w"}
    assert ear.heard() == []


@pytest.mark.parametrize("state", UNLOCKED)
@pytest.mark.parametrize("message", ["mine", "", None])
def test_permanently_fail_jobs(db: Connection, ear: Ear, state: str, message: str | None) -> None:
    job = job_in(db, state, job_key="k")
    ear.heard()
    (failed,) = call(db, "permanently_fail_jobs", job_ids=[job["id"]], error_message=message)
    assert since_epoch(db, failed)
    assert failed == {
        **job,
        "last_error": "Manually marked as failed" if message is None else message,
        "attempts": 25,
        "is_available": False,
        "updated_at": failed["updated_at"],
    }
    assert stored(db, job) == failed
    assert ear.heard() == []


def test_permanently_fail_jobs_has_a_message_of_its_own(db: Connection) -> None:
    job = add(db)
    (failed,) = call(db, "permanently_fail_jobs", job_ids=[job["id"]])
    assert failed["last_error"] == "Manually marked as failed"


@pytest.mark.parametrize("state", UNLOCKED)
def test_reschedule_jobs_changes_what_was_given(db: Connection, ear: Ear, state: str) -> None:
    job = job_in(db, state, run_at="2031-01-01", priority=3, max_attempts=7)
    ear.heard()
    for name, value in {"priority": -1, "attempts": 2, "max_attempts": 30}.items():
        (changed,) = call(db, "reschedule_jobs", job_ids=[job["id"]], **{name: value})
        available = job["locked_at"] is None and changed["attempts"] < changed["max_attempts"]
        assert changed == {**job, name: value, "updated_at": changed["updated_at"], "is_available": available}
        job = changed
    (changed,) = call(db, "reschedule_jobs", job_ids=[job["id"]], run_at="2032-01-01")
    assert (changed["run_at"].year, since_epoch(db, changed)) == (2032, True)
    assert stored(db, job) == changed == {**job, "run_at": changed["run_at"], "updated_at": changed["updated_at"]}
    assert ear.heard() == []


def test_reschedule_jobs_given_nothing_but_ids_marks_the_time(db: Connection) -> None:
    job = job_in(db, PENDING)
    (changed,) = call(db, "reschedule_jobs", job_ids=[job["id"]])
    assert since_epoch(db, changed)
    assert changed == {**job, "updated_at": changed["updated_at"]}


def test_reschedule_jobs_may_set_more_attempts_than_there_are(db: Connection) -> None:
    job = add(db)
    (changed,) = call(db, "reschedule_jobs", job_ids=[job["id"]], attempts=100)
    assert (changed["attempts"], changed["max_attempts"], changed["is_available"]) == (100, 25, False)
    for limit, error in [
        ({"max_attempts": 0}, pg.CheckViolation),
        ({"max_attempts": 32768}, pg.NumericValueOutOfRange),
        ({"priority": 32768}, pg.NumericValueOutOfRange),
        ({"attempts": 32768}, pg.NumericValueOutOfRange),
    ]:
        with pytest.raises(error):
            call(db, "reschedule_jobs", job_ids=[job["id"]], **limit)


@pytest.mark.parametrize("function", BY_IDS)
@pytest.mark.parametrize("state", IN_WORK)
def test_jobs_in_work_are_passed_over(db: Connection, ear: Ear, function: str, state: str) -> None:
    job = job_in(db, state)
    ear.heard()
    assert call(db, function, job_ids=[job["id"]]) == []
    assert stored(db, job) == job
    assert ear.heard() == []


@pytest.mark.parametrize("ids", [[], None, [None], [999]])
@pytest.mark.parametrize("function", BY_IDS)
def test_ids_of_nothing_are_nothing(db: Connection, function: str, ids: list[int | None] | None) -> None:
    job = add(db)
    assert call(db, function, job_ids=ids) == []
    assert stored(db, job) == job


@pytest.mark.parametrize("function", [*BY_IDS, "remove_job"])
def test_a_lock_counts_for_four_hours_and_not_a_microsecond_longer(db: Connection, function: str) -> None:
    """The clock stands still within a transaction, so the edge itself can be tried."""
    job = add(db, job_key="k")
    arguments = {"job_key": "k"} if function == "remove_job" else {"job_ids": [job["id"]]}
    for age, passed_over in [("4 hours", True), ("4 hours 0.000001 seconds", False)]:
        with db.transaction(force_rollback=True):
            change(db, job, f"locked_at = now() - interval '{age}', locked_by = 'w'")
            found = call(db, function, **arguments)
            if function == "remove_job":
                assert (stored(db, job) is not None) == passed_over
            else:
                assert (found == []) == passed_over


# force_unlock_workers.


def test_force_unlock_workers_lets_go_of_jobs_and_queues(db: Connection, ear: Ear) -> None:
    jobs = [job_in(db, LOCKED, queue_name=name) for name in ("mine", "also mine", "other")]
    holders = ["w1", "w2", "w3"]
    for job, holder in zip(jobs, holders, strict=True):
        db.execute("update graphile_worker._private_jobs set locked_by = %s where id = %s", [holder, job["id"]])
        db.execute(
            "update graphile_worker._private_job_queues set locked_by = %s, locked_at = now() where id = %s",
            [holder, job["job_queue_id"]],
        )
    ear.heard()
    (answer,) = call(db, "force_unlock_workers", worker_ids=["w1", "w2", "gone"])
    assert list(answer) == ["force_unlock_workers"]
    for job in jobs[:2]:
        assert stored(db, job) == {**job, "locked_at": None, "locked_by": None, "is_available": True}
    assert stored(db, jobs[2])["locked_by"] == "w3"
    query = "select locked_by, locked_at is null as free, is_available from graphile_worker._private_job_queues"
    queues = [tuple(row.values()) for row in db.execute(query).fetchall()]
    assert sorted(queues, key=str) == [("w3", False, False), (None, True, True), (None, True, True)]
    assert ear.heard() == []
