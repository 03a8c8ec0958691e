"""Tasks, handlers and workers as typed users write them; checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from logging import Logger, LoggerAdapter
from threading import Event
from typing import Any, TypedDict

from typing_extensions import assert_type

from graphile_worker_py import (
    Cancellation,
    CronItem,
    Job,
    JobContext,
    JobFailed,
    JobRun,
    JobSpec,
    Progress,
    Queue,
    RunSummary,
    Task,
    Tasks,
    WorkerPool,
)

queue = Queue()
tasks = Tasks()


class Mail(TypedDict):
    """What a mail is about."""

    to: str


@queue.task
def send(payload: Mail) -> None:
    """Take the payload only."""


@queue.task("send_many", queue_name="mail", priority=1, max_attempts=5, flags=["bulk"])
def send_many(payload: list[Mail], ctx: JobContext) -> list[Future[bool]]:
    """Take the payload and the context, and settle a batch with a future for each item."""
    return ctx.map(deliver, payload)


@queue.cron("0 4 * * *", {"to": "all"}, backfill=timedelta(days=1), tz="Europe/Paris", job_key_mode="replace")
@tasks.cron("@daily", identifier="nightly")
@queue.task
def remind(payload: Mail) -> bool:
    """Stay the task it was, below the clocks it runs by."""
    return payload["to"] == "all"


@tasks.task("audit")
def audit(payload: Any) -> int:
    """Belong to a library's registry."""
    return len(payload)


def traced(ctx: JobContext) -> AbstractContextManager[None]:
    """Wrap each call of a handler."""
    return nullcontext()


@queue.task(timeout=timedelta(seconds=5), around=traced)
def limited(payload: Mail) -> None:
    """Have a limit, and a manager."""


@queue.task("unlimited", timeout=2.5, around=traced)
def with_context(payload: Mail, ctx: JobContext) -> None:
    """Tell how far it is."""
    assert_type(ctx.remaining, float | None)
    ctx.check_cancelled()
    ctx.progress(1, 2, "half")
    ctx.progress(1.5)  # type: ignore[arg-type]


@queue.task(around=5)  # type: ignore[call-overload, untyped-decorator]
def surrounded(payload: Any) -> None:
    """Have a manager that is none."""


def jobs_end(queue: Queue) -> None:
    assert_type(queue.cancel(1), Cancellation)
    assert_type(queue.cancel(1, "no longer wanted"), Cancellation)
    assert_type(queue.set_timeout(1, timedelta(hours=1)), bool)
    assert_type(queue.progress(1), Progress | None)
    queue.set_timeout(1, "1h")  # type: ignore[arg-type]
    Queue(around=traced)


@queue.task(5)  # type: ignore[call-overload, untyped-decorator]
def numbered(payload: Any) -> None:
    """Have an identifier that is no text."""


def deliver(mail: Mail) -> bool:
    """Do the work for one item."""
    return bool(mail["to"])


def handles_are_still_functions(ctx: JobContext) -> None:
    handle: Task[[Mail], None] = send
    wrong: Task[[Mail], int] = send  # type: ignore[assignment]
    print(handle, wrong)
    assert_type(send({"to": "someone@example.com"}), None)
    assert_type(send_many([{"to": "someone@example.com"}], ctx), list[Future[bool]])
    assert_type(audit([1]), int)
    send("someone@example.com")  # type: ignore[arg-type]
    send_many([])  # type: ignore[call-arg]


def handles_by_the_clock() -> None:
    assert_type(remind({"to": "all"}), bool)
    remind({"from": "all"})  # type: ignore[typeddict-item]
    queue.cron("@daily")(deliver)  # type: ignore[arg-type]


def handles_add_jobs() -> None:
    assert_type(send.add_job({"to": "someone@example.com"}, job_key="k", job_key_mode="replace"), Job)
    assert_type(send.identifier, str)
    send.add_job({"to": "someone@example.com"}, "queue")  # type: ignore[call-arg]
    send.add_job({"to": "someone@example.com"}, queue="queue")  # type: ignore[call-arg]


def the_context_offers(ctx: JobContext) -> None:
    assert_type(ctx.job, Job)
    assert_type(ctx.queue, Queue)
    assert_type(ctx.cancelled, Event)
    assert_type(ctx.logger, LoggerAdapter[Logger])
    assert_type(ctx.add_job("x", [1], queue_name="q"), Job)
    assert_type(ctx.add_jobs([JobSpec("x")]), list[Job])
    assert_type(ctx.submit(deliver, {"to": "someone@example.com"}), Future[bool])
    assert_type(ctx.map(str, [1, 2]), list[Future[str]])
    ctx.map(deliver, [1, 2])  # type: ignore[arg-type]


def workers(queue: Queue) -> None:
    queue.include(tasks)
    assert_type(queue.run_once(concurrency=4), RunSummary)
    queue.run_worker(8, forbidden_flags=["bulk"])
    queue.run_worker(forbidden_flags=lambda: ["bulk"])
    queue.run_worker(crontab="crontab")
    WorkerPool(queue, crontab=[CronItem("@daily", "x", {"n": 1}, tz="Europe/Paris", backfill=timedelta(days=1))])
    CronItem("@daily", "x", fill="1d")  # type: ignore[call-arg]
    WorkerPool(queue, crontab=5)  # type: ignore[arg-type]
    with WorkerPool(queue, concurrency=8) as pool:
        assert_type(pool, WorkerPool)
        pool.stop(timeout=5)
    WorkerPool("postgresql:///app")  # type: ignore[arg-type]


def complain(event: JobFailed) -> None:
    print(event.job.id, event.error, event.final)


def listeners(queue: Queue) -> None:
    assert_type(queue.events.subscribe(JobFailed, complain), Callable[[], None])
    queue.events.subscribe(JobFailed, lambda event: print(event.remaining))
    queue.events.subscribe(RunSummary, complain)  # type: ignore[arg-type]


@queue.task(keep_result=timedelta(hours=1))
def price(payload: str) -> float:
    """Return what is kept."""
    return 3.5


assert_type(price("snail"), float)
assert_type(queue.wait_for(price.add_job("snail"), timeout=5), Any)
assert_type(queue.history(task="price", outcome="failed", limit=10), list[JobRun])
queue.run_worker(history=timedelta(days=7))
queue.history(outcome="done")  # type: ignore[arg-type]
queue.task(keep_result="1h")  # type: ignore[call-overload]
