"""What a local queue has claimed and lost, to a broken connection, an outage or its death: nothing stays locked."""

from __future__ import annotations

import math
from typing import Any

import psycopg
import pytest

from graphile_worker_py import Job, JobSpec, Queue
from graphile_worker_py.worker import claims, local_queue
from graphile_worker_py.worker.local_queue import LocalQueue


class Local(LocalQueue):
    """A local queue that is not started: a test takes its steps, and says how many jobs the next ones want."""

    wants = 0

    def __init__(self, queue: Queue, **options: Any) -> None:
        super().__init__(
            queue.database,
            "holder",
            concurrency=1,
            tasks=lambda: ["work"],
            forbidden_flags=list,
            poll_interval=3600.0,
            **options,
        )
        self.alive(math.inf)

    def _wanted(self, coming: int = 0) -> int:
        return self.wants


def local_with(queue: Queue, monkeypatch: pytest.MonkeyPatch, *, jobs: int, at_a_time: int) -> Local:
    """Add jobs, and return a local queue that claims so many of them at a time, and as many ahead."""
    monkeypatch.setattr(local_queue, "LARGEST_CLAIM", at_a_time)
    queue.add_jobs(JobSpec("work", number) for number in range(jobs))
    local = Local(queue)
    local.wants = at_a_time
    return local


def state(db: psycopg.Connection, local: Local) -> tuple[int, int]:
    """Return how many jobs are locked, and how many of those are known."""
    (count,) = db.execute("select count(*) from graphile_worker._private_jobs where locked_by = 'holder'").fetchone()
    return int(count), len(local.held)


def check_that_all_goes_back(db: psycopg.Connection, local: Local) -> None:
    """Take a step that wants no more, and look whether the jobs are as before, and their queues free."""
    local.wants = 0
    local.step()
    jobs = db.execute("select distinct locked_by, attempts from graphile_worker._private_jobs").fetchall()
    assert jobs == [(None, 0)]
    assert {*db.execute("select locked_by from graphile_worker._private_job_queues").fetchall()} <= {(None,)}


def test_a_claim_that_was_sent_ahead_and_got_lost_on_the_way_goes_back(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = local_with(queue, monkeypatch, jobs=30, at_a_time=10)
    begin = queue.database.begin_by_index
    sent: list[str] = []

    def cut_the_second(name: str, parameters: Any) -> Any:
        sent.append(name)
        answer = begin(name, parameters)
        if len(sent) == 2:
            answer()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return answer

    monkeypatch.setattr(queue.database, "begin_by_index", cut_the_second)
    local.step()
    assert state(db, local) == (20, 10)
    local.wants = 0
    local.step()
    assert state(db, local) == (10, 10)
    local.close()


def test_what_is_locked_again_after_an_outage_goes_back_at_the_stop_with_a_claim_under_way(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = local_with(queue, monkeypatch, jobs=9, at_a_time=4)
    local.step()
    assert state(db, local) == (4, 4)  # the four of the next claim are not committed
    db.execute(
        "update graphile_worker._private_jobs set locked_by = 'holder', locked_at = now(), attempts = 1 where id = 9"
    )
    queue.database.outage.note("listener", psycopg.OperationalError("gone"), 1.0)
    queue.database.outage.answered(math.inf)
    local.ask()
    local.close()
    check_that_all_goes_back(db, local)


# A pool that was declared dead begins nothing it had claimed until then: others may have been given it.


def add_some(queue: Queue) -> None:
    queue.add_jobs(JobSpec("work", queue_name="one" if number else None) for number in range(3))


def test_of_a_claim_that_is_read_while_the_pool_hears_of_its_death_nothing_begins(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_some(queue)
    ended: list[Exception | None] = []
    local = Local(queue, on_end=ended.append)

    def job(*row: Any) -> Job:
        local.give_up()
        return Job(*row)

    monkeypatch.setattr(claims, "Job", job)
    local.wants = 3
    assert local.step() == 0
    assert (state(db, local), ended) == ((2, 0), [])
    check_that_all_goes_back(db, local)
    local.close()


def test_a_death_between_two_answers_of_the_database_leaves_nothing_held(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_some(queue)
    local = Local(queue)
    local.wants = 3
    local.step()
    assert state(db, local) == (2, 2)

    def fails(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as away:
        away.setattr(queue.database, "run", fails)
        local.give_up()
    assert state(db, local) == (2, 0)
    check_that_all_goes_back(db, local)
    local.close()


def test_what_has_waited_too_long_is_not_begun_after_a_death_either(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_queue, "TIME_TO_LIVE", 0.0)
    add_some(queue)
    local = Local(queue)
    local.wants = 3
    local.step()

    def dies(*_: Any, **__: Any) -> Any:
        local.give_up()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as away:
        away.setattr(queue.database, "run", dies)
        with pytest.raises(psycopg.OperationalError):
            local.step()
    assert state(db, local) == (2, 0)
    check_that_all_goes_back(db, local)
    local.close()
