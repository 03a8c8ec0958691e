"""Gates: what a pool knows of the limits of its tasks. Nothing here touches the database.

A gate is a limit by its name ("limit:KEY", "rate:KEY"), or "task:IDENTIFIER" for the concurrency of a task in this
pool. One that has no room is closed. A task all of whose jobs would have to pass a closed gate is not claimed at all,
and jobs that carry the name of one among their flags are passed over.

A gate that was closed has more jobs waiting behind it, as a rule many, and mostly in front. So after it was opened
again no more is claimed than such gates have room for, until a claim shows that others' jobs are in front. And after a
claim that brought too many, the next ones are small and grow again: hardly a job is claimed in vain.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from graphile_worker_py import limits
from graphile_worker_py.jobs import Job
from graphile_worker_py.tasks import Task

SPREAD = 0.05  # seconds, so that not all pools come at the moment when a rate has room again
LOOK_AFTER = 1.0  # seconds, until it is worth looking whether another pool has left room
FIRST_CLAIM = 8  # jobs
MOST_FLAGS = 1000  # names of closed gates that a claim passes over


@attrs.frozen
class Closed:
    """A gate without room: when to look at it again, by time.monotonic(), and the size of its limit."""

    look_at: float
    most: int
    per: float | None


@attrs.frozen
class Seen:
    """What the database said of a limit: how many more may begin, and in how many seconds there will be more."""

    room: int
    wait: float | None


class Gates:
    """The limits of these tasks, as far as this pool knows; safe in threads."""

    def __init__(self, tasks: Mapping[str, Task[Any, Any]]) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()
        self._inside: dict[int, tuple[Job, list[str]]] = {}
        self._running: Counter[str] = Counter()  # by identifier
        self._closed: dict[str, Closed] = {}
        self._reopened: dict[str, int] = {}  # and for how many
        self._counted: set[str] = set()  # those of them when a claim was last sent
        self._most = FIRST_CLAIM
        self._left: set[str] = set()  # names that a job has left since begin()

    def open(self) -> list[str]:
        """Return the tasks of which jobs may be claimed."""
        with self._lock:
            return [name for name, task in list(self._tasks.items()) if self._room(task) > 0]

    def most(self, wanted: int) -> int:
        """Return how many jobs of the open tasks to claim now, `wanted` at most."""
        with self._lock:
            self._counted = set(self._reopened)
            room = sum(max(0, self._room(task)) for task in list(self._tasks.values()))
            return int(min(wanted, self._most, room, sum(self._reopened.values()) if self._reopened else math.inf))

    def flags(self) -> list[str]:
        """Return the names of closed gates that jobs may carry."""
        with self._lock:
            return list(self._closed)[:MOST_FLAGS]

    def due(self) -> dict[str, tuple[int, float | None]]:
        """Return the closed gates to look at now, with the sizes of their limits."""
        now = time.monotonic()
        with self._lock:
            return {name: (gate.most, gate.per) for name, gate in self._closed.items() if gate.look_at <= now}

    def due_in(self) -> float:
        """Return the seconds until some closed gate is to be looked at."""
        with self._lock:
            return max(0.0, min((gate.look_at for gate in self._closed.values()), default=math.inf) - time.monotonic())

    def begin(self) -> None:
        """Take note that the database is asked now: what it will say may be out of date for names that jobs leave."""
        with self._lock:
            self._left.clear()

    def passing(self, jobs: Iterable[Job], names: Mapping[int, list[str]]) -> list[Job]:
        """Return those that no gate stops, as far as this pool knows."""
        with self._lock:
            more: Counter[str] = Counter()
            passing: list[Job] = []
            for job in jobs:
                task = self._tasks[job.task_identifier]
                if self._room(task) > more[task.identifier] and not any(name in self._closed for name in names[job.id]):
                    more[task.identifier] += 1
                    passing.append(job)
            return passing

    def enter(self, jobs: Iterable[Job], names: Mapping[int, list[str]]) -> None:
        """Take note that these jobs may begin."""
        with self._lock:
            for job in jobs:
                if job.id in self._inside:  # by an earlier claim, which was taken from this pool
                    self._leave(*self._inside[job.id])
                self._inside[job.id] = (job, names[job.id])
                self._running[job.task_identifier] += 1
                place = _place(job.task_identifier)
                if self._reopened.get(place, 0) > 1:
                    self._reopened[place] -= 1
                else:
                    self._reopened.pop(place, None)

    def leave(self, jobs: Iterable[Job]) -> bool:
        """Take note that the pool holds these no longer; say whether others may begin in their place."""
        opened = False
        with self._lock:
            for job in jobs:
                known = self._inside.get(job.id)
                if known is not None and known[0] is job:
                    opened = self._leave(*known) or opened
        return opened

    def see(self, seen: Mapping[str, Seen], sizes: Mapping[str, tuple[int, float | None]]) -> None:
        """Close what the database says is full, and open what is not."""
        now = time.monotonic()
        with self._lock:
            for name, gate in seen.items():
                was_closed = self._closed.pop(name, None)
                if gate.room <= 0:
                    self._reopened.pop(name, None)
                    wait = LOOK_AFTER if gate.wait is None else max(0.0, gate.wait) + random.uniform(0, SPREAD)  # noqa: S311
                    self._closed[name] = Closed(now + (0 if name in self._left else wait), *sizes[name])
                elif was_closed or name in self._reopened:
                    self._reopened[name] = gate.room

    def brought(self, jobs: list[Job], names: Mapping[int, list[str]], *, refused: int, full: bool) -> None:
        """Take note of what a claim brought, how many of it went back, and whether it was as many as it asked for."""
        with self._lock:
            if refused:
                self._most = max(1, len(jobs) - refused)
            elif full:
                self._most = max(self._most, 2 * len(jobs))
            if self._reopened:
                stopped = [{_place(job.task_identifier), *names[job.id]} & self._reopened.keys() for job in jobs]
                if not (full and all(stopped)):
                    gone = self._counted.difference(*stopped)
                    self._reopened = {name: room for name, room in self._reopened.items() if name not in gone}

    def _room(self, task: Task[Any, Any]) -> float:
        """Return how many more jobs of a task may be claimed, as far as is known; for the lock's holder."""
        room = math.inf if task.concurrency is None else task.concurrency - self._running[task.identifier]
        for limit in task.limits:
            name = limits.name(limit, task.identifier)
            if name is not None:
                room = min(room, 0 if name in self._closed else self._reopened.get(name, limits.size(limit)[0]))
        return room

    def _leave(self, job: Job, names: list[str]) -> bool:
        del self._inside[job.id]
        return any([self._has_left_task(job.task_identifier), *map(self._has_left, names)])

    def _has_left_task(self, identifier: str) -> bool:
        full = self._tasks[identifier].concurrency == self._running[identifier]
        self._running[identifier] -= 1
        if full or _place(identifier) in self._reopened:
            self._reopened[_place(identifier)] = self._reopened.get(_place(identifier), 0) + 1
        return full

    def _has_left(self, name: str) -> bool:
        """Open a limit's gate for one, if it was closed; for a rate nothing changes."""
        if name.startswith("rate:"):
            return False
        self._left.add(name)
        was_closed = self._closed.pop(name, None) is not None
        if was_closed or name in self._reopened:
            self._reopened[name] = self._reopened.get(name, 0) + 1
        return was_closed


def _place(identifier: str) -> str:
    """Return the name of the gate that a task's concurrency is."""
    return f"task:{identifier}"
