"""Pace and Bounds keep costly looks at the table rare, without a setting to find, and Throughput says what each should
bring. None of them touches the database.

A claim hops to where the ready jobs should begin, but may have to walk first: over dead rows that a held snapshot keeps
from being vacuumed, or over jobs of named queues that others hold. (Seen on PostgreSQL 15: 37 ms a claim behind 500,000
finished jobs, 100 ms behind 100,000 jobs of locked queues.) What cannot be avoided is then done for a small part of
the time only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TypeAlias

from graphile_worker_py.jobs import Job, moment

Lanes: TypeAlias = tuple[list[int], list[datetime | None]]  # priorities, and where to begin in each

REST = 20  # times as long as it took
SLOW = 0.003  # seconds that a claim may look for jobs, and for each job it found
SLOW_EACH = 0.000_005
SHORTEST_REST = 1.0  # seconds between claims without bounds, while those are slow
LONG_RUN = 10  # claims
MOST_LANES = 100
PASSED_OVER = 1.0  # seconds
READY_SECONDS = 0.1
LONGEST_CLAIM = 1.0  # seconds of waiting for one that are provided for
MOST_READY = 32_000_000  # characters of payloads: with 1 MB each a worker of 8 threads took 3.3 GB, seen


class Pace:
    """Lets something happen for about a twentieth of the time, by its own measured length."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._asked_for = False

    def left(self) -> float:
        """Return the seconds to wait, 0 when it may happen now."""
        return max(0.0, self._not_before - time.monotonic())

    def begin(self) -> None:
        """Take note that it happens now."""
        self._asked_for = False

    def rest(self, seconds: float) -> None:
        """Take note that it took so many seconds and was not worth it; no rest if it was asked for in the meantime."""
        if not self._asked_for:
            self._not_before = time.monotonic() + REST * seconds

    def ask(self) -> None:
        """Let it happen as soon as can be: there is news."""
        self._asked_for = True
        self._not_before = 0.0


class Throughput:
    """How many jobs a crew can work off soon: in a tenth of a second, and while a claim is under way.

    The rate is what the whole crew could do by the time its handlers take, not what it has done: that would be held
    down by claims that take long, and so keep them small.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._jobs = 0
        self._spent = 0.0  # seconds of the crew's threads on those
        self._rate = 0.0  # jobs per second, if the whole crew is at work
        self._claim_seconds = 0.0  # what a claim takes, to the database and back
        self._size = 1.0  # of a payload, on average of the last claim
        self._measured_at = time.monotonic()

    def add(self, jobs: int, seconds: float) -> None:
        """Take note of jobs that are done, and what threads have spent on them."""
        self._jobs += jobs
        self._spent += seconds

    def claim_took(self, seconds: float) -> None:
        """Take note of how long a claim was under way."""
        self._claim_seconds = min(seconds, LONGEST_CLAIM)

    def brought(self, jobs: Collection[Job]) -> None:
        """Take note of how large the payloads are that a claim brought."""
        if jobs:
            self._size = max(1.0, sum([len(job.raw_payload) for job in jobs]) / len(jobs))

    def soon(self) -> int:
        """Return how many jobs the whole crew can work off soon, or fewer where they are large."""
        now = time.monotonic()
        rate = self._concurrency * self._jobs / self._spent if self._jobs else 0.0
        if now - self._measured_at >= READY_SECONDS:
            self._rate = max(rate, self._rate / 2)
            self._jobs, self._spent, self._measured_at = 0, 0.0, now
        return int(min(max(rate, self._rate) * self._horizon(), MOST_READY / self._size))

    def soon_for_one(self) -> int:
        """Return how many jobs one thread can work off soon."""
        return math.ceil(self._rate * self._horizon() / self._concurrency)

    def _horizon(self) -> float:
        return READY_SECONDS + self._claim_seconds


class Stuck:
    """Named queues whose first job somebody else has locked: passed over for a second, so that the ones behind get on.

    A claim looks at so many jobs only, and those of one long queue could be all of them.
    """

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._until = 0.0

    def ids(self) -> list[int]:
        """Return the ids of the queues to pass over now."""
        if time.monotonic() >= self._until:
            self._ids.clear()
        return list(self._ids)

    def left(self) -> float | None:
        """Return the seconds until all are looked at again, None where none is passed over."""
        return max(0.0, self._until - time.monotonic()) if self._ids else None

    def add(self, ids: Iterable[int]) -> None:
        """Pass over these as well, no longer than those before them."""
        if not self._ids:
            self._until = time.monotonic() + PASSED_OVER
        self._ids.update(ids)


class Bounds:
    """Where claims have come to, by priority: a hint for the next claim, used only while claims are `slow`.

    A claim within the bounds misses jobs in front of them, such as those of a transaction that took long to commit; so
    once a second, or less often if it is very slow, comes a claim without. A bound never moves back for one late
    job: a claim without bounds that found only such jobs is followed by another, and a long run of them moves it.
    """

    def __init__(self) -> None:
        self._since: dict[int, int | None] = {}  # as PostgreSQL counts the time
        self.slow = False
        self._late = 0
        self._unbounded = Pace()

    def left(self) -> float:
        """Return the seconds until a claim may go without bounds again."""
        return self._unbounded.left()

    def lanes(self) -> Lanes | None:
        """Return the priorities to look at and where to begin in each, or None to look everywhere."""
        if not self.slow or not self._since or len(self._since) > MOST_LANES or not self.left():
            return None
        priorities = sorted(self._since)
        return priorities, [None if (at := self._since[p]) is None else moment(at) for p in priorities]

    def learn(self, jobs: Iterable[Job], *, bounded: bool, seconds: float) -> None:
        """Take note of what a claim found, and of the seconds that the database looked for it."""
        last: dict[int, int | None] = {}
        count = 0
        for job in jobs:
            last[job.priority] = None if job.job_queue_id else job.raw_run_at
            count += 1
        behind = [p for p, at in last.items() if at is not None and (b := self._since.get(p)) is not None and at < b]
        if not bounded:
            self.slow = seconds > SLOW + SLOW_EACH * count
            self._late = self._late + 1 if behind else 0
            if self.slow and not behind:
                self._unbounded.rest(max(SHORTEST_REST / REST, seconds))
        for priority, at in last.items():
            if priority not in self._since or (at is not None and (priority not in behind or self._late > LONG_RUN)):
                self._since[priority] = at

    def forget(self) -> None:
        """Look everywhere again."""
        self.slow = False
