"""Listing: jobs by pages and how many there are, named queues, and who works on them, as Queue offers it.

All but the queues and pools themselves are read through the public view `jobs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, get_args

import attrs

from graphile_worker_py._adding import listed
from graphile_worker_py._database import Database, Row
from graphile_worker_py._scanning import look_through
from graphile_worker_py.checks import LARGEST_ID, check_integer, check_seconds, check_text
from graphile_worker_py.errors import InvalidJobSpec, NotSupported, SchemaMissing
from graphile_worker_py.jobs import JobCount, JobInfo, JobState, Page, moment

LARGEST_COUNT = 10**9
ABOUT = ("host", "pid", "version", "threads", "started_at", "beat_at", "alive")  # what list_pools says of one


def _when(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else moment(microseconds)


@attrs.frozen
class QueueInfo:
    """A named queue: who holds it, and since when, None where it is free; how many jobs it has, and how many are ready.

    `oldest_ready` is the age in seconds of the ready job that waits for longest. `exact`: whether all jobs were
    counted, or there was no time for more.
    """

    name: str
    locked_by: str | None
    locked_at: datetime | None = attrs.field(converter=_when)
    jobs: int
    ready: int
    oldest_ready: float | None
    exact: bool = attrs.field(kw_only=True)


@attrs.frozen(kw_only=True)
class WorkerInfo:
    """Who works on jobs, or holds some: `id` is what stands in locked_by.

    `alive`: a pool of ours was heard of lately enough; None: not one of ours, which leave no sign of life, as Node's do
    not, so that `host` to `beat_at` are None too. `threads`: how many jobs it runs at a time. `running`: the jobs it
    holds, `queues` the named queues, `since` when the one of all these that it holds for longest was taken. `exact`:
    whether all jobs were counted, or there was no time for more.
    """

    id: str
    alive: bool | None = None
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    threads: int | None = None
    started_at: datetime | None = attrs.field(default=None, converter=_when)
    beat_at: datetime | None = attrs.field(default=None, converter=_when)
    running: int
    queues: int
    since: datetime | None = attrs.field(converter=_when)
    exact: bool


class JobList:
    """What `queue.jobs` is: call it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(
        self,
        *,
        state: JobState | None = None,
        task: str | None = None,
        queue_name: str | None = None,
        job_key: str | None = None,
        priority: int | None = None,
        error: str | None = None,
        ids: Iterable[int] | None = None,
        limit: int = 100,
        after: int = 0,
        patience: float | None = None,
    ) -> Page:
        """Return up to `limit` (1 to 10,000) jobs in the order of their ids, after the id `after`, without payloads.

        error: a part of last_error, in upper or lower case. ids: only these. Only ids and job_key have an index, all
        else is looked for in the order of the ids, for `patience` seconds at most, None: to the end. Raises
        InvalidJobSpec.
        """
        check_integer("limit", limit, lowest=1, highest=10_000)
        rows: list[Row] = []

        def enough(found: list[Row]) -> bool:
            rows.extend(found)
            return len(rows) > limit

        filters = _filters(state, task, queue_name, job_key=job_key, priority=priority, error=error, ids=ids)
        params = {**filters, "limit": limit + 1}
        reached = self._look("list_jobs", params, enough, after=after, patience=patience)
        items = [JobInfo(*row) for row in rows[:limit]]
        if reached is not None:
            return Page(items, reached, gave_up=True)
        return Page(items, items[-1].id if len(rows) > limit else None)

    def count(
        self,
        *,
        state: JobState | None = None,
        task: str | None = None,
        queue_name: str | None = None,
        job_key: str | None = None,
        priority: int | None = None,
        error: str | None = None,
        after: int = 0,
        at_most: int = 10_000,
        patience: float | None = None,
    ) -> JobCount:
        """Count jobs, up to `at_most` of them; the other arguments are those of a call."""
        check_integer("at_most", at_most, lowest=1, highest=LARGEST_COUNT)
        number: int = 0

        def enough(found: list[Row]) -> bool:
            nonlocal number
            number += found[0][0]
            return number > at_most

        params = _filters(state, task, queue_name, job_key=job_key, priority=priority, error=error, ids=None)
        reached = self._look("count_jobs", params, enough, after=after, patience=patience)
        return JobCount(min(number, at_most), exact=reached is None and number <= at_most)

    def _look(
        self,
        statement: str,
        params: dict[str, Any],
        enough: Callable[[list[Row]], bool],
        *,
        after: int,
        patience: float | None,
    ) -> int | None:
        """Look through the jobs until there are enough; see look_through."""
        check_integer("after", after, lowest=0, highest=LARGEST_ID)
        at_once = params["job_key"] is not None or params["ids"] is not None
        seconds = _checked(patience)
        return look_through(
            self._database, statement, params, take=enough, after=after, patience=seconds, at_once=at_once
        )


def _filters(
    state: JobState | None,
    task: str | None,
    queue_name: str | None,
    *,
    job_key: str | None,
    priority: int | None,
    error: str | None,
    ids: Iterable[int] | None,
) -> dict[str, Any]:
    """Return what fills in the filters of a statement, if it can be. Raises InvalidJobSpec."""
    if state is not None and state not in get_args(JobState):
        raise InvalidJobSpec(f"state: expected ready, scheduled, running, retrying or failed, got {state!r}")
    texts = {"task": task, "queue_name": queue_name, "job_key": job_key, "error": error}
    for name, text in texts.items():
        if text is not None:
            check_text(name, text, longest=512)
    if priority is not None:
        check_integer("priority", priority, lowest=-32768, highest=32767)
    numbers = None
    if ids is not None:
        numbers = [check_integer("ids", id, lowest=-LARGEST_ID, highest=LARGEST_ID) for id in listed("ids", ids)]
    return {"state": state, **texts, "priority": priority, "ids": numbers}


def queues_of(
    database: Database, *, locked: bool | None, limit: int, after: str | None, patience: float | None
) -> list[QueueInfo]:
    """Return up to `limit` named queues in the order of their names, after that name; see `Queue.queues`."""
    check_integer("limit", limit, lowest=1, highest=10_000)
    if after is not None:
        check_text("after", after, longest=128)
    seconds = _checked(patience)
    queues = database.run("list_queues", {"locked": locked, "after": after, "limit": limit})
    counts: dict[str, Row] = {}

    def take(found: list[Row]) -> bool:
        for name, jobs, ready, oldest in found:
            before = counts.get(name, (0, 0, None))
            ages = [age for age in (before[2], oldest) if age is not None]
            counts[name] = (before[0] + jobs, before[1] + ready, max(ages, default=None))
        return not queues

    names = [name for name, *_ in queues]
    reached = look_through(database, "count_in_queues", {"names": names}, take=take, patience=seconds)
    nothing = (0, 0, None)
    return [QueueInfo(name, by, at, *counts.get(name, nothing), exact=reached is None) for name, by, at in queues]


def workers_of(database: Database, *, patience: float | None) -> list[WorkerInfo]:
    """Return our pools, living or not, then all others who hold something; see `Queue.workers`."""
    pools: list[Row] = []
    seconds = _checked(patience)
    with suppress(SchemaMissing, NotSupported):  # where our own tables could not be made
        pools = database.run("list_pools")
    held: dict[str, Row] = {}

    def take(found: list[Row]) -> bool:
        for holder, jobs, since in found:
            before = held.get(holder, (0, None))
            held[holder] = (before[0] + jobs, _earlier(before[1], since))
        return False

    reached = look_through(database, "count_by_holder", {}, take=take, patience=seconds)
    queues = {holder: (number, since) for holder, number, since in database.run("held_queues")}

    def info(id: str, about: dict[str, Any]) -> WorkerInfo:
        (jobs, since), (named, queue_since) = held.get(id, (0, None)), queues.get(id, (0, None))
        first = _earlier(since, queue_since)
        return WorkerInfo(id=id, running=jobs, queues=named, since=first, exact=reached is None, **about)

    ours = [info(id, dict(zip(ABOUT, about, strict=True))) for id, *about in pools]
    others = sorted({*held, *queues} - {pool.id for pool in ours})
    return ours + [info(id, {}) for id in others]


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((time for time in (one, other) if time is not None), default=None)


def _checked(patience: float | None) -> float | None:
    return None if patience is None else check_seconds("patience", patience, shortest=0.001)
