"""Limit, Rate and concurrency as options of a task: what they may be, and where a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import attrs
import pytest

from graphile_worker_py import Limit, Queue, Rate, Task

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Limit(0), "at_most"),
        (lambda: Limit(True), "at_most"),
        (lambda: Limit(1, key=""), "key"),
        (lambda: Limit(1, key=5), "key"),
        (lambda: Rate(1.5, per=HOUR), "count"),
        (lambda: Rate(1, per=60), "per: expected a timedelta"),
        (lambda: Rate(1, per=timedelta(0)), "per: expected 0.1 seconds"),
        (lambda: Task(print, "work", limit=Rate(1, per=HOUR)), "limit: expected a Limit"),
        (lambda: Task(print, "work", rate=5), "rate: expected a Rate"),
        (lambda: Task(print, "work", concurrency=0), "concurrency"),
    ],
)
def test_what_is_no_limit_is_refused_where_it_is_written(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize("key", [1.5, True, "", "x" * 201, ["a"]], ids=repr)
def test_a_key_that_is_no_text_is_refused_when_the_job_is_added(queue: Queue, key: object) -> None:
    task = queue.task("work", limit=Limit(1, key=lambda payload: payload["key"]))(lambda payload: None)
    with pytest.raises(ValueError, match="key"):
        task.add_job({"key": key})
    assert not queue.jobs()


def test_a_task_shows_its_limits(queue: Queue) -> None:
    limit, rate = Limit(2), Rate(3, per=HOUR)
    task = queue.task("work", concurrency=4, limit=limit, rate=rate, priority=5)(lambda payload: None)
    assert (task.concurrency, task.limit, task.rate, task.defaults) == (4, limit, rate, {"priority": 5})
    assert attrs.evolve(limit, at_most=3) == Limit(3)
