"""When a failed job is tried again: as the task says, or its queue, or else as in Node."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from failing import HOUR, LATER, node, run

from graphile_worker_py import (
    Backoff,
    InvalidJobSpec,
    JobCancelled,
    JobContext,
    JobFailed,
    JobSpec,
    Queue,
    RetryLater,
    RunSummary,
    Snooze,
    Tasks,
)
from graphile_worker_py.retry import AGAIN, RetryPolicy

# Policies.


def test_a_backoff_grows_up_to_its_cap() -> None:
    backoff = Backoff(base=2, factor=3, cap=timedelta(minutes=1), jitter=0)
    assert [backoff(attempt).total_seconds() for attempt in (1, 2, 3, 4, 5, 32767)] == [2, 6, 18, 54, 60, 60]
    assert Backoff(timedelta(seconds=5), factor=1, jitter=0)(30_000) == timedelta(seconds=5)
    assert Backoff(base=0, jitter=0)(32767) <= HOUR
    assert Backoff() == Backoff(1, 2, HOUR, 0.1) == Backoff(base=timedelta(seconds=1), cap=3600)


def test_jitter_takes_off_no_more_than_its_part() -> None:
    some, any_ = ({Backoff(100, jitter=part)(1).total_seconds() for _ in range(2000)} for part in (0.1, 1))
    assert (min(some) >= 90, max(some) <= 100, len(some) > 1000) == (True, True, True)
    assert (min(any_) < 10, max(any_) > 90) == (True, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Backoff(base=-1), "base: expected no less than 0, got -1 seconds"),
        (lambda: Backoff(base="1"), "base: expected a timedelta or a number of seconds, got str"),  # type: ignore[arg-type]
        (lambda: Backoff(base=True), "base: expected a timedelta or a number of seconds, got bool"),
        (lambda: Backoff(cap=math.nan), "cap: expected a number of seconds that a timedelta can hold"),
        (lambda: Backoff(cap=1e300), "cap: expected a number of seconds that a timedelta can hold"),
        (lambda: Backoff(cap=timedelta.max), "cap: ends after the year 9998"),
        (lambda: Backoff(factor=0.5), "factor: expected a number from 1 to 1000, got 0.5"),
        (lambda: Backoff(factor=math.nan), "factor: expected a number from 1 to 1000, got nan"),
        (lambda: Backoff(jitter=2), "jitter: expected a number from 0 to 1, got 2"),
        (lambda: Backoff(jitter=None), "jitter: expected a number from 0 to 1, got NoneType"),  # type: ignore[arg-type]
        (lambda: Tasks().task("x", retry=5)(print), "retry: expected a Backoff or a function"),  # type: ignore[arg-type]
        (lambda: Tasks().task("x", retry=Backoff)(print), "retry: expected a Backoff or a function"),  # type: ignore[arg-type]
        (lambda: Tasks().task("x", retry_on=[5])(print), "retry_on: expected exception types, got int"),  # type: ignore[list-item]
        (lambda: Queue("", give_up_on=int), "give_up_on: expected exception types, got type"),  # type: ignore[arg-type]
        (RetryLater, "RetryLater: give a delay or a run_at"),
        (lambda: Snooze(5, run_at=LATER), "Snooze: give a delay or a run_at"),
        (lambda: Snooze(-5), "delay: expected no less than 0, got -5 seconds"),
        (lambda: RetryLater(run_at=datetime(2024, 1, 1)), "run_at: a naive datetime could mean any time zone"),
        (lambda: RetryLater(run_at=HOUR), "run_at: expected an aware datetime, got timedelta"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_refused_where_they_are_made(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidJobSpec) as caught:
        wrong()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("attempts", [0, 3, 20])
def test_a_backoff_sets_the_delay(queue: Queue, wait: Callable[[], float], attempts: int) -> None:
    stored = run(queue, ValueError(), attempts=attempts, retry=Backoff(100, jitter=0))
    expected = min(100 * 2**attempts, 3600)
    assert expected - 30 < wait() <= expected
    assert (stored.attempts, stored.max_attempts) == (attempts + 1, 25)


def test_a_rule_of_ones_own_is_asked_for_each_failure(queue: Queue, wait: Callable[[], float]) -> None:
    asked: list[tuple[int, BaseException]] = []
    error = ConnectionError("no")

    def rule(attempt: int, error: BaseException) -> timedelta:
        asked.append((attempt, error))
        return timedelta(hours=attempt)

    run(queue, error, attempts=4, retry=rule)
    assert asked == [(5, error)]
    assert 5 * 3600 - 30 < wait() <= 5 * 3600


def test_a_rule_that_says_none_gives_up(queue: Queue, failures: list[JobFailed]) -> None:
    stored = run(queue, ValueError("why"), retry=lambda attempt, error: None)
    assert (stored.attempts, stored.max_attempts) == (25, 25)
    assert [failure.final for failure in failures] == [True]
    assert (stored.last_error or "").startswith("ValueError: why\n")
    assert [info.id for info in queue.jobs(state="failed")] == [stored.id]


@pytest.mark.parametrize("broken", [lambda attempt: 1, lambda attempt, error: 5, lambda attempt, error: 1 / 0])
def test_a_rule_that_does_not_work_costs_no_retry(
    queue: Queue, wait: Callable[[], float], caplog: pytest.LogCaptureFixture, broken: Any
) -> None:
    run(queue, ValueError(), retry=broken)
    assert node(1) - 3 < wait() <= node(1)
    assert "a retry rule failed" in caplog.text


def test_a_rule_may_say_now(queue: Queue, wait: Callable[[], float]) -> None:
    tries: list[int] = []

    @queue.task(retry=lambda attempt, error: timedelta(days=-1))
    def work(payload: Any, ctx: JobContext) -> None:
        tries.append(ctx.job.attempts)
        if len(tries) < 3:
            raise ValueError

    work.add_job()
    assert queue.run_once(1) == RunSummary(completed=1, retrying=2, failed=0)
    assert tries == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "error", "final"),
    [
        ({"give_up_on": LookupError}, KeyError(), True),
        ({"give_up_on": LookupError}, ValueError(), False),
        ({"give_up_on": [LookupError, ValueError]}, ValueError(), True),
        ({"retry_on": OSError}, ConnectionError(), False),
        ({"retry_on": OSError}, ValueError(), True),
        ({"retry_on": (OSError, ValueError)}, ValueError(), False),
        ({"retry_on": ()}, ValueError(), True),
        ({"retry_on": OSError, "give_up_on": ConnectionError}, ConnectionError(), True),
        ({"retry_on": OSError, "give_up_on": ConnectionError}, OSError(), False),
        ({"give_up_on": BaseException}, SystemExit(), True),
        ({"give_up_on": Exception}, RetryLater(5), False),
        ({"retry_on": OSError}, RetryLater(5), False),
    ],
)
def test_types_of_exceptions_decide(
    queue: Queue, failures: list[JobFailed], options: dict[str, Any], error: BaseException, final: bool
) -> None:
    stored = run(queue, error, **options)
    assert [failure.final for failure in failures] == [final]
    assert (stored.attempts == stored.max_attempts) == final


def test_a_queue_speaks_for_the_tasks_that_say_nothing(migrated_url: str) -> None:
    rule = Backoff(HOUR, factor=1, jitter=0)
    with Queue(migrated_url, retry=rule, give_up_on=LookupError) as queue:

        def work(payload: str) -> None:
            raise {"key": KeyError, "value": ValueError}[payload]

        tasks = Tasks()
        tasks.task("silent")(work)
        tasks.task("delay", retry=lambda attempt, error: timedelta(minutes=1))(work)
        tasks.task("types", retry_on=LookupError)(work)
        queue.include(tasks)
        names = ("silent", "delay", "types")
        jobs = queue.add_jobs([JobSpec(name, payload) for name in names for payload in ("key", "value")])
        assert queue.run_once(1) == RunSummary(completed=0, retrying=3, failed=3)
        found = {(job.task_identifier, job.payload): queue.job(job.id) for job in jobs}
        delays = {
            name: round((job.run_at - job.created_at) / timedelta(minutes=1))
            for name, job in found.items()
            if job is not None and job.attempts < job.max_attempts
        }
        assert delays == {("silent", "value"): 60, ("delay", "value"): 1, ("types", "key"): 60}


def test_that_a_pool_stops_is_no_mistake_of_a_job() -> None:
    policy = RetryPolicy(lambda attempt, error: None, retry_on=ConnectionError, give_up_on=None)
    assert policy.verdict(JobCancelled("the worker pool is stopping"), 1) is AGAIN
    assert policy.verdict(ValueError(), 1).final


def test_a_policy_is_completed_by_a_more_general_one() -> None:
    rule, other = Backoff(1), Backoff(2)
    general = RetryPolicy(rule, (OSError,), (KeyError,))
    assert RetryPolicy().or_else(general) == general
    assert RetryPolicy(other, None, (ValueError,)).or_else(general) == RetryPolicy(other, None, (ValueError,))
    assert RetryPolicy(retry_invalid=True).or_else(general).retry_invalid
