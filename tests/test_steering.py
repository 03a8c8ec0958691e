"""What a handler raises to say what becomes of its job, or of one item of its batch: RetryLater, Snooze, GiveUp."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from failing import HOUR, LATER, node, run

from graphile_worker_py import (
    Backoff,
    GiveUp,
    Job,
    JobContext,
    JobFailed,
    JobSnoozed,
    JobSpec,
    Queue,
    RetryLater,
    RunSummary,
    Snooze,
)
from graphile_worker_py.testing import drain


@pytest.fixture
def snoozes(queue: Queue) -> list[JobSnoozed]:
    seen: list[JobSnoozed] = []
    queue.events.subscribe(JobSnoozed, seen.append)
    return seen


# What a handler says itself.


def test_give_up_fails_for_good_and_keeps_the_reason(
    queue: Queue, failures: list[JobFailed], wait: Callable[[], float]
) -> None:
    stored = run(queue, GiveUp("no such customer"), attempts=3)
    assert (stored.attempts, stored.max_attempts) == (25, 25)
    assert (stored.last_error or "").startswith("graphile_worker_py.retry.GiveUp: no such customer\n")
    assert [failure.final for failure in failures] == [True]
    assert wait() < 0.5  # so that it runs at once when it is given new attempts
    assert queue.run_once() == RunSummary(0, 0, 0)


def test_retry_later_sets_the_delay_and_spends_the_attempt(
    queue: Queue, failures: list[JobFailed], wait: Callable[[], float]
) -> None:
    stored = run(queue, RetryLater(HOUR), attempts=3, retry=lambda attempt, error: None)
    assert (stored.attempts, stored.max_attempts) == (4, 25)
    assert 3570 < wait() <= 3600
    assert [failure.final for failure in failures] == [False]
    assert (stored.last_error or "").startswith("graphile_worker_py.retry.RetryLater: in 1:00:00\n")


def test_retry_later_at_a_moment(queue: Queue) -> None:
    assert run(queue, RetryLater(run_at=LATER)).run_at == LATER


def test_retry_later_in_the_last_attempt_is_too_late(queue: Queue, failures: list[JobFailed]) -> None:
    run(queue, RetryLater(HOUR), attempts=24)
    assert [failure.final for failure in failures] == [True]


@pytest.mark.parametrize("attempts", [0, 3, 24])
def test_snooze_gives_the_attempt_back(
    queue: Queue, failures: list[JobFailed], snoozes: list[JobSnoozed], attempts: int
) -> None:
    snooze = Snooze(run_at=LATER)
    stored = run(queue, snooze, attempts=attempts)
    assert (stored.attempts, stored.max_attempts, stored.run_at) == (attempts, 25, LATER)
    assert stored.last_error is None
    assert failures == []
    assert [(event.job.id, event.exception, event.remaining) for event in snoozes] == [(stored.id, snooze, None)]


def test_snooze_leaves_the_error_of_an_earlier_attempt(queue: Queue, wait: Callable[[], float]) -> None:
    errors = [ValueError("first"), Snooze(0.0), Snooze(HOUR)]

    @queue.task(retry=Backoff(0))
    def work(payload: Any) -> None:
        raise errors.pop(0)

    job = work.add_job()
    assert queue.run_once(1) == RunSummary(completed=0, retrying=1, failed=0)
    stored = queue.job(job.id)
    assert stored is not None
    assert stored.attempts == 1
    assert (stored.last_error or "").startswith("ValueError: first\n")
    assert 3570 < wait() <= 3600


def test_a_snoozed_job_whose_key_was_taken_does_not_come_back(
    queue: Queue, failures: list[JobFailed], snoozes: list[JobSnoozed]
) -> None:
    @queue.task
    def work(payload: str) -> None:
        if payload == "first":
            queue.add_job("work", "second", job_key="k")
            raise Snooze(0)

    job = work.add_job("first", job_key="k")
    assert queue.run_once(1) == RunSummary(completed=1, retrying=0, failed=1)
    assert [(failure.job.id, failure.final) for failure in failures] == [(job.id, True)]
    assert snoozes == []
    stored = queue.job(job.id)
    assert stored is not None
    assert (stored.last_error or "").startswith("graphile_worker_py.retry.Snooze: in 0:00:00")


def test_a_keyed_job_can_be_snoozed(queue: Queue, snoozes: list[JobSnoozed]) -> None:
    @queue.task
    def work(payload: Any) -> None:
        raise Snooze(HOUR)

    job = work.add_job(job_key="k")
    queue.run_once(1)
    stored = queue.job(job.id)
    assert stored is not None
    assert (stored.attempts, stored.key, len(snoozes)) == (0, "k", 1)


def test_a_snooze_ends_the_run_of_a_named_queue(queue: Queue) -> None:
    seen: list[int] = []

    @queue.task
    def work(payload: int) -> None:
        seen.append(payload)
        if payload == 1 and seen.count(1) == 1:
            raise Snooze(0)

    queue.add_jobs(
        [JobSpec("work", number, queue_name="q", run_at=timedelta(seconds=-9 + number)) for number in range(4)]
    )
    assert queue.run_once(1).completed == 4
    assert seen == [0, 1, 2, 3, 1]


def test_give_up_within_the_completing_transaction_undoes_it(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("create table effects (n int)")

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (1)")
            raise GiveUp("after all")

    job = work.add_job()
    assert queue.run_once(1) == RunSummary(completed=0, retrying=0, failed=1)
    assert db.execute("select count(*) from effects").fetchone() == (0,)
    assert [info.id for info in queue.jobs(state="failed")] == [job.id]


def test_failures_of_all_kinds_are_written_together(queue: Queue) -> None:
    errors = {
        "node": ValueError(),
        "later": RetryLater(run_at=LATER),
        "snooze": Snooze(run_at=LATER),
        "up": GiveUp(),
        "none": None,
    }

    @queue.task
    def work(payload: str) -> None:
        if error := errors[payload]:
            raise error

    jobs = [work.add_job(name) for name in (*errors, *errors)]
    assert queue.run_once(1) == RunSummary(completed=2, retrying=4, failed=2)
    found = {
        (name, job.attempts, job.run_at == LATER)
        for one in jobs
        if (job := queue.job(one.id))
        for name in [job.payload]
    }
    assert found == {("node", 1, False), ("later", 1, True), ("snooze", 0, True), ("up", 25, False)}


@pytest.mark.parametrize("error", [GiveUp("why"), RetryLater(5, reason="why"), Snooze(run_at=LATER), RetryLater(HOUR)])
def test_what_steers_can_be_copied_and_pickled(error: Exception) -> None:
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


def test_what_is_run_in_place_is_steered_too(migrated_url: str) -> None:
    errors = {"up": GiveUp(), "snooze": Snooze(HOUR), "policy": KeyError(), "later": RetryLater(HOUR)}

    def work(payload: str) -> None:
        raise errors[payload]

    with Queue(migrated_url, give_up_on=LookupError) as queue:
        queue.task("work")(work)
        jobs = {name: queue.add_job("work", name) for name in errors}
        drained = drain(queue, raise_errors=False)
        assert [job.payload for job in drained.ran] == list(errors)
        assert {failure.job.payload: failure.final for failure in drained.failed} == {
            "up": True,
            "policy": True,
            "later": False,
        }
        stored = queue.job(jobs["snooze"].id)
        assert stored is not None
        assert stored.attempts == 0


# Batches.


def settle(queue: Queue, *entries: Any, attempts: int = 0, **options: Any) -> Job:
    """Run a batch job of items 0, 1, … whose handler returns these entries, and return what is stored of it."""
    queue.task("batch", **options)(lambda payload: list(entries))
    job = queue.add_job("batch", list(range(len(entries))))
    queue.reschedule_jobs([job.id], attempts=attempts)
    queue.run_once(1)
    stored = queue.job(job.id)
    assert stored is not None
    return stored


def failed(error: BaseException) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def test_an_item_that_is_given_up_is_dropped_and_recorded(queue: Queue, failures: list[JobFailed]) -> None:
    stored = settle(queue, None, GiveUp("bounced"), ValueError("busy"), failed(GiveUp("unknown")), 5)
    assert (stored.payload, stored.attempts) == ([2], 1)
    error = stored.last_error or ""
    assert error.startswith(
        "Batch failures: 3 of 5 items, 2 of them given up\n\n[1] (given up) graphile_worker_py.retry.GiveUp: bounced\n"
    )
    assert "\n\n[2] ValueError: busy" in error
    assert "\n\n[3] (given up) graphile_worker_py.retry.GiveUp: unknown" in error
    assert [(one.final, one.remaining, one.given_up) for one in failures] == [(False, 1, (1, 3))]


def test_a_batch_of_which_nothing_is_tried_again_keeps_what_failed(queue: Queue, failures: list[JobFailed]) -> None:
    stored = settle(queue, GiveUp("bounced"), None, KeyError("x"), give_up_on=LookupError)
    assert (stored.payload, stored.attempts, stored.max_attempts) == ([0, 2], 25, 25)
    assert [(one.final, one.remaining, one.given_up) for one in failures] == [(True, 2, (0, 2))]


def test_the_last_attempt_of_a_batch_drops_nothing(queue: Queue, failures: list[JobFailed]) -> None:
    stored = settle(queue, GiveUp("bounced"), ValueError(), None, attempts=24)
    assert stored.payload == [0, 1]
    assert [(one.final, one.remaining, one.given_up) for one in failures] == [(True, 2, (0,))]


def test_no_item_of_a_batch_is_tried_before_its_time(queue: Queue, wait: Callable[[], float]) -> None:
    settle(queue, RetryLater(5), ValueError(), RetryLater(timedelta(minutes=9)), attempts=3)
    assert 510 < wait() <= 540


def test_a_batch_may_wait_for_a_moment(queue: Queue) -> None:
    assert settle(queue, RetryLater(5), failed(RetryLater(run_at=LATER))).run_at == LATER


def test_items_without_a_delay_of_their_own_wait_as_in_node(queue: Queue, wait: Callable[[], float]) -> None:
    settle(queue, RetryLater(5), ValueError(), attempts=6)
    assert node(7) - 30 < wait() <= node(7) + 1


def test_a_batch_of_which_all_that_is_left_is_snoozed_gives_the_attempt_back(
    queue: Queue, snoozes: list[JobSnoozed]
) -> None:
    stored = settle(queue, Snooze(run_at=LATER), None, failed(Snooze(HOUR)), attempts=3)
    assert (stored.payload, stored.attempts, stored.run_at, stored.last_error) == ([0, 2], 3, LATER, None)
    assert [event.remaining for event in snoozes] == [2]


@pytest.mark.parametrize(("attempts", "left"), [(0, [0]), (24, [0, 1])])
def test_a_snooze_beside_what_is_given_up_is_a_failure_that_tells_of_it(
    queue: Queue, failures: list[JobFailed], attempts: int, left: list[int]
) -> None:
    stored = settle(queue, Snooze(HOUR), GiveUp("no such user"), attempts=attempts)
    assert (stored.payload, stored.attempts) == (left, attempts + 1)
    assert [event.given_up for event in failures] == [(1,)]
    assert "no such user" in (stored.last_error or "")


def test_a_snooze_beside_a_failure_is_a_retry(queue: Queue, failures: list[JobFailed]) -> None:
    stored = settle(queue, Snooze(HOUR), ValueError("no"))
    assert (stored.payload, stored.attempts) == ([0, 1], 1)
    assert len(failures) == 1


@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
@pytest.mark.parametrize(("error", "expected"), [(GiveUp(), "failed"), (Snooze(HOUR), "snoozed"), (OSError(), "again")])
def test_a_failure_whose_answer_got_lost_is_told_as_it_was_written(
    queue: Queue,
    failures: list[JobFailed],
    snoozes: list[JobSnoozed],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    expected: str,
    cancelled: bool,
) -> None:
    """One that was cancelled while it ran has failed for good, whatever its handler says."""
    run_statement = queue.database.run
    cut: list[str] = []

    def run_and_cut(name: str, *args: Any, **options: Any) -> object:
        if name == "fail_jobs" and not cut and cancelled:
            queue.cancel(1)
        rows = run_statement(name, *args, **options)
        if name == "fail_jobs" and not cut:
            cut.append(name)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return rows

    monkeypatch.setattr(queue.database, "run", run_and_cut)
    run(queue, error)
    assert cut == ["fail_jobs"]
    told = ["failed" if one.final else "again" for one in failures] + ["snoozed" for _ in snoozes]
    assert told == ["failed" if cancelled else expected]
