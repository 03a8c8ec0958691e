"""LimitedClaims: claims jobs of the tasks that have limits, and takes for each what it needs before it may begin.

Other tasks are claimed without any of this, and their jobs do not wait for it. A claim here is three statements at
most: the claim itself; then, for jobs that have a limit in the whole fleet, what they take, under a lock of the
limit's name; then what got nothing goes back. A job that goes back without the flag of its limit gets it, so that it
is claimed in vain only once.

Whatever fails in between, a slot is taken only as long as its job is claimed by the very claim it was taken for.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from graphile_worker_py import limits
from graphile_worker_py._database import Database
from graphile_worker_py.errors import NotSupported, SchemaMissing
from graphile_worker_py.jobs import Job
from graphile_worker_py.tasks import Task, Tasks
from graphile_worker_py.worker.claims import begin_claim, read
from graphile_worker_py.worker.gates import Gates, Seen
from graphile_worker_py.worker.pace import Pace

logger = logging.getLogger(__name__)

SOON = 0.05  # seconds after a claim that found little
LARGEST_LOOK = 500  # jobs; each name of a limit is compared with each slot (2,000 names: 0.5 s, under their locks)
SWEEP_EVERY = 600.0  # seconds between looks for names that nobody uses any more


@attrs.frozen
class Brought:
    """What a look brought: jobs that may begin, the seconds until the next look, whether there may be more at once.

    `all_seen`: nothing can be had now. `stuck`: named queues that somebody hinders.
    """

    jobs: list[Job]
    delay: float
    full: bool = False
    all_seen: bool = True
    stuck: tuple[int, ...] = ()


class LimitedClaims:
    """Looks for jobs of the tasks with limits among `tasks`, for `holder`; false where there are no such tasks.

    It `is_doubtful` while jobs may be locked that nobody knows of: from before a claim is sent until settle().
    """

    def __init__(
        self,
        tasks: Tasks,
        database: Database,
        holder: str,
        *,
        forbidden_flags: Callable[[], list[str]],
        poll_interval: float,
    ) -> None:
        self._tasks = tasks
        self._database = database
        self._holder = holder
        self._forbidden_flags = forbidden_flags
        self._poll_interval = poll_interval
        self._gates = Gates(tasks.limited)
        self._pace = Pace()
        self._sweep_at = 0.0
        self.is_doubtful = False

    def __bool__(self) -> bool:
        return bool(self._tasks.limited)

    def others(self) -> list[str]:
        """Return the identifiers of the tasks without any limit, which are claimed as ever."""
        limited, names = self._tasks.limited, self._tasks.identifiers()
        return [name for name in names if name not in limited] if limited else names

    def check(self) -> None:
        """Raise NotSupported where a task has a limit in the fleet, and this schema has no tables for it."""
        limited = [task.identifier for task in list(self._tasks.limited.values()) if task.limits]
        if not limited:
            return
        try:
            self._see({}, [])
        except (SchemaMissing, NotSupported) as error:
            raise NotSupported(
                f"tasks with a limit or a rate ({', '.join(limited[:3])}) need tables of our own, which this schema "
                "does not have, or not for this role: run graphile-worker-py migrate as the role that owns the schema"
            ) from error

    def look(self, wanted: int, *, last: Job | None, busy: list[int]) -> Brought:
        """Claim up to `wanted` jobs, none that comes after `last`, where that is given."""
        self._look_at_closed()
        tasks, count = self._gates.open(), self._gates.most(min(wanted, LARGEST_LOOK))
        if not tasks or count <= 0:
            return Brought([], min(self._poll_interval, self._gates.due_in()))
        if resting := self._pace.left():
            return Brought([], resting, all_seen=False)
        began = time.monotonic()
        self._pace.begin()
        told, jobs = self._claim(tasks, count, last=last, busy=busy)
        begun = self._admitted(jobs, full=len(jobs) >= count)
        if not begun:
            self._pace.rest(time.monotonic() - began)
        return self._brought(told, jobs, begun, count=count)

    def settle(self) -> None:
        """Take note that the jobs of the last look are known."""
        self.is_doubtful = False

    def ended(self, jobs: Iterable[Job]) -> bool:
        """Take note that these are no longer held; say whether it is worth looking for others in their place."""
        opened = self._gates.leave(jobs)
        if opened:
            self._pace.ask()
        return opened

    def _brought(self, told: dict[str, Any], jobs: list[Job], begun: list[Job], *, count: int) -> Brought:
        stuck = tuple(told["stuck"])
        full = len(jobs) >= count
        if begun:
            return Brought(begun, 0 if full else SOON, full, all_seen=False, stuck=stuck)
        due_in = told["due_in"]
        delay = min(self._poll_interval, self._gates.due_in(), self._poll_interval if due_in is None else float(due_in))
        if jobs or stuck:  # others may be behind those that have to wait, or were hindered
            return Brought([], self._pace.left(), all_seen=not full and not stuck, stuck=stuck)
        return Brought([], max(0.0, delay))

    def _claim(
        self, tasks: list[str], count: int, *, last: Job | None, busy: list[int]
    ) -> tuple[dict[str, Any], list[Job]]:
        forbidden = [*self._forbidden_flags(), *self._gates.flags()]
        self.is_doubtful = True
        answer = begin_claim(
            self._database,
            self._holder,
            tasks=tasks,
            forbidden=forbidden,
            count=count,
            run_length=1,
            busy=busy,
            within=self._poll_interval,
            last=last,
        )
        told, jobs = read(answer())
        return told, jobs()

    def _admitted(self, jobs: list[Job], *, full: bool) -> list[Job]:
        """Return the jobs that may begin; the others go back."""
        names = {job.id: self._names(job) for job in jobs}
        passing = self._gates.passing(jobs, names)
        asked = [(job, name) for job in passing for name in names[job.id]]
        if asked:
            allowed = self._taken(asked)
            passing = [job for job in passing if not names[job.id] or job.id in allowed]
        begun = {job.id for job in passing}
        if refused := [job for job in jobs if job.id not in begun]:
            self._refuse(refused, names)
        self._gates.brought(jobs, names, refused=len(refused), full=full)
        self._gates.enter(passing, names)
        return passing

    def _names(self, job: Job) -> list[str]:
        """Return the names of the limits in the fleet that a job is under."""
        task: Task[Any, Any] = self._tasks.limited[job.task_identifier]
        found = [limits.name(limit, task.identifier) or _own_name(limit, job) for limit in task.limits]
        return [name for name in found if name is not None]

    def _sizes(self, asked: Iterable[tuple[Job, str]]) -> dict[str, tuple[int, float | None]]:
        """Return the sizes of the limits that go by these names; of two tasks that differ the stricter one counts."""
        sizes: dict[str, tuple[int, float | None]] = {}
        for job, name in asked:
            for limit in self._tasks.limited[job.task_identifier].limits:
                if name.startswith(limits.prefix(limit)):
                    sizes[name] = limits.stricter(limits.size(limit), sizes.get(name, limits.size(limit)))
        return sizes

    def _taken(self, asked: list[tuple[Job, str]]) -> set[int]:
        """Take what these jobs need, and return the ids of those that got all of it."""
        sizes = self._sizes(asked)
        self._gates.begin()
        return self._see(sizes, asked)

    def _look_at_closed(self) -> None:
        if due := self._gates.due():
            self._gates.begin()
            self._see(due, [])
            self._pace.ask()
        if self._sweep_at < time.monotonic() and any(task.limits for task in list(self._tasks.limited.values())):
            self._sweep_at = time.monotonic() + SWEEP_EVERY
            self._database.run("sweep_limits")

    def _see(self, sizes: dict[str, tuple[int, float | None]], asked: list[tuple[Job, str]]) -> set[int]:
        """Ask for slots and starts under the lock of their names, or without any only look."""
        parameters = {
            "ids": [job.id for job, _ in asked],
            "since": [job.locked_at for job, _ in asked],
            "names": [name for _, name in asked],
            "holder": self._holder,
            "gates": list(sizes),
            "most": [most for most, _ in sizes.values()],
            "per": [per for _, per in sizes.values()],
        }
        lock = ("lock_limits", {"names": sorted(sizes)}) if asked else None
        rows = self._database.begin_by_index("take_slots", parameters, after=lock)().fetchall()
        self._gates.see({name: Seen(room, wait) for name, room, wait, _ in rows}, sizes)
        return {id for _, _, _, ids in rows for id in ids}

    def _refuse(self, jobs: list[Job], names: dict[int, list[str]]) -> None:
        claimed = {"holder": self._holder, "ids": [job.id for job in jobs], "since": list({j.locked_at for j in jobs})}
        self._database.run("refuse_jobs", {**claimed, "flags": [self._missing_flags(job, names) for job in jobs]})

    def _missing_flags(self, job: Job, names: dict[int, list[str]]) -> str | None:
        """Return the names a job should carry and does not, as a JSON object."""
        task = self._tasks.limited[job.task_identifier]
        fixed = {limits.name(limit, task.identifier) for limit in task.limits}
        missing = [name for name in names[job.id] if name not in fixed and name not in job.flags]
        return json.dumps(dict.fromkeys(missing, True)) if missing else None


def _own_name(limit: limits.Limit | limits.Rate, job: Job) -> str | None:
    """Return the name a job carries, or should; jobs whose key cannot be computed share one."""
    name = limits.name_among(limit, job.flags)
    if name is not None:
        return name
    try:
        return limits.name_for(limit, job.payload)
    except Exception as error:
        logger.warning("job %s: the key of its limit could not be computed: %s", job.id, type(error).__name__)
        return f"{limits.prefix(limit)}?"
