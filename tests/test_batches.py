"""Batch jobs: a list payload, a future per item, and what is left of it after a partial failure."""

from __future__ import annotations

import contextvars
import datetime
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest

from graphile_worker_py import Job, JobCompleted, JobContext, JobFailed, Queue, WorkerPool


def run(queue: Queue, handler: object, payload: object) -> Job | None:
    """Run one job of that handler and payload once; return what is stored of it then."""
    queue.task("batch")(handler)
    job = queue.add_job("batch", payload)
    queue.run_once(2)
    return queue.job(job.id)


async def promised(items: list[int]) -> AsyncIterator[float]:
    for item in items:
        yield half(item)


def half(number: int) -> float:
    return 2 / number


def test_a_batch_of_successful_futures_is_done(queue: Queue) -> None:
    seen: list[float] = []

    def handler(payload: list[int], ctx: JobContext) -> list[Future[None]]:
        return ctx.map(lambda item: seen.append(half(item)), payload)

    assert run(queue, handler, [1, 2, 4]) is None
    assert sorted(seen) == [0.5, 1, 2]


def test_only_the_failed_items_go_back_in_their_order(queue: Queue) -> None:
    job = run(queue, lambda payload, ctx: ctx.map(half, payload), [0, 1, 0, 2, 0])
    assert job is not None
    assert job.payload == [0, 0, 0]
    assert (job.attempts, job.locked_by, job.revision) == (1, None, 0)
    assert job.last_error is not None
    assert job.last_error.startswith("Batch failures: 3 of 5 items")
    for position in (0, 2, 4):
        assert f"[{position}] ZeroDivisionError" in job.last_error
    assert "return 2 / number" in job.last_error


def test_items_keep_their_identity_in_the_retry(queue: Queue) -> None:
    payload = [{"n": 1, "text": "é"}, {"n": 0, "text": "snow ☃"}, {"n": 0, "nested": [None, {"a": 1.5}]}]
    job = run(queue, lambda payload, ctx: ctx.map(lambda item: half(item["n"]), payload), payload)
    assert job is not None
    assert job.payload == payload[1:]


def test_a_handler_may_use_up_its_list(queue: Queue) -> None:
    def handler(payload: list[int]) -> list[Exception | None]:
        results: list[Exception | None] = []
        while payload:
            results.append(ValueError("no") if payload.pop(0) == 2 else None)
        return results

    job = run(queue, handler, [1, 2, 3])
    assert job is not None
    assert job.payload == [2]
    assert (job.last_error or "").startswith("Batch failures: 1 of 3 items")


def test_a_longer_list_than_there_were_items_is_a_mismatch_though_the_handler_grew_its_list(queue: Queue) -> None:
    def handler(payload: list[int]) -> list[None]:
        payload.append(3)
        return [None] * len(payload)

    job = run(queue, handler, [1, 2])
    assert job is not None
    assert job.payload == [1, 2]
    assert "3 results for 2 items" in (job.last_error or "")


def test_what_a_handler_writes_into_its_items_is_not_stored(queue: Queue) -> None:
    def handler(payload: list[dict[str, object]]) -> list[Exception | None]:
        for item in payload:
            item["at"] = datetime.datetime.now(datetime.timezone.utc)  # which is not JSON
            item["self"] = item
        return [ValueError("no"), None, ValueError("no")]

    job = run(queue, handler, [{"n": 1}, {"n": 2}, {"n": 3}])
    assert job is not None
    assert job.payload == [{"n": 1}, {"n": 3}]
    assert (job.last_error or "").startswith("Batch failures: 2 of 3 items")


def test_what_is_left_keeps_its_text_to_the_last_digit(queue: Queue, db: psycopg.Connection) -> None:
    kept = ("0.12345678901234567890123", '{"b": 1e400,   "a": 1, "a":2}', '"\\u00e9"', "-0.0", "null", "[ ]")
    queue.task("batch")(lambda payload: [None, *[ValueError("no")] * len(kept), None])
    text = f"[1, {', '.join(kept)}, 2]"
    db.execute("select graphile_worker.add_job('batch', %s::json)", [text])
    queue.run_once(1)
    items = "select e.value::text from graphile_worker._private_jobs as j, json_array_elements(j.payload) as e"
    assert db.execute(items).fetchall() == [(item,) for item in kept]


def test_the_retry_gets_what_is_left_and_finishes(queue: Queue, db: psycopg.Connection) -> None:
    calls: list[list[str]] = []

    @queue.task
    def deliver(payload: list[str], ctx: JobContext) -> list[Exception | None]:
        calls.append(payload)
        return [OSError("refused") if item == "b" and len(calls) == 1 else None for item in payload]

    deliver.add_job(["a", "b", "c"])
    queue.run_once()
    db.execute("update graphile_worker._private_jobs set run_at = now()")
    queue.run_once()
    assert calls == [["a", "b", "c"], ["b"]]
    assert len(queue.jobs()) == 0


def test_exceptions_and_values_settle_items_too(queue: Queue) -> None:
    job = run(queue, lambda payload: [None, 7, ValueError("no"), "fine", KeyboardInterrupt()], [1, 2, 3, 4, 5])
    assert job is not None
    assert job.payload == [3, 5]


def test_a_tuple_of_results_counts_like_a_list(queue: Queue) -> None:
    job = run(queue, lambda payload: (None, ValueError("no")), ["a", "b"])
    assert job is not None
    assert job.payload == ["b"]


def test_a_cancelled_future_is_a_failure(queue: Queue) -> None:
    def handler(payload: list[int]) -> list[Future[None] | None]:
        future: Future[None] = Future()
        future.cancel()
        return [None, future]

    job = run(queue, handler, [1, 2])
    assert job is not None
    assert job.payload == [2]
    assert "CancelledError" in (job.last_error or "")


@pytest.mark.parametrize("returned", [None, "a text", {"a": 1}, 3])
def test_a_batch_is_done_when_no_list_is_returned(queue: Queue, returned: object) -> None:
    assert run(queue, lambda payload: returned, [1, 2]) is None


@pytest.mark.parametrize(
    "lazy",
    [
        iter,
        set,
        frozenset,
        lambda payload: map(half, payload),
        lambda payload: filter(half, payload),
        lambda payload: zip(payload, payload, strict=True),
        lambda payload: (half(item) for item in payload),
        promised,
        lambda payload: dict.fromkeys(payload).keys(),
        lambda payload: dict.fromkeys(payload).values(),
        lambda payload: dict.fromkeys(payload).items(),
    ],
    ids=[
        "iterator",
        "set",
        "frozenset",
        "map",
        "filter",
        "zip",
        "generator",
        "asynchronous generator",
        "keys",
        "values",
        "items",
    ],
)
def test_results_that_nobody_would_look_into_fail_the_job(queue: Queue, lazy: Callable[[list[int]], Any]) -> None:
    def handler(payload: list[int]) -> object:
        return lazy(payload)

    job = run(queue, handler, [1, 2])
    assert job is not None
    assert (job.payload, job.attempts) == ([1, 2], 1)
    assert (job.last_error or "").startswith("graphile_worker_py.errors.InvalidHandler: the handler returned a")
    assert "ctx.map" in (job.last_error or "")


def test_coroutines_in_the_list_of_a_batch_are_failures(queue: Queue) -> None:
    async def deliver(item: int) -> None: ...

    job = run(queue, lambda payload: [deliver(1), None, deliver(3)], [1, 2, 3])
    assert job is not None
    assert job.payload == [1, 3]
    assert "asyncio.run" in (job.last_error or "")


@pytest.mark.parametrize("returned", [[], [None], [None] * 3])
def test_a_list_of_another_length_fails_the_whole_job(queue: Queue, returned: list[None]) -> None:
    job = run(queue, lambda payload: returned, [1, 2])
    assert job is not None
    assert job.payload == [1, 2]
    assert (job.last_error or "").startswith(
        f"graphile_worker_py.errors.BatchResultMismatch: the handler returned {len(returned)} results for 2 items"
    )


def test_a_batch_of_failures_only_keeps_its_payload(queue: Queue) -> None:
    failures: list[JobFailed] = []
    queue.events.subscribe(JobFailed, failures.append)
    job = run(queue, lambda payload, ctx: ctx.map(half, payload), [0, 0])
    assert job is not None
    assert job.payload == [0, 0]
    assert [failure.remaining for failure in failures] == [2]
    assert isinstance(failures[0].exception, ZeroDivisionError)


def test_an_empty_batch_is_done(queue: Queue) -> None:
    assert run(queue, lambda payload, ctx: ctx.map(half, payload), []) is None


def test_a_handler_that_raises_keeps_the_whole_batch(queue: Queue) -> None:
    job = run(queue, lambda payload: half(0), [1, 2])
    assert job is not None
    assert job.payload == [1, 2]
    assert (job.last_error or "").startswith("ZeroDivisionError: division by zero")


def test_a_returned_future_is_awaited_for_any_payload(queue: Queue) -> None:
    job = run(queue, lambda payload, ctx: ctx.submit(half, 0), {"a": "dict"})
    assert job is not None
    assert "ZeroDivisionError" in (job.last_error or "")


def test_a_list_returned_for_a_payload_that_is_none_is_no_batch(queue: Queue) -> None:
    assert run(queue, lambda payload: [ValueError("ignored")], {"a": 1}) is None


def test_a_coroutine_returned_by_a_plain_function_fails(queue: Queue) -> None:
    async def later() -> None: ...

    job = run(queue, lambda payload: later(), {})
    assert job is not None
    assert "asyncio.run" in (job.last_error or "")


def test_helpers_that_ask_for_helpers_never_wait_for_each_other(queue: Queue) -> None:
    def outer(item: int, ctx: JobContext) -> float:
        return sum(future.result() for future in ctx.map(half, [item, item]))

    @queue.task
    def nested(payload: list[int], ctx: JobContext) -> list[Future[float]]:
        return [ctx.submit(outer, item, ctx) for item in payload]

    nested.add_job([1, 2, 4, 8])
    assert queue.run_once(1, helper_threads=1).completed == 1


def test_a_job_is_not_done_before_its_helpers_are(queue: Queue) -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []
    queue.events.subscribe(JobCompleted, lambda event: (order.append("job"), done.set()))

    def inner() -> None:
        order.append("inner")

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        def outer() -> None:
            begun.set()
            assert go.wait(30)
            order.append("outer")
            ctx.submit(inner)

        ctx.submit(outer)

    work.add_job()
    with WorkerPool(queue, 1) as pool:
        assert begun.wait(30)
        assert [job.task_identifier for job in pool.running()] == ["work"]
        assert order == []
        go.set()
        assert done.wait(30)
    assert order == ["outer", "inner", "job"]


def test_helpers_of_a_handler_that_raised_are_waited_for(queue: Queue) -> None:
    go = threading.Event()
    order: list[str] = []
    queue.events.subscribe(JobFailed, lambda event: order.append("job"))

    def help_out() -> None:
        assert go.wait(30)
        order.append("helper")

    @queue.task
    def work(payload: object, ctx: JobContext) -> None:
        ctx.submit(help_out)
        go.set()
        raise ValueError

    work.add_job()
    assert queue.run_once(1).retrying == 1
    assert order == ["helper", "job"]


def test_helper_threads_are_bounded_and_keep_context_variables(queue: Queue) -> None:
    request = contextvars.ContextVar("request", default="none")
    together = threading.Barrier(3)
    seen: set[tuple[str, str]] = set()

    def item(number: int) -> None:
        together.wait(10)
        seen.add((threading.current_thread().name, request.get()))

    @queue.task
    def handler(payload: list[int], ctx: JobContext) -> list[Future[None]]:
        request.set("r1")
        return ctx.map(item, payload)

    handler.add_job(list(range(9)))
    assert queue.run_once(1, helper_threads=3).completed == 1
    assert len(seen) == 3
    assert {value for _, value in seen} == {"r1"}


def test_a_list_added_while_the_batch_runs_becomes_a_job_of_its_own(queue: Queue) -> None:
    runs: list[list[str]] = []

    @queue.task
    def digest(payload: list[str], ctx: JobContext) -> None:
        runs.append(payload)
        if payload == ["a", "b"]:
            ctx.add_job("digest", ["c"], job_key="k", job_key_mode="preserve_run_at")

    for item in "ab":
        digest.add_job([item], job_key="k", job_key_mode="preserve_run_at")
    queue.run_once()
    assert runs == [["a", "b"], ["c"]]


def test_an_error_list_too_long_to_keep_is_cut(queue: Queue) -> None:
    job = run(queue, lambda payload: [ValueError("x" * 5000) for _ in payload], list(range(500)))
    assert job is not None
    assert len(job.payload) == 500
    assert 1000 < len(job.last_error or "") < 20_000
