"""What a look at a queue tells, as data, and what follows from several of them; no database here."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import attrs

from graphile_worker_py._walk import Count, Row


@attrs.frozen
class Pulse:
    """What the server tells without reading jobs; `added` and `deleted` count from some beginning, None: not known.

    `readable`: this role may read the table. `jobs`: how many there are, if all were counted at this time.
    """

    at: datetime
    standby: bool
    started_at: int
    version: int
    pages: int
    readable: bool
    added: int | None
    deleted: int | None
    jobs: int | None = None


@attrs.frozen
class Rates:
    """Jobs added and removed per second, over the last `seconds`; None where that cannot be told."""

    added: float | None
    removed: float | None
    seconds: float


@attrs.frozen
class TaskFigures:
    """A task: jobs by state; seconds that the oldest ready one waits, and the longest running one runs.

    `runs` per second, `p50` and `p95` (seconds) are of runs in the history. Where it has none, `runs` is None, and the
    other two are of how long the running jobs have been running.
    """

    task: str
    ready: int = 0
    scheduled: int = 0
    running: int = 0
    retrying: int = 0
    failed: int = 0
    oldest_ready: float | None = None
    longest_run: float | None = None
    runs: float | None = None
    p50: float | None = None
    p95: float | None = None


@attrs.frozen
class Worker:
    """A holder of jobs. Of a pool of ours `host`, `pid`, `version`, `threads` and the last `beat` (seconds) are known.

    `dead_after`: seconds of silence. `longest_run`: of its jobs, in seconds.
    """

    id: str
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    threads: int | None = None
    up: float | None = None
    beat: float | None = None
    dead_after: float | None = None
    running: int = 0
    longest_run: float | None = None


@attrs.frozen
class RunningJob:
    """A job that runs, since so many `seconds`."""

    id: int
    task: str
    attempt: int
    worker: str
    seconds: float


@attrs.frozen
class Failure:
    """An error of a job; `at`: when it was seen or written, None for one that was there before the first look.

    `final`: no attempt is left. `error` is the beginning of it.
    """

    at: datetime | None
    job_id: int
    task: str
    attempt: int
    final: bool
    error: str


@attrs.frozen
class Snapshot:
    """One look: all is as of `at`, by the database's clock, but counts, which may be `counts_age` seconds old.

    `read`: how much of the table was counted, from 0 to 1; counts are estimates where it is less. `ready_counted`: how
    many are ready was counted just now, and there are no more. `oldest_ready`: seconds. `history`: whether some worker
    keeps one. `notes` say what is not known, and why. `cost`: seconds that the server was at work on it.
    """

    at: datetime
    standby: bool
    read: float
    counts_age: float
    ready_counted: bool
    oldest_ready: float | None
    rates: Rates
    history: bool
    tasks: tuple[TaskFigures, ...]
    workers: tuple[Worker, ...]
    running: tuple[RunningJob, ...]
    errors: tuple[Failure, ...]
    notes: tuple[str, ...]
    cost: float

    def total(self, state: str) -> int:
        """Return how many jobs of all tasks are in that state."""
        return sum(getattr(task, state) for task in self.tasks)


def rates(pulses: Sequence[Pulse]) -> Rates:
    """Return what the difference of the last and the first of some pulses tells; those of another server are no help.

    Where deletions are not counted, what was added and is not there has been removed.
    """
    if not pulses:
        return Rates(None, None, 0.0)
    last = pulses[-1]
    first = next(one for one in pulses if (one.started_at, one.standby) == (last.started_at, last.standby))
    seconds = (last.at - first.at).total_seconds()
    added, jobs = _grown(first.added, last.added, seconds), _grown(first.jobs, last.jobs, seconds, least=-math.inf)
    removed = _grown(first.deleted, last.deleted, seconds)
    if removed is None and added is not None and jobs is not None:
        removed = max(0.0, added - jobs)
    return Rates(added, removed, max(0.0, seconds))


def _grown(first: int | None, last: int | None, seconds: float, *, least: float = 0) -> float | None:
    if first is None or last is None or seconds <= 0 or last - first < least:
        return None
    return (last - first) / seconds


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the value that `share` of the values do not exceed, one of them; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


NAMELESS = "(no task)"  # of a job whose task's row is gone


@attrs.frozen
class Front:
    """What is ready, along the index: jobs by task, whether that is all of them, and the oldest's age in seconds."""

    ready: Mapping[str, int]
    complete: bool
    oldest: float | None


@attrs.frozen
class Runs:
    """The latest runs of a task: how many ended per second, and the seconds that 50 and 95 percent took at most."""

    rate: float
    p50: float
    p95: float


def task_figures(
    counts: Iterable[Count], rows: Iterable[Row], *, factor: float, front: Front | None, runs: Mapping[str, Runs]
) -> tuple[TaskFigures, ...]:
    """Return the figures of each task, in the order of their names; counts are multiplied by `factor`."""
    jobs: defaultdict[str, Counter[str]] = defaultdict(Counter)
    oldest: dict[tuple[str, str], float] = {}
    for count in counts:
        name = count.task or NAMELESS
        jobs[name][count.state] += count.jobs
        if count.age is not None:
            oldest[name, count.state] = max(count.age, oldest.get((name, count.state), 0.0))
    ages: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.age is not None:
            ages[row.task or NAMELESS].append(row.age)
    found = []
    for name in sorted({*jobs, *runs, *(front.ready if front else ())}):
        states = {state: round(number * factor) for state, number in jobs[name].items()}
        states["ready"] = _ready(name, states.get("ready", 0), front)
        rate, p50, p95 = _durations(runs.get(name), ages[name], jobs[name]["running"])
        waits, longest = (oldest.get((name, state)) for state in ("ready", "running"))
        counted = TaskFigures(name, **states, oldest_ready=waits if states["ready"] else None, longest_run=longest)
        found.append(attrs.evolve(counted, runs=rate, p50=p50, p95=p95))
    return tuple(found)


def _ready(name: str, counted: int, front: Front | None) -> int:
    """Return how many jobs of a task are ready: what was seen just now, or more of which that is only the beginning."""
    if front is None:
        return counted
    seen = front.ready.get(name, 0)
    return seen if front.complete else max(seen, counted)


def _durations(runs: Runs | None, ages: list[float], running: int) -> tuple[float | None, float | None, float | None]:
    """Return a task's runs per second and how long they took; else how long its jobs have been running, if known."""
    if runs is not None:
        return runs.rate, runs.p50, runs.p95
    if len(ages) < running:
        return None, None, None
    return None, percentile(ages, 0.5), percentile(ages, 0.95)


def with_load(pools: Iterable[Worker], counts: Iterable[Count], *, factor: float) -> tuple[Worker, ...]:
    """Return the pools with what they hold, and after them the holders that are none of them."""
    workers = {pool.id: pool for pool in pools}
    for count in counts:
        if count.state == "running":
            name = count.holder or "?"
            worker = workers.get(name) or Worker(name)
            workers[name] = attrs.evolve(
                worker,
                running=worker.running + round(count.jobs * factor),
                longest_run=max(count.age or 0.0, worker.longest_run or 0.0),
            )
    return tuple(sorted(workers.values(), key=lambda worker: worker.host is None))


def running_jobs(rows: Iterable[Row]) -> tuple[RunningJob, ...]:
    """Return the jobs that run, the longest first."""
    found = [
        RunningJob(row.id, row.task or NAMELESS, row.attempt, row.holder or "?", row.age)
        for row in rows
        if row.age is not None
    ]
    return tuple(sorted(found, key=lambda job: -job.seconds))


class Failures:
    """The errors that were seen, each once: that of one attempt of a job. Of many the latest `most` are kept."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._seen: set[tuple[int, int]] = set()
        self._kept: dict[tuple[int, int], Failure] = {}

    def note(self, failure: Failure) -> None:
        """Take note of an error, unless it was seen before."""
        key = failure.job_id, failure.attempt
        if key not in self._seen:
            self._seen.add(key)
            self._kept[key] = failure

    def note_exactly(self, failure: Failure) -> None:
        """Take note of an error of which somebody has written down when it was."""
        self._seen.add((failure.job_id, failure.attempt))
        self._kept[failure.job_id, failure.attempt] = failure

    def forget(self, present: Iterable[Row]) -> None:
        """Keep the latest only, and forget the others but for those of these jobs, which would be news again."""
        kept = sorted(self._kept.values(), key=_lateness, reverse=True)[: self._most]
        self._kept = {(failure.job_id, failure.attempt): failure for failure in kept}
        self._seen = {*self._kept, *((row.id, row.attempt) for row in present if row.failed_at is not None)}

    def latest(self) -> tuple[Failure, ...]:
        """Return the latest first, those that were there before the first look last."""
        return tuple(sorted(self._kept.values(), key=_lateness, reverse=True)[: self._most])


def _lateness(failure: Failure) -> tuple[float, int]:
    return (-math.inf if failure.at is None else failure.at.timestamp()), failure.job_id
