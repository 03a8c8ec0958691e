"""GraphileWorkerTask and GraphileWorkerContext: Django's task and its context, with what this queue offers besides.

From Django 6.1 on, and with the backport, `@task(...)` passes further arguments on to the task's class. Those that
stand here with a job, such as job_key, may be given to `using()` as well; how a worker runs the task is said once,
where it is written, for the worker knows nothing of who adds a job.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

from graphile_worker_py.contrib.django.task_options import TaskOptions, policy
from graphile_worker_py.contrib.django.tasks_framework import Task, TaskContext
from graphile_worker_py.jobs import JobKeyMode
from graphile_worker_py.limits import Limit, Rate
from graphile_worker_py.retry import DelayRule, ExceptionTypes
from graphile_worker_py.worker.context import JobContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphileWorkerTask(Task):
    """A task of Django's, with options of this queue; they mean what they mean for `Queue.add_job` and `Tasks.task`.

    Of its job: max_attempts, job_key, job_key_mode, and serial_queue, which `add_job` calls queue_name: jobs with the
    same one run one at a time. Of how it is run: retry (False: an exception fails it for good), retry_on, give_up_on,
    timeout, concurrency, limit, rate.
    """

    max_attempts: int | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    serial_queue: str | None = None
    retry: DelayRule | bool | None = None
    retry_on: ExceptionTypes | None = None
    give_up_on: ExceptionTypes | None = None
    timeout: timedelta | float | None = None
    concurrency: int | None = None
    limit: Limit | None = None
    rate: Rate | None = None

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
        serial_queue: str | None = None,
    ) -> GraphileWorkerTask:
        """Return the task as it is to be enqueued now: with what is given here, else as it was."""
        given: dict[str, Any] = {
            "priority": priority,
            "queue_name": queue_name,
            "run_after": run_after,
            "backend": backend,
            "max_attempts": max_attempts,
            "job_key": job_key,
            "job_key_mode": job_key_mode,
            "serial_queue": serial_queue,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphileWorkerContext(TaskContext):
    """What a task with takes_context gets: `attempt` and `task_result`, as Django has them, and `job_context`.

    That is the JobContext of this queue: progress(), remaining, cancelled, check_cancelled(), logger and the rest.
    """

    job_context: JobContext


def job_options(task: Any, options: TaskOptions) -> dict[str, Any]:
    """Return what add_job is told about the jobs of a task; one that another backend's class made has no say in it."""
    own = getattr(task, "max_attempts", None)
    return {
        "max_attempts": options.max_attempts if own is None else own,
        "job_key": getattr(task, "job_key", None),
        "queue_name": getattr(task, "serial_queue", None),
    }


def run_options(task: Any, options: TaskOptions) -> dict[str, Any]:
    """Return what the queue is told about how to run a task: what it says itself, else what its backend does."""
    names = ("max_attempts", "retry", "retry_on", "give_up_on", "timeout", "concurrency", "limit", "rate")
    said = {name: getattr(task, name, None) for name in names}
    for name in ("max_attempts", "timeout"):
        said[name] = getattr(options, name) if said[name] is None else said[name]
    retry = options.retry if said["retry"] is None else policy(said["retry"])
    said["retry"] = retry.retry
    if said["retry_on"] is None and said["give_up_on"] is None:  # the two lists belong together
        said |= {"retry_on": retry.retry_on, "give_up_on": retry.give_up_on}
    return {**said, "keep_result": options.results}
