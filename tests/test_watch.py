"""Jobs that go on for long are reported, with what their threads are doing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from plain_sql import eventually

from graphile_worker_py import JobContext, JobSpec, JobStuck, Queue, WorkerPool
from graphile_worker_py.jobs import Job

Pools = Callable[..., WorkerPool]


@pytest.fixture
def stuck(queue: Queue) -> list[JobStuck]:
    told: list[JobStuck] = []
    queue.events.subscribe(JobStuck, told.append)
    return told


def test_a_job_that_goes_on_is_reported_again_and_again_with_its_stack(
    queue: Queue, pools: Pools, stuck: list[JobStuck], caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    def somewhere_deep(secret: str) -> None:
        gate.wait(30)

    @queue.task
    def slow(payload: Any) -> None:
        somewhere_deep(payload)

    job = queue.add_job("slow", "hunter2")
    with caplog.at_level(logging.WARNING):
        pools(2, stuck_after=0.05)
        eventually(lambda: len(stuck) >= 2)
    gate.set()
    first, second = stuck[:2]
    assert first.job.id == job.id
    assert 0.05 <= first.seconds < second.seconds
    assert second.seconds >= 2 * first.seconds
    lines = first.stack.splitlines()
    assert lines[0].endswith("in slow")
    assert any(line.endswith("in somewhere_deep") for line in lines)
    assert f"job {job.id} (slow) still runs after 0 s; its thread is here:" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_stack_within_our_own_functions_begins_with_the_handler(
    queue: Queue, pools: Pools, stuck: list[JobStuck]
) -> None:
    gate = threading.Event()

    @queue.task
    def helped(payload: Any, ctx: JobContext) -> None:
        ctx.submit(gate.wait, 30)

    queue.add_job("helped")
    pools(1, stuck_after=0.05)
    eventually(lambda: bool(stuck))
    gate.set()
    assert "wait_for_helpers" in stuck[0].stack


def test_short_jobs_one_after_the_other_are_not_one_long_job(queue: Queue, pools: Pools, stuck: list[JobStuck]) -> None:
    done: list[Job] = []
    last = threading.Event()

    @queue.task
    def short(payload: int, ctx: JobContext) -> None:
        done.append(ctx.job)
        threading.Event().wait(0.01)
        if payload == 99:
            last.set()

    queue.add_jobs(JobSpec("short", number) for number in range(100))
    pools(1, stuck_after=1.0)
    assert last.wait(30)
    assert not stuck


def test_no_report_where_none_is_wanted(queue: Queue, pools: Pools) -> None:
    queue.task("short")(print)
    pool = pools(1, stuck_after=None)
    assert not [thread.name for thread in threading.enumerate() if thread.name.endswith("watch")]
    pool.stop()
