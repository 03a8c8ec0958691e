"""A model of the jobs' tables in plain Python: what each call and each statement of a worker should make of them.

It is written from what the package promises, not from its SQL: one dictionary of jobs, one of named queues, one of the
pools that were heard. Nothing here touches a database; test_model.py lets the two run side by side.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import attrs

STALE = timedelta(hours=4)  # a lock is worth nothing after that
DEAD_AFTER = timedelta(seconds=60)
VANISHED = "worker vanished"  # and a colon

Spec = dict[str, Any]  # arguments of Queue.add_job and of JobSpec


@attrs.frozen(kw_only=True)
class Way:
    """How a failed job goes on; `keyed` if it was claimed with a key."""

    delay: float | None = None
    run_at: datetime | None = None
    final: bool = False
    snoozed: bool = False
    keyed: bool = False


@attrs.define(kw_only=True)
class Row:
    """A job, with the names of its task and queue in the place of their ids."""

    id: int
    task_identifier: str
    payload: Any
    queue_name: str | None
    priority: int
    run_at: datetime
    attempts: int = 0
    max_attempts: int
    last_error: str | None = None  # up to its first colon
    updated_at: datetime
    key: str | None = None
    locked_at: datetime | None = None
    locked_by: str | None = None
    revision: int = 0
    flags: tuple[str, ...]

    @property
    def is_available(self) -> bool:
        return self.locked_at is None and self.attempts < self.max_attempts

    def unlock(self) -> None:
        self.locked_at = self.locked_by = None

    def end(self, now: datetime) -> None:
        """Use up all attempts."""
        self.attempts, self.updated_at = self.max_attempts, now

    def back_off(self, now: datetime, error: str, way: Way | None = None) -> None:
        """Wait as in Node, or as the way says; a snooze is no failure, unless the job has lost its key meanwhile."""
        way = way or Way()
        seconds = math.exp(min(self.attempts, 10)) if way.delay is None else way.delay
        self.run_at = max(now, self.run_at) + timedelta(seconds=seconds)
        if way.run_at is not None:
            self.run_at = max(self.run_at, way.run_at)
        if way.snoozed and not (way.keyed and self.key is None):
            self.attempts = max(0, self.attempts - 1)
        else:
            self.last_error = self._told_of(error)
        if way.final:
            self.attempts = max(self.attempts, self.max_attempts)
        self.unlock()

    def _told_of(self, error: str) -> str:
        """Return last_error after an error; with more attempts than it may have it was cancelled, and keeps why."""
        before = self.last_error
        if self.attempts <= self.max_attempts or before is None or before in error:
            return error
        return before if before.endswith(VANISHED) else f"{before}\n\n{error}"  # which ended at a colon


COLUMNS = tuple(field.name for field in attrs.fields(Row))
columns = operator.attrgetter(*COLUMNS)  # of a Row, and but for last_error of a Job
in_order = operator.attrgetter("priority", "run_at", "id")


@attrs.frozen
class Lock:
    """Who locked a named queue, and when."""

    at: datetime
    by: str


@attrs.frozen(kw_only=True)
class Asked:
    """What a claim asks for. `lanes`: the priorities to look at, each with where to begin; None for all of them."""

    count: int
    run_length: int = 1
    tasks: Collection[str]
    forbidden: Collection[str] = ()
    with_queues: bool = True
    busy: Collection[str] = ()
    lanes: dict[int, datetime | None] | None = None


@attrs.frozen
class Claims:
    """What a worker goes by when it writes: its name, and the times of the claims that it writes about."""

    holder: str
    since: Collection[datetime]

    def cover(self, at: datetime | None, by: str | None) -> bool:
        return by == self.holder and at in self.since


class Model:
    """The tables, `now` being the time of the statement under way."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.rows: dict[int, Row] = {}
        self.queues: dict[str, Lock | None] = {}
        self.tasks: set[str] = set()
        self.pools: dict[str, datetime] = {}
        self.last_id = 0

    # Adding.

    def add(self, spec: Spec, *, mode: str, id: int) -> Row:
        """Add a job, or change the one that has its key; `id` is what a new job was given."""
        self.tasks.add(spec["identifier"])
        if spec["queue_name"] is not None:
            self.queues.setdefault(spec["queue_name"], None)
        old = self._of_key(spec["job_key"])
        if old is not None and mode == "unsafe_dedupe":
            old.revision, old.updated_at = old.revision + 1, self.now
            return old
        if old is not None and not old.is_available:
            old.key = None
            old.end(self.now)
            old = None
        row = self._asked_for(spec, id)
        if old is not None:
            return self._replaced(old, row, preserve=mode == "preserve_run_at")
        assert id > self.last_id, f"{id} is not the id of a new job"
        self.last_id = id
        self.rows[id] = row
        return row

    def _of_key(self, key: str | None) -> Row | None:
        return next((row for row in self.rows.values() if key is not None and row.key == key), None)

    def _asked_for(self, spec: Spec, id: int) -> Row:
        return Row(
            id=id,
            task_identifier=spec["identifier"],
            payload={} if spec["payload"] is None else spec["payload"],
            queue_name=spec["queue_name"],
            priority=spec["priority"] or 0,
            run_at=self.now + (spec["run_at"] or timedelta()),
            max_attempts=spec["max_attempts"] or 25,
            updated_at=self.now,
            key=spec["job_key"],
            flags=tuple(sorted(spec["flags"] or ())),
        )

    def _replaced(self, old: Row, row: Row, *, preserve: bool) -> Row:
        if isinstance(old.payload, list) and isinstance(row.payload, list):
            row.payload = old.payload + row.payload
        if preserve and old.attempts == 0:
            row.run_at = old.run_at
        row.id, row.revision = old.id, old.revision + 1
        self.rows[old.id] = row
        return row

    # Claiming.

    def claimable(self, asked: Asked) -> Iterator[list[Row]]:
        """Yield the jobs a claim may bring, in order; several answers only where jobs tie that have no queue."""
        ready = [
            row
            for row in sorted(self.rows.values(), key=in_order)
            if row.is_available and row.run_at <= self.now and self._looked_at(row, asked)
        ]
        for free in _first([row for row in ready if row.queue_name is None and _in_lane(row, asked)], asked.count):
            reach = _place(free[-1]) if len(free) == asked.count else None
            queued = self._queued(ready, asked, reach) if asked.with_queues else []
            yield sorted([*free, *queued], key=in_order)[: asked.count]

    def _looked_at(self, row: Row, asked: Asked) -> bool:
        return (
            row.task_identifier in asked.tasks
            and not set(row.flags) & set(asked.forbidden)
            and (asked.lanes is None or row.priority in asked.lanes)
        )

    def _queued(self, ready: list[Row], asked: Asked, reach: tuple[int, datetime] | None) -> Iterator[Row]:
        """Yield the beginning of each free queue's jobs, as far as they come before the last free job."""
        heads = [
            row
            for row in ready
            if row.queue_name is not None
            and self.queues[row.queue_name] is None
            and row.queue_name not in asked.busy
            and (reach is None or _place(row) <= reach)
        ]
        taken: dict[str | None, int] = {}
        for row in heads[: asked.count]:
            taken[row.queue_name] = taken.get(row.queue_name, 0) + 1
            if taken[row.queue_name] <= asked.run_length:
                yield row

    def claim(self, ids: Iterable[int], holder: str) -> list[Row]:
        rows = [self.rows[id] for id in ids]
        for row in rows:
            row.attempts += 1
            row.locked_at, row.locked_by = self.now, holder
            if row.queue_name is not None:
                self.queues[row.queue_name] = Lock(self.now, holder)
        return rows

    def next_due(self, asked: Asked, within: timedelta) -> float | None:
        """Return in how many seconds a job is due that a claim which found nothing is to wait for."""
        due = [
            row.run_at
            for row in self.rows.values()
            if row.is_available and self.now < row.run_at <= self.now + within
            if row.task_identifier in asked.tasks and (asked.lanes is None or row.priority in asked.lanes)
        ]
        return (min(due) - self.now).total_seconds() if due else None

    # What a worker writes of jobs that it has claimed. `freeing`: the jobs with which it leaves their queue.

    def finish(self, ids: Collection[int], claims: Claims, freeing: Collection[int]) -> set[int]:
        """Return the ids of those that it does not hold."""
        done = self.held(ids, claims)
        for row in done:
            del self.rows[row.id]
        self.free_queues({row.queue_name for row in done if row.id in freeing}, claims)
        return set(ids) - {row.id for row in done}

    def fail(
        self,
        errors: dict[int, str],
        claims: Claims,
        *,
        freeing: Collection[int],
        kept: dict[int, list[int]],
        ways: dict[int, Way],
    ) -> dict[int, tuple[bool | None, bool]]:
        """Return for each whether it was the last attempt, None if it is not held; and if it is over. `kept` from 1."""
        failed = self.held(errors, claims)
        for row in failed:
            if row.id in kept:
                row.payload = [row.payload[place - 1] for place in kept[row.id]]
            row.back_off(self.now, errors[row.id], ways.get(row.id))
        self.free_queues({row.queue_name for row in failed if row.id in freeing}, claims)
        left = [self.rows[id] for id in errors if id in self.rows]
        over = {row.id: row.locked_at is None and row.attempts >= row.max_attempts for row in left}
        return {row.id: (over[row.id] if row in failed else None, over[row.id]) for row in left}

    def give_back(self, ids: Collection[int], claims: Claims, *, free_queues: bool) -> set[int]:
        returned = self.held(ids, claims)
        for row in returned:
            row.attempts = max(0, row.attempts - 1)
            row.unlock()
        if free_queues:
            self.free_queues({row.queue_name for row in returned}, claims)
        return {row.id for row in returned}

    def free_queues(self, names: Collection[str | None], claims: Claims) -> None:
        for name, lock in self.queues.items():
            if name in names and lock is not None and claims.cover(lock.at, lock.by):
                self.queues[name] = None

    def held(self, ids: Iterable[int], claims: Claims) -> list[Row]:
        rows = (self.rows.get(id) for id in ids)
        return [row for row in rows if row is not None and claims.cover(row.locked_at, row.locked_by)]

    # Recovery.

    def bury(self) -> dict[str, int]:
        """Return the pools that were silent for too long, with how many jobs each held."""
        dead = [name for name, beat_at in self.pools.items() if beat_at < self.now - DEAD_AFTER]
        for name in dead:
            del self.pools[name]
        rows = self._unlock_queues(lambda lock: lock.by in dead, lambda row: row.locked_by in dead)
        buried = dict.fromkeys(dead, len(rows))
        for row in rows:
            row.back_off(self.now, VANISHED)
        return buried

    def clear_stale_locks(self) -> int:
        rows = self._unlock_queues(lambda lock: lock.at < self.now - STALE, self._is_stale)
        for row in rows:
            row.unlock()
            row.run_at = max(row.run_at, self.now)
        return len(rows)

    def force_unlock(self, holder: str) -> None:
        for row in self._unlock_queues(lambda lock: lock.by == holder, lambda row: row.locked_by == holder):
            row.unlock()

    def _unlock_queues(self, of_queue: Callable[[Lock], bool], of_row: Callable[[Row], bool]) -> list[Row]:
        """Unlock the queues whose lock is meant, and return the jobs that are."""
        self.queues = {name: lock and (None if of_queue(lock) else lock) for name, lock in self.queues.items()}
        return [row for row in self.rows.values() if of_row(row)]

    def _is_stale(self, row: Row) -> bool:
        return row.locked_at is not None and row.locked_at < self.now - STALE

    # Administration: of jobs nobody works on.

    def idle(self, ids: Iterable[int]) -> list[Row]:
        rows = (self.rows.get(id) for id in ids)
        return [row for row in rows if row is not None and (row.locked_at is None or self._is_stale(row))]

    def remove(self, key: str) -> Row | None:
        row = self._of_key(key)
        if row is None:
            return None
        if self.idle([row.id]):
            return self.rows.pop(row.id)
        row.key = None
        row.end(self.now)
        return row

    def complete(self, ids: Iterable[int]) -> list[Row]:
        return [self.rows.pop(row.id) for row in self.idle(ids)]

    def fail_for_good(self, ids: Iterable[int], reason: str | None) -> list[Row]:
        rows = self.idle(ids)
        for row in rows:
            row.end(self.now)
            row.last_error = reason or "Manually marked as failed"
        return rows

    def reschedule(self, ids: Iterable[int], changes: dict[str, Any]) -> list[Row]:
        """Change columns; a run_at is a distance from now, and what is None stays."""
        rows = self.idle(ids)
        for row in rows:
            row.updated_at = self.now
            for name, value in changes.items():
                if value is not None:
                    setattr(row, name, self.now + value if name == "run_at" else value)
        return rows

    def clean_up(self, tasks: Collection[str]) -> dict[str, int]:
        """Drop what is of no more use, and return how many rows of each."""
        counts: dict[str, int] = {}
        if "DELETE_PERMAFAILED_JOBS" in tasks:
            kept = {r.id: r for r in self.rows.values() if r.locked_at is not None or r.attempts < r.max_attempts}
            counts["DELETE_PERMAFAILED_JOBS"] = len(self.rows) - len(kept)
            self.rows = kept
        if "GC_TASK_IDENTIFIERS" in tasks:
            used = {row.task_identifier for row in self.rows.values()}
            counts["GC_TASK_IDENTIFIERS"] = len(self.tasks - used)
            self.tasks &= used
        if "GC_JOB_QUEUES" in tasks:
            in_use = {row.queue_name for row in self.rows.values()}
            queues = {name: lock for name, lock in self.queues.items() if lock or name in in_use}
            counts["GC_JOB_QUEUES"] = len(self.queues) - len(queues)
            self.queues = queues
        return counts


def _place(row: Row) -> tuple[int, datetime]:
    return row.priority, row.run_at


def _in_lane(row: Row, asked: Asked) -> bool:
    since = asked.lanes.get(row.priority) if asked.lanes else None
    return since is None or row.run_at >= since


def _first(rows: list[Row], count: int) -> Iterator[list[Row]]:
    """Yield the first so many of ordered rows: which of those that tie at the end is not promised."""
    if len(rows) <= count:
        yield rows
        return
    last = _place(rows[count - 1])
    before = [row for row in rows if _place(row) < last]
    tied = [row for row in rows if _place(row) == last]
    for some in itertools.combinations(tied, count - len(before)):
        yield [*before, *some]
