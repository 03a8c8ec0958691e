"""What a claim is: how it was asked for, what it brought, and how jobs of one named queue go to one thread."""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import psycopg

from graphile_worker_py._database import Database, Row
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


class Holding:
    """The jobs a pool holds, by id, and how many there are of each named queue, by its id; for the holder of a lock."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.queues: Counter[int] = Counter()

    def add(self, jobs: Iterable[Job]) -> None:
        """Hold these as well."""
        for job in jobs:
            self.jobs[job.id] = job
            if job.job_queue_id is not None:
                self.queues[job.job_queue_id] += 1

    def let_go(self, jobs: Iterable[Job]) -> bool:
        """Hold these no longer, but for those claimed anew in the meantime; say whether a named queue is free now."""
        freed = False
        for job in jobs:
            if self.jobs.get(job.id) is job:
                del self.jobs[job.id]
                if job.job_queue_id is not None:
                    self.queues[job.job_queue_id] -= 1
                    if not self.queues[job.job_queue_id]:
                        del self.queues[job.job_queue_id]
                        freed = True
        return freed


def begin_claim(
    database: Database,
    holder: str,
    *,
    tasks: list[str],
    forbidden: list[str],
    count: int,
    run_length: int,
    busy: list[int],
    within: float,
    with_queues: bool = True,
    lanes: Lanes | None = None,
    last: Job | None = None,
) -> Callable[[], psycopg.RawCursor[Row]]:
    """Send a claim, which the database sets about at once; return what waits for its rows. See sql/claim_jobs.sql.

    last: claim no job that comes after this one, by priority and run_at.
    """
    parameters = {
        "tasks": tasks,
        "forbidden": forbidden,
        "holder": holder,
        "count": count,
        "run_length": run_length,
        "with_queues": with_queues,
        "busy": busy,
        "priorities": lanes and lanes[0],
        "since": lanes and lanes[1],
        "last_priority": last and last.priority,
        "last_run_at": last and last.run_at,
        "within": within,
    }
    return database.begin_by_index("claim_jobs", parameters)


def read(cursor: psycopg.RawCursor[Row]) -> tuple[dict[str, Any], Callable[[], list[Job]]]:
    """Return what a claim tells of itself, and what returns its jobs in order: making them takes time."""
    (first,) = cursor.fetchmany(1)
    return json.loads(first[4]), lambda: sorted(itertools.starmap(Job, cursor.fetchall()), key=IN_ORDER)


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
    answer: Callable[[], psycopg.RawCursor[Row]]


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


def portions(jobs: Iterable[Job], ends_at: float, goes_on: Callable[[], bool]) -> list[Job | Run]:
    """Return jobs without a queue as they are, and those of one queue together, in the place of the first."""
    runs: dict[int, Run] = {}
    found: list[Job | Run] = []
    for job in jobs:
        if job.job_queue_id is None:
            found.append(job)
        else:
            if job.job_queue_id not in runs:
                runs[job.job_queue_id] = run = Run(ends_at, goes_on)
                found.append(run)
            runs[job.job_queue_id].jobs.append(job)
    return found


def emptied(ready: deque[Job | Run]) -> list[Job | Run]:
    """Empty what is ready, one by one: crew threads may be taking from it at the same time; return what it held."""
    taken: list[Job | Run] = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(ready.popleft())
    return taken
