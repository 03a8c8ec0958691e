"""Batch jobs: a list payload, a future per item, and what is left of it after a partial failure."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import Future

import psycopg
import pytest

from graphile_worker_py import Job, JobContext, JobFailed, Queue


def run(queue: Queue, handler: object, payload: object) -> Job | None:
    """Run one job of that handler and payload once; return what is stored of it then."""
    queue.task("batch")(handler)
    job = queue.add_job("batch", payload)
    queue.run_once(2)
    return queue.job(job.id)


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
