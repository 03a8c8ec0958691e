"""Managers around handlers, and log records that carry their job: for tracing, connections, application contexts."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest

from graphile_worker_py import (
    InvalidHandler,
    JobContext,
    JobFailed,
    JobLogFilter,
    JobStarted,
    JobTimeout,
    Queue,
    RunSummary,
    current_job,
)
from graphile_worker_py.worker import deadlines
from graphile_worker_py.worker.inline import InlineWorker


class Story:
    """Managers that tell what happens, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def manager(self, name: str) -> Any:
        @contextmanager
        def around(ctx: JobContext) -> Iterator[None]:
            self.told.append(f"{name} enters {ctx.job.task_identifier}")
            try:
                yield
            except BaseException as error:
                self.told.append(f"{name} sees {type(error).__name__}")
                raise
            finally:
                self.told.append(f"{name} leaves")

        return around


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def around(migrated_url: str, story: Story) -> Iterator[Queue]:
    with Queue(migrated_url, around=story.manager("queue")) as queue:
        yield queue


def test_the_queues_is_outside_its_tasks(around: Queue, story: Story) -> None:
    @around.task(around=story.manager("task"))
    def work(payload: Any) -> None:
        story.told.append(payload)

    @around.task
    def plain(payload: Any, ctx: JobContext) -> None:
        story.told.append(ctx.job.payload)

    around.add_job("work", "done")
    assert around.run_once() == RunSummary(1, 0, 0)
    assert story.told == ["queue enters work", "task enters work", "done", "task leaves", "queue leaves"]
    story.told.clear()
    around.add_job("plain", "done")
    around.run_once()
    assert story.told == ["queue enters plain", "done", "queue leaves"]


def test_they_see_what_the_handler_raises_and_run_in_its_context(around: Queue, story: Story) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @contextmanager
    def setting(ctx: JobContext) -> Iterator[None]:
        story.told.append(variable.get())
        variable.set("set")
        yield

    @around.task(around=setting, max_attempts=1)
    def work(payload: Any) -> None:
        story.told.append(variable.get())
        raise ConnectionError(payload)

    for number in range(2):
        around.add_job("work", number)
    assert around.run_once(concurrency=1) == RunSummary(0, 0, 2)
    one = ["queue enters work", "unset", "set", "queue sees ConnectionError", "queue leaves"]
    assert story.told == one * 2


def test_one_that_goes_in_waits_for_the_helpers_before_it_goes_out(around: Queue, story: Story) -> None:
    @around.task
    def work(payload: list[int], ctx: JobContext) -> Any:
        return ctx.map(lambda number: threading.Event().wait(0.02) or story.told.append(number), payload)

    around.add_job("work", [1, 2])
    assert around.run_once(concurrency=1) == RunSummary(1, 0, 0)
    assert sorted(story.told[1:3]) == [1, 2]
    assert story.told[3:] == ["queue leaves"]


@contextmanager
def failing_at_the_start(ctx: JobContext) -> Iterator[None]:
    if ctx:
        raise OSError("no tracing today")
    yield


@contextmanager
def failing_at_the_end(ctx: JobContext) -> Iterator[None]:
    yield
    raise OSError("no tracing today")


def failing_factory(ctx: JobContext) -> Any:
    raise OSError("no tracing today")


@pytest.mark.parametrize("factory", [failing_at_the_start, failing_at_the_end, failing_factory])
def test_one_that_fails_fails_the_job_and_nothing_else(queue: Queue, factory: Any) -> None:
    ran: list[Any] = []
    queue.task("work", around=factory, max_attempts=1)(ran.append)
    queue.task("other")(ran.append)
    job = queue.add_job("work", 1)
    assert queue.run_once(concurrency=1) == RunSummary(0, 0, 1)
    stored = queue.job(job.id)
    assert stored
    assert (stored.last_error or "").startswith("OSError: no tracing today")
    queue.add_job("other", 2)
    assert queue.run_once(concurrency=1) == RunSummary(1, 0, 0)
    assert ran == ([1, 2] if factory is failing_at_the_end else [2])


def test_what_makes_no_manager_fails_the_job(queue: Queue) -> None:
    queue.task("work", around=lambda ctx: None, max_attempts=1)(print)  # type: ignore[arg-type,return-value]
    queue.add_job("work")
    assert queue.run_once() == RunSummary(0, 0, 1)


def test_what_one_suppresses_is_suppressed(queue: Queue) -> None:
    @queue.task(around=lambda ctx: suppress(LookupError))
    def work(payload: dict[str, int]) -> None:
        print(payload["missing"])

    queue.add_job("work")
    assert queue.run_once() == RunSummary(1, 0, 0)


def test_one_may_settle_a_batch_and_end_in_time(around: Queue, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "TO_HEED", 0.05)
    failed: list[JobFailed] = []
    around.events.subscribe(JobFailed, failed.append)

    @around.task(max_attempts=1)
    def batch(payload: list[int]) -> list[Any]:
        return [ValueError(number) if number > 1 else None for number in payload]

    @around.task(max_attempts=1, timeout=0.1)
    def slow(payload: Any) -> None:
        while True:
            threading.Event().wait(0.001)

    around.add_job("batch", [1, 2, 3])
    around.run_once()
    assert failed[0].remaining == 2
    around.add_job("slow")
    around.run_once()
    assert isinstance(failed[1].exception, JobTimeout)
    assert story.told[-2:] == ["queue sees JobTimeout", "queue leaves"]


def test_jobs_of_the_calling_thread_are_surrounded_and_know_their_limit(around: Queue, story: Story) -> None:
    @around.task(timeout=60, around=story.manager("task"))
    def work(payload: Any, ctx: JobContext) -> None:
        ctx.progress(1, 2)
        story.told.append(50 < (ctx.remaining or 0) <= 60)

    around.add_job("work")
    InlineWorker(around).run_next()
    assert story.told == ["queue enters work", "task enters work", True, "task leaves", "queue leaves"]


def test_what_cannot_be_called_is_refused(migrated_url: str, queue: Queue) -> None:
    with pytest.raises(InvalidHandler, match="around: expected a function"):
        Queue(migrated_url, around=nullcontext())  # type: ignore[arg-type]
    with pytest.raises(InvalidHandler, match="around: expected a function"):
        queue.task(around=nullcontext())(print)  # type: ignore[call-overload]


class Records(logging.Handler):
    """Keeps what is logged to the logger of a library that knows nothing of jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []
        self.addFilter(JobLogFilter())

    def emit(self, record: logging.LogRecord) -> None:
        fields = [record.__dict__[name] for name in ("job_id", "task_identifier", "attempts")]
        self.seen.append((record.getMessage(), *fields))


@pytest.fixture
def library() -> Iterator[tuple[logging.Logger, Records]]:
    logger, records = logging.getLogger("some.library"), Records()
    logging.getLogger("some").addHandler(records)
    logging.getLogger("some").setLevel("INFO")
    yield logger, records
    logging.getLogger("some").removeHandler(records)


def test_every_record_of_a_handlers_thread_carries_its_job(queue: Queue, library: Any) -> None:
    logger, records = library

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        logger.info("here")
        assert current_job() is ctx.job
        ctx.submit(logger.info, "in a helper").result()
        ctx.submit(lambda: ctx.submit(logger.info, "in a helper's").result()).result()

    @queue.task
    def bare(payload: Any) -> None:
        logger.info("without a context")

    queue.events.subscribe(JobStarted, lambda event: logger.info("before"))
    jobs = [queue.add_job("work"), queue.add_job("bare")]
    queue.run_once(concurrency=1)
    logger.info("outside")
    logger.info("given", extra={"job_id": 7})
    first, second = ((job.id, job.task_identifier, 1) for job in jobs)
    assert records.seen == [
        ("before", None, None, None),
        ("here", *first),
        ("in a helper", *first),
        ("in a helper's", *first),
        ("before", None, None, None),
        ("without a context", *second),
        ("outside", None, None, None),
        ("given", 7, None, None),
    ]
    assert current_job() is None


def test_the_contexts_own_logger_says_the_same(queue: Queue, library: Any) -> None:
    _, records = library
    logging.getLogger("graphile_worker_py.task.work").addHandler(records)
    logging.getLogger("graphile_worker_py.task.work").setLevel("INFO")

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        ctx.logger.info("half done")

    job = queue.add_job("work")
    queue.run_once()
    logging.getLogger("graphile_worker_py.task.work").removeHandler(records)
    assert records.seen == [("half done", job.id, "work", 1)]
