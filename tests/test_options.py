"""Options are checked where they are given, by name: what could not work later is refused now."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from graphile_worker_py import InvalidJobSpec, Queue, RunSummary, WorkerPool


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": 2.5},
        {"concurrency": "2"},
        {"concurrency": True},
        {"concurrency": None},
        {"poll_interval": 0},
        {"poll_interval": "2"},
        {"poll_interval": math.inf},
        {"poll_interval": math.nan},
        {"grace": -1},
        {"grace": "long"},
        {"grace": math.inf},
        {"grace": None},
        {"helper_threads": 0},
        {"helper_threads": -1},
        {"helper_threads": 1.0},
        {"history": 7},
    ],
    ids=str,
)
def test_a_pool_refuses_what_cannot_work(queue: Queue, options: dict[str, Any]) -> None:
    name = next(iter(options))
    queue.task("work")(lambda payload: None)
    with pytest.raises(InvalidJobSpec, match=f"^{name}: "):
        WorkerPool(queue, **options)
    with pytest.raises(InvalidJobSpec, match=f"^{name}: "):
        queue.run_worker(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": -1},
        {"min_size": "1"},
        {"max_size": 0},
        {"max_size": "5"},
        {"max_size": 2.0},
        {"connect_timeout": 0},
        {"connect_timeout": "x"},
        {"connect_timeout": None},
        {"connect_timeout": math.nan},
        {"statement_timeout": 0},
        {"statement_timeout": -1},
        {"statement_timeout": "x"},
        {"max_lifetime": 0},
        {"max_lifetime": None},
    ],
    ids=str,
)
def test_a_queue_refuses_what_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidJobSpec, match=f"^{next(iter(options))}: "):
        Queue("host=nowhere.invalid", **options)


@pytest.mark.parametrize("flags", ["gpu", b"gpu", 5, [1, "gpu"], ["g\x00pu"]], ids=repr)
def test_forbidden_flags_have_to_be_a_list_of_names(queue: Queue, flags: Any) -> None:
    ran: list[object] = []
    queue.task("work")(ran.append)
    queue.add_job("work", flags=["gpu"])
    for refused in (flags, lambda: flags):
        with pytest.raises(InvalidJobSpec, match=r"^flags: "):
            queue.run_once(forbidden_flags=refused)
    assert ran == []


def test_a_flag_function_that_raises_ends_run_once(queue: Queue) -> None:
    def flags() -> list[str]:
        raise ConnectionError("the flag service is away")

    queue.task("work")(lambda payload: None)
    job = queue.add_job("work")
    with pytest.raises(ConnectionError, match="flag service"):
        queue.run_once(forbidden_flags=flags)
    assert queue.job(job.id) == job


@pytest.mark.parametrize("flags", [None, [], (), {"gpu"}, iter(["gpu"]), dict.fromkeys(["gpu"])], ids=repr)
def test_forbidden_flags_may_be_any_iterable(queue: Queue, flags: Any) -> None:
    queue.task("work")(lambda payload: None)
    queue.add_job("work", flags=["gpu"])
    queue.add_job("work", flags=["cpu"])
    expected = 1 if flags else 2
    assert queue.run_once(forbidden_flags=flags) == RunSummary(expected, 0, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.add_jobs(None),
        lambda queue: queue.add_jobs([1]),
        lambda queue: queue.complete_jobs(5),
        lambda queue: queue.force_unlock_workers(5),
        lambda queue: queue.force_unlock_workers([5]),
        lambda queue: queue.add_job("work", flags="gpu"),
        lambda queue: queue.remove_job(None),
    ],
    ids=["None", "no spec", "no ids", "no names", "no name", "flags", "no key"],
)
def test_a_call_refuses_what_cannot_work(queue: Queue, call: Callable[[Queue], object]) -> None:
    with pytest.raises(InvalidJobSpec, match=r"^\w+.*: "):
        call(queue)
