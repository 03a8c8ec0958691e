"""GraphileWorkerBackend: the jobs of this queue as a backend of Django's tasks framework.

    TASKS = {"default": {"BACKEND": "graphile_worker_py.contrib.django.GraphileWorkerBackend"}}

A task's identifier is its module path, so it is counted and listed by its name, and a Node program may add its jobs. A
payload holds args and kwargs. Django makes an instance for each thread, and validates tasks when they are imported: so
nothing here connects to anything before a task is enqueued, and then over the connection Django has for the thread.

Validation is also where workers learn of a task, for every task passes through it when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from graphile_worker_py.checks import check_job_key_mode
from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.app_queue import job_id, queue
from graphile_worker_py.contrib.django.task_class import GraphileWorkerTask, job_options
from graphile_worker_py.contrib.django.task_options import read_options
from graphile_worker_py.contrib.django.task_paths import find_task, find_while_working
from graphile_worker_py.contrib.django.task_records import (
    LABEL,
    as_django_has_it,
    result_of_job,
    result_of_record,
    stored,
)
from graphile_worker_py.contrib.django.task_runs import register
from graphile_worker_py.contrib.django.tasks_framework import (
    DEFAULT_TASK_BACKEND_ALIAS,
    BaseTaskBackend,
    InvalidTask,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_enqueued,
)
from graphile_worker_py.errors import GraphileWorkerError, InvalidPayload
from graphile_worker_py.jobs import JobSpec


class GraphileWorkerBackend(BaseTaskBackend):
    """Django's tasks as jobs, added in the transaction that the ORM is in.

    OPTIONS: MAX_ATTEMPTS (25 unless given), RETRY (False: an exception fails a task for good; or a Backoff), TIMEOUT,
    and RESULTS, how long results are kept: a timedelta, seconds, or a text such as "7 days". Without it none are, and
    get_result raises NotImplementedError.
    """

    task_class = GraphileWorkerTask
    supports_defer = True
    supports_async_task = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self._read = read_options(alias, params)
        self.supports_get_result = self._read.results is not None

    def validate_task(self, task: Any) -> None:
        """Raise InvalidTask for what cannot be run; let workers of this project know of all else."""
        super().validate_task(task)
        if isgeneratorfunction(task.func) or isasyncgenfunction(task.func):
            raise InvalidTask(f"{task.module_path} is a generator: calling it would run nothing, so replace its yield.")
        try:
            self._spec(task, None)
            check_job_key_mode(getattr(task, "job_key_mode", None), getattr(task, "job_key", None))
            self.register(task)
        except GraphileWorkerError as error:
            raise InvalidTask(f"{task.module_path}: {error}") from error

    def register(self, task: Any) -> None:
        """Let workers of this project run the task, with the options of this alias."""
        register(task, self._read)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Add a job for the task in the transaction that is open, if one is, and return its TaskResult.

        Raises TypeError or ValueError for arguments that JSON cannot carry, and InvalidTask.
        """
        self._refuse_mistakes()
        self.validate_task(task)
        payload = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs))}
        named = {} if self.alias == DEFAULT_TASK_BACKEND_ALIAS else {"backend": self.alias}
        spec = self._spec(task, {**payload, **named})
        job = queue.add_job(
            spec.identifier,
            spec.payload,
            queue_name=spec.queue_name,
            run_at=spec.run_at,
            priority=spec.priority,
            max_attempts=spec.max_attempts,
            job_key=spec.job_key,
            job_key_mode=getattr(task, "job_key_mode", None),
            flags=spec.flags,
        )
        result = TaskResult(
            task=task,
            id=str(job.id),
            status=TaskResultStatus.READY,
            enqueued_at=as_django_has_it(job.created_at),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            **payload,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send_robust(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the TaskResult of an id, as it is now; raise TaskResultDoesNotExist if there is none, or no more.

        A job that is done leaves what is known of it for as long as RESULTS says. Without that option, raises
        NotImplementedError.
        """
        if not self.supports_get_result:
            return super().get_result(result_id)
        self._refuse_mistakes()
        number = job_id(str(result_id))
        if number is None:
            raise TaskResultDoesNotExist(result_id)
        job, record = stored(queue.database, number)
        with suppress(InvalidPayload):  # a job by the name of a task, and yet none
            if job is not None and (task := find_task(job.task_identifier)) is not None:
                return result_of_job(task, job, record)
        if job is None and record is not None and record.finished_at and (task := find_task(record.task)) is not None:
            return result_of_record(task, number, record)
        raise TaskResultDoesNotExist(result_id)

    def check(self, **_: Any) -> Iterator[CheckMessage]:
        """Yield what is wrong with the settings of this alias, for Django's checks."""
        if not apps.is_installed(conf.APP):
            yield Error(
                f"TASKS[{self.alias!r}] uses the backend of {conf.APP}, which is not in INSTALLED_APPS.",
                hint=f"Add {conf.APP!r} to INSTALLED_APPS: it brings the tables, and the worker.",
                id="graphile_worker.E020",
            )
        for text, hint in self._read.problems:
            yield Error(text, hint=hint, id="graphile_worker.E021")

    def _refuse_mistakes(self) -> None:
        for text, hint in self._read.problems:
            raise ImproperlyConfigured(f"{text} {hint}")

    def _spec(self, task: Any, payload: object) -> JobSpec:
        run_at: datetime | None = task.run_after
        if run_at is not None and timezone.is_naive(run_at):  # where USE_TZ is off
            run_at = timezone.make_aware(run_at)
        return JobSpec(
            task.module_path,
            payload,
            run_at=run_at,
            priority=-int(task.priority),  # here the smaller one is first
            flags=[f"{LABEL}{task.queue_name}"],
            **job_options(task, self._read),
        )


def _register(task: Any) -> None:
    """Register a task that was found by its path: with its own backend, or else the first of ours, if there is one."""
    own = task.get_backend()
    ours = [backend for backend in (own, *task_backends.all()) if isinstance(backend, GraphileWorkerBackend)]
    if ours:
        ours[0].register(task)


find_while_working(_register)
