"""Cancellations: finds out what the database knows of the jobs that run here: which were cancelled, which have a limit.

A notification about one of them is followed at once. Besides, a job is asked about when it has run for a while, for it
may have been cancelled before it began. After that all are asked about every five seconds, and where no notifications
arrive it is seen twice a second whether one was cancelled. While nothing runs for longer than a quarter of a second,
nothing is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from graphile_worker_py._database import Database, Row
from graphile_worker_py._grip import Grip
from graphile_worker_py._service import Service
from graphile_worker_py.errors import JobCancelled, NotSupported, SchemaMissing
from graphile_worker_py.jobs import Job

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds
AGE = 0.25  # seconds
ALL_AGAIN = 5.0  # seconds


class Cancellations(Service):
    """Tells the grips what was asked of their jobs, and calls on_news when there is something new.

    hears: says whether notifications arrive, which are passed on by hear().
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        grips: Sequence[Grip],
        *,
        hears: Callable[[], bool],
        on_news: Callable[[], None],
    ) -> None:
        super().__init__("cancellations", database.outage)
        self._database = database
        self._holder = holder
        self._grips = grips
        self._hears = hears
        self._on_news = on_news
        self._asked: dict[Grip, Job] = {}  # what was asked about since it began
        self._all_at = 0.0  # when to ask about all again, by time.monotonic()
        self._called = False  # there is news about a job
        self._has_limits = True  # there is a table of them

    def hear(self, id: int | None) -> None:
        """Look now if this job runs here; None: there may be news about any."""
        if id is None or any(job.id == id for grip in self._grips if (job := grip.job) is not None):
            self._called = True
            self.wake()

    def step(self) -> float | None:
        """Ask about the jobs that it is time for."""
        now, called = time.monotonic(), self._called
        if called:  # only then: a call that comes just now is not to be forgotten
            self._called = False
        again = called or now >= self._all_at
        running = {grip: job for grip in self._grips if (job := grip.job) is not None}
        old_enough = time.perf_counter() - AGE
        asked = {grip: job for grip, job in running.items() if called or grip.began <= old_enough}
        known = _same(asked, self._asked)
        if not again and self._hears():
            asked = {grip: job for grip, job in asked.items() if grip not in known}
        try:
            self._ask(asked, asked if again else {grip: job for grip, job in asked.items() if grip not in known})
        except BaseException:
            self._called = self._called or called
            raise
        if again:
            self._all_at = now + ALL_AGAIN
        self._asked = {**_same(running, self._asked), **asked}
        return TICK

    def _ask(self, running: dict[Grip, Job], limited: dict[Grip, Job]) -> None:
        """Find out which of the running ones were cancelled, and which of the others have limits of their own."""
        if not running:
            return
        news = False
        ids = {job.id: (grip, job) for grip, job in running.items()}
        for id, since, reason in self._database.run("cancelled_jobs", {"ids": list(ids), "holder": self._holder}):
            grip, job = ids[id]
            if job.raw_locked_at == since and grip.reason(job) is None:
                grip.demand = job, JobCancelled(reason)
                news = True
        for id, seconds in self._limits([job.id for job in limited.values()]):
            grip, job = ids[id]
            if grip.own_limit != (job, seconds):
                self._limit(grip, job, seconds)
                news = True
        if news:
            self._on_news()

    def _limits(self, ids: list[int]) -> list[Row]:
        if not ids or not self._has_limits:
            return []
        try:
            return self._database.run("job_timeouts", {"ids": ids})
        except (SchemaMissing, NotSupported):
            self._has_limits = False
            logger.info("no table of time limits here: jobs have no limits of their own, only those of their tasks")
            return []

    @staticmethod
    def _limit(grip: Grip, job: Job, seconds: float | None) -> None:
        context, began = grip.context, grip.began
        if grip.job is job:
            grip.own_limit = job, seconds
            if context is not None and context.job is job:
                context.limit(None if seconds is None else began + seconds)


def _same(jobs: dict[Grip, Job], others: dict[Grip, Job]) -> dict[Grip, Job]:
    """Return those of the jobs that are in the same threads there."""
    return {grip: job for grip, job in jobs.items() if others.get(grip) is job}
