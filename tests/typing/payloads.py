"""Typed payloads and retry policies as typed users write them; checked by mypy --strict and by pyright, never run.

A `type: ignore` here is a test too: both checkers complain of one that is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

import attrs
from pydantic import BaseModel
from typing_extensions import assert_type

from graphile_worker_py import (
    Backoff,
    GiveUp,
    InvalidPayload,
    Job,
    JobContext,
    JobSnoozed,
    Queue,
    RetryLater,
    Snooze,
    Tasks,
)

queue = Queue(retry=Backoff(base=2, cap=timedelta(hours=1), jitter=0.1), give_up_on=LookupError)
tasks = Tasks()


@attrs.frozen
class Charge:
    """What is to be paid."""

    order: int


@dataclass
class Refund:
    """What is to be paid back."""

    order: int


class Mail(TypedDict):
    """What a mail is about."""

    to: str


class Report(BaseModel):
    """What is reported on."""

    year: int


def rule(attempt: int, error: BaseException) -> timedelta | None:
    """Give up on the third failure."""
    return None if attempt == 3 else timedelta(seconds=attempt)


@queue.task
def charge(payload: Charge, ctx: JobContext) -> None:
    """Take an attrs class."""
    if payload.order < 0:
        raise GiveUp("no such order")
    raise Snooze(timedelta(minutes=1)) if payload.order else RetryLater(run_at=datetime.now().astimezone())


@queue.task("refund", retry=Backoff(timedelta(seconds=5), factor=3), retry_on=[OSError], give_up_on=ConnectionError)
def refund(payload: Refund) -> int:
    """Take a dataclass."""
    return payload.order


@tasks.task("mail", retry=rule, retry_invalid=True)
def mail(payload: Mail) -> None:
    """Take a TypedDict."""


@queue.task(max_attempts=3)
def report(payload: Report | None) -> None:
    """Take a model of pydantic, or nothing."""


@queue.task
def charge_all(payload: list[Charge], ctx: JobContext) -> None:
    """Take a batch."""


@queue.task
def anything(payload: Any) -> None:
    """Take whatever comes."""


@queue.task
def any_object(payload: dict[str, Any]) -> None:
    """Take any JSON object, an empty one too."""


@queue.task
def counts(payload: Mapping[str, int]) -> None:
    """Take what need not be a dict."""


def right() -> None:
    assert_type(charge.add_job(Charge(7), job_key="charge:7", run_at=timedelta(minutes=1)), Job)
    refund.add_job(Refund(7), priority=1)
    mail.add_job({"to": "someone@example.com"})
    report.add_job(Report(year=2024))
    report.add_job(None)
    charge_all.add_job([Charge(7), Charge(8)])
    anything.add_job()
    anything.add_job(5, queue_name="numbers")
    any_object.add_job()
    any_object.add_job({"any": ["thing"]})
    counts.add_job({"a": 1})
    assert_type(refund(Refund(7)), int)
    assert_type(refund(payload=Refund(7)), int)


def wrong(ctx: JobContext) -> None:
    charge.add_job(Refund(7))  # type: ignore[arg-type]
    charge.add_job({"order": 7})  # type: ignore[arg-type]
    charge.add_job()  # type: ignore[call-arg]
    charge.add_job(Charge("7"))  # type: ignore[arg-type]
    charge.add_job(Charge(7), ctx)  # type: ignore[arg-type, call-arg]
    mail.add_job({"from": "someone@example.com"})  # type: ignore[typeddict-item]
    report.add_job()  # type: ignore[call-arg]
    charge_all.add_job(Charge(7))  # type: ignore[arg-type]
    charge_all.add_job([Refund(7)])  # type: ignore[list-item]
    any_object.add_job(5)  # type: ignore[call-overload]
    counts.add_job({"a": "b"})  # type: ignore[dict-item]


def policies() -> None:
    assert_type(Backoff(1.5, cap=60)(3), timedelta)
    Backoff(base="2")  # type: ignore[arg-type]
    Backoff(jitter=0.1).cap = timedelta(1)  # type: ignore[misc]
    queue.task("a", retry=5)  # type: ignore[call-overload]
    queue.task("b", retry=lambda attempt: timedelta(1))  # type: ignore[arg-type, misc]
    queue.task("c", retry_on=[5])  # type: ignore[list-item]
    Queue(give_up_on=int)  # type: ignore[arg-type]
    Snooze("tomorrow")  # type: ignore[arg-type]
    queue.events.subscribe(JobSnoozed, lambda event: print(event.job.id, event.remaining))
    assert_type(InvalidPayload(["payload.a: is missing"]).problems, tuple[str, ...])
