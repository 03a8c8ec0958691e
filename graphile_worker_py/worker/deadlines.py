"""Deadlines: what ends a handler whose time is over, or that was cancelled.

First it is told: `ctx.cancelled` is set, `ctx.remaining` is zero and `ctx.check_cancelled()` raises. A second later, or
at once where the handler takes no context, the same exception is raised in its thread. Where not even that ends it,
for the thread is in a call that does not return to Python, the job is reported as stuck, again and again.

Nothing is measured while jobs run: the service looks at the threads now and then, so often that a limit is kept to a
quarter of it, and to a quarter of a second. It asks nobody, so an outage of the database changes nothing here; what the
database knows of running jobs is found by Cancellations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import attrs

from graphile_worker_py._grip import Grip
from graphile_worker_py._service import Service
from graphile_worker_py.errors import GraphileWorkerError, JobTimeout
from graphile_worker_py.events import Events, JobStuck
from graphile_worker_py.jobs import Job
from graphile_worker_py.tasks import Task, Tasks
from graphile_worker_py.worker.watch import stack_of

TO_HEED = 1.0  # seconds from the word to the exception
TO_ARRIVE = 5.0  # seconds from the exception to the first report
LONGEST_TICK = 0.25  # seconds
SHORTEST_TICK = 0.02
IDLE_TICK = 1.0  # where no limit is known


@attrs.define
class _Pressed:
    """How far it has come with a job that is to end, and when the next step is due."""

    job: Job
    due: float
    interrupted: bool = False


class Deadlines(Service):
    """Sees to it that the handlers in these threads end in time. wake() makes it look at once."""

    def __init__(self, grips: Sequence[Grip], tasks: Tasks, events: Events) -> None:
        super().__init__("deadlines")
        self._grips = grips
        self._tasks = tasks
        self._events = events
        self._pressed: dict[Grip, _Pressed] = {}

    def step(self) -> float | None:
        """Look once at all threads; return when to look again."""
        now = time.perf_counter()
        before, self._pressed = self._pressed, {}
        tick = self._tick()
        for grip in self._grips:
            job, began = grip.job, grip.began  # in this order: whoever begins a job writes it last
            if job is None:
                continue
            task = self._tasks.get(job.task_identifier)
            limit = self._limit(grip, job, task)
            if limit is not None and now >= began + limit and grip.reason(job) is None and grip.job is job:
                grip.demand = job, JobTimeout(f"the job ran longer than the {limit:g} s it may")
            if (reason := grip.reason(job)) is not None:
                tick = min(tick, self._press(grip, before.get(grip), (job, reason, task)))
            elif limit is not None:
                tick = min(tick, max(SHORTEST_TICK, began + limit - now))
        return tick

    def _tick(self) -> float:
        limits = [task.timeout for task in self._tasks if task.timeout is not None]
        limits += [own for grip in self._grips for job, own in [grip.own_limit] if own is not None and job is grip.job]
        return max(SHORTEST_TICK, min(LONGEST_TICK, min(limits) / 4)) if limits else IDLE_TICK

    @staticmethod
    def _limit(grip: Grip, job: Job, task: Task[Any, Any] | None) -> float | None:
        known, own = grip.own_limit
        if known is job:
            return own
        return task.timeout if task is not None else None

    def _press(
        self, grip: Grip, pressed: _Pressed | None, what: tuple[Job, GraphileWorkerError, Task[Any, Any] | None]
    ) -> float:
        """Do what is due for a job that is to end; return the seconds until the next step."""
        job, reason, task = what
        now = time.perf_counter()
        context = grip.context
        if context is not None and context.job is not job:
            context = None
        if pressed is None or pressed.job is not job:
            if context is not None:
                context.end(reason)
            heeds = context is not None and task is not None and task.wants_context
            pressed = _Pressed(job, now + TO_HEED if heeds else now)
        self._pressed[grip] = pressed
        if now < pressed.due:
            return max(SHORTEST_TICK, pressed.due - now)
        if pressed.interrupted:
            pressed.due = now + 2 * (now - grip.began)
            self._tell(grip, job, now - grip.began)
        elif grip.interrupt(job, type(reason)) or grip.has_struck(job):
            pressed.interrupted, pressed.due = True, now + TO_ARRIVE
            if context is not None:  # the handler may wait for them, where no exception arrives
                context.drop_helpers()
        else:  # it is covered, for a moment, or has just ended
            return SHORTEST_TICK
        return max(SHORTEST_TICK, pressed.due - now)

    def _tell(self, grip: Grip, job: Job, seconds: float) -> None:
        if (stack := stack_of(grip.thread)) is not None and grip.job is job:
            self._events.emit(JobStuck(job, seconds, stack))
