"""Jobs that fail, and what is then stored of them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Any

from graphile_worker_py import Job, Queue

LATER = datetime(2123, 4, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def node(attempt: int) -> float:
    """Return how many seconds a job waits after so many attempts, as in Node."""
    return math.exp(min(attempt, 10))


def run(queue: Queue, error: BaseException, *, attempts: int = 0, payload: Any = None, **options: Any) -> Job:
    """Run a job whose handler raises this, or returns it in place of each item, and return it as it is then stored."""

    def bad(payload: Any) -> Any:
        if isinstance(payload, list):
            return [error] * len(payload)
        raise error

    queue.task("bad", **options)(bad)
    job = queue.add_job("bad", payload)
    if attempts:
        queue.reschedule_jobs([job.id], attempts=attempts)
    queue.run_once(1)
    stored = queue.job(job.id)
    assert stored is not None
    assert stored.locked_by is None
    return stored
