"""LocalQueue: claims jobs in bulk, hands them out singly, gives back what nobody started.

How many to claim is measured, not set: as many as the crew has been taking in a tenth of a second, at least one for
each idle thread, at most 500. Slow jobs are therefore never hoarded and fast ones come in bulk; should the jobs turn
slow after a fast stretch, what has waited here for five seconds goes back, its attempt with it.

`_held` are the ids this pool has claimed and nobody has written an outcome for. After a claim whose answer was lost
on the way, whatever carries our name and is not in it goes back.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import psycopg

from graphile_worker_py._database import PASSING, Database
from graphile_worker_py._service import Service
from graphile_worker_py.jobs import Job

logger = logging.getLogger(__name__)

LARGEST_CLAIM = 500
READY_SECONDS = 0.1
TIME_TO_LIVE = 5.0
QUEUES_INTERVAL = 0.1  # seconds to leave queues alone after a full claim that found no job of one


class LocalQueue(Service):
    """The one place in a pool that claims. `tasks` names what to claim, `forbidden_flags` what to leave.

    `on_end` makes it stop at the end of the work: it is called as soon as nothing is ready in the database and nothing
    held here, or with the error of a claim that no further try can mend.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        *,
        tasks: Callable[[], list[str]],
        forbidden_flags: Callable[[], list[str]],
        poll_interval: float,
        on_end: Callable[[Exception | None], None] | None = None,
    ) -> None:
        super().__init__("local queue")
        self._database = database
        self._holder = holder
        self._tasks = tasks
        self._forbidden_flags = forbidden_flags
        self._poll_interval = poll_interval
        self._on_end = on_end
        self._changed = threading.Condition()
        self._ready: deque[Job] = deque()
        self._held: set[int] = set()
        self._idle = 0
        self._closed = False
        self._more = False  # the last claim came back full
        self._low_water = 0
        self._taken = 0
        self._rate = 0.0
        self._measured_at = self._claimed_at = time.monotonic()
        self._answer_lost = False
        self._next_look_at_queues = 0.0

    def get(self) -> Job | None:
        """Wait for a job and return it; None when there will be no more."""
        with self._changed:
            self._idle += 1
            while not self._ready and not self._closed:
                if self._more:
                    self.wake()
                self._changed.wait()
            self._idle -= 1
            if self._closed:
                return None
            self._taken += 1
            job = self._ready.popleft()
            if self._more and len(self._ready) <= self._low_water:
                self.wake()
            return job

    def settled(self, jobs: Iterable[Job]) -> None:
        """Take note that these are no longer held; the next of a named queue can then be claimed at once."""
        freed = False
        with self._changed:
            for job in jobs:
                self._held.discard(job.id)
                freed = freed or job.job_queue_id is not None
            if freed:
                self._next_look_at_queues = 0.0
            if freed or (self._on_end is not None and not self._held):
                self.wake()

    def step(self) -> float | None:
        """Claim what the crew can use; at once again where the claim did not look everywhere."""
        if self._answer_lost:
            self._return_strays()
        self._return_expired()
        count = self._wanted()
        if count <= 0:
            return self._poll_interval
        with self._changed:
            held_before = len(self._held)
        everywhere = time.monotonic() >= self._next_look_at_queues
        jobs = self._claim(count, with_queues=everywhere)
        full = len(jobs) >= count
        if everywhere and full and not any(job.job_queue_id for job in jobs):
            self._next_look_at_queues = time.monotonic() + QUEUES_INTERVAL
        with self._changed:
            self._more = full
            self._ready.extend(jobs)
            self._held.update(job.id for job in jobs)
            self._changed.notify(len(jobs))
        if not full and not everywhere:
            self._next_look_at_queues = 0.0
            return 0
        if not jobs and not held_before and self._on_end is not None:
            self._on_end(None)
        return self._poll_interval

    def close(self) -> None:
        """Hand out no more and give back what was not started; call it when the thread has stopped."""
        with self._changed:
            self._closed = True
            unstarted = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
        try:
            if unstarted:
                self.give_back(unstarted)
        except psycopg.Error as error:
            logger.error("%s claimed jobs could not be given back and stay locked: %s", len(unstarted), error)

    def _wanted(self) -> int:
        now = time.monotonic()
        with self._changed:
            rate = self._taken / max(now - self._measured_at, 0.001)
            self._rate = max(rate, self._rate / 2)
            self._taken, self._measured_at = 0, now
            target = max(self._idle, min(LARGEST_CLAIM, math.ceil(self._rate * READY_SECONDS)))
            self._low_water = target // 2
            return target - len(self._ready)

    def _claim(self, count: int, *, with_queues: bool) -> list[Job]:
        parameters = {
            "tasks": self._tasks(),
            "forbidden": self._forbidden_flags(),
            "holder": self._holder,
            "count": count,
            "with_queues": with_queues,
        }
        self._answer_lost = True
        try:
            rows = self._database.run_by_index("claim_jobs", parameters)
        except psycopg.Error as error:
            if self._on_end is not None and not isinstance(error, PASSING):
                self._on_end(error)
            raise
        self._answer_lost = False
        self._claimed_at = time.monotonic()
        return [Job(*row) for row in rows]

    def _return_strays(self) -> None:
        with self._changed:
            held = list(self._held)
        strays = self._database.run("return_strays", {"holder": self._holder, "held": held})
        if strays:
            logger.warning("gave back %s jobs whose claim was never answered", len(strays))
        self._answer_lost = False

    def _return_expired(self) -> None:
        with self._changed:
            if not self._ready or time.monotonic() - self._claimed_at < TIME_TO_LIVE:
                return
            expired = list(self._ready)
            self._ready.clear()
        try:
            self.give_back(expired)
        except BaseException:
            with self._changed:
                self._ready.extendleft(reversed(expired))
                self._changed.notify_all()
            raise

    def give_back(self, jobs: list[Job]) -> None:
        """Unlock these jobs and their queues, their attempt not spent."""
        self._database.run("return_jobs", {"ids": [job.id for job in jobs], "holder": self._holder})
        self.settled(jobs)
