"""What a claim is: how it was asked for, what it brought, and how jobs of one named queue go to one thread."""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Callable, Iterable

import attrs

from graphile_worker_py._database import Row
from graphile_worker_py.jobs import Job
from graphile_worker_py.worker.pace import Lanes

IN_ORDER = operator.attrgetter("priority", "raw_run_at", "id")  # sorted here, at a tenth of what it takes the database


class Run:
    """Jobs of one named queue, in order, for one thread; over() says when to begin no more of them."""

    def __init__(self, ends_at: float, goes_on: Callable[[], bool]) -> None:
        self.jobs: deque[Job] = deque()
        self._ends_at = ends_at
        self._goes_on = goes_on

    def over(self) -> bool:
        """Return whether the pool is stopping or not known to live, or the jobs have waited too long."""
        return time.monotonic() > self._ends_at or not self._goes_on()


@attrs.frozen
class Asked:
    """A claim that was sent `at` a time.monotonic(), while so many jobs were `held`; answer() waits for its rows.

    `deaths`: how often the pool had been declared dead by then.
    """

    at: float
    deaths: int
    count: int
    held: int
    with_queues: bool
    lanes: Lanes | None
    answer: Callable[[], list[Row]]


@attrs.frozen
class Claim:
    """What a claim brought: `full` if there may be more of the same, `queued` if some are of named queues.

    `left_out` are the seconds until it is worth looking where this one did not look, None if it looked everywhere;
    `due_in` the seconds until the next job is due, if that is before the next poll; `stuck` if it came to queues that
    somebody hinders, which the next one passes over.
    """

    jobs: list[Job]
    full: bool
    queued: bool
    left_out: float | None
    due_in: float | None
    stuck: bool


def jobs_of(portions: Iterable[Job | Run]) -> list[Job]:
    """Return the jobs that are handed out singly or as runs."""
    return [job for portion in portions for job in (portion.jobs if isinstance(portion, Run) else (portion,))]
