"""What is known of a task that was enqueued, as Django's TaskResult: from the row of its job, and from a record.

A record is a TaskResult as JSON, in the table of results, for as long as results are kept. That of a task that is done
is written by the statement that deletes its job. That of a failed attempt is written beside the row, which knows only
the last error: it brings the errors, the workers and the first start over to the next attempt.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone as django_timezone

from graphile_worker_py._database import Database
from graphile_worker_py.contrib.django.tasks_framework import (
    InvalidTask,
    TaskError,
    TaskResult,
    TaskResultStatus,
)
from graphile_worker_py.errors import InvalidPayload, JobFailedForGood
from graphile_worker_py.jobs import Job
from graphile_worker_py.results import as_json

LABEL = "queue:"  # what the flag begins with that stands for a queue_name of Django's
MOST_ERRORS = 10  # of those of earlier attempts that a record carries on
UNKNOWN_WORKER = "unknown"  # of an attempt that left no record: its worker was killed, or keeps none
TRACEBACK = re.compile(r"^.*Traceback \(most recent call last\):", re.M)


@attrs.frozen(kw_only=True)
class Record:
    """What has been kept of earlier attempts, or of a task that is over; times are aware, in UTC."""

    task: str = ""
    status: str = TaskResultStatus.READY.value
    backend: str = ""
    queue_name: str = ""
    priority: int = 0
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    last_attempted_at: datetime | None = None
    finished_at: datetime | None = None
    args: list[Any] = attrs.field(factory=list)
    kwargs: dict[str, Any] = attrs.field(factory=dict)
    errors: tuple[TaskError, ...] = ()
    worker_ids: tuple[str, ...] = ()
    return_value: Any = None


DONE = TaskResultStatus.SUCCESSFUL
TIMES = ("enqueued_at", "started_at", "last_attempted_at", "finished_at")


def stored(database: Database, id: int) -> tuple[Job | None, Record | None]:
    """Return the job of an id, and the record that was kept of it, as far as they are there."""
    rows = database.run("task_result", {"id": id})
    if not rows:
        return None, None
    *columns, text = rows[0]
    return None if columns[2] is None else Job(*columns), read_record(text)


def keep_attempt(database: Database, result: Any, job: Job, *, keep_for: timedelta) -> None:
    """Keep a record of an attempt that has failed."""
    parameters = {
        "record": record_of(result),
        "keep_for": keep_for.total_seconds(),
        "id": job.id,
        "holder": job.locked_by,
        "since": job.locked_at,
    }
    database.run("keep_attempt", parameters)


def record_of(result: Any) -> str:
    """Return a TaskResult as the JSON text that is kept; raise InvalidHandler for what JSON cannot carry."""
    return as_json(plain(result))


def plain(result: Any, *, done_at: datetime | None = None) -> dict[str, Any]:
    """Return a TaskResult as data; `done_at`: as it will be if its task is done then, and returns None."""
    errors = [{"exception_class_path": e.exception_class_path, "traceback": e.traceback} for e in result.errors]
    times = {name: (at := getattr(result, name)) and in_utc(at).isoformat() for name in TIMES}
    end = {} if done_at is None else {"status": DONE.value, "finished_at": in_utc(done_at).isoformat()}
    return {
        "task": result.task.module_path,
        "status": TaskResultStatus(result.status).value,
        "backend": result.backend,
        "queue_name": result.task.queue_name,
        "priority": result.task.priority,
        **times,
        "args": result.args,
        "kwargs": result.kwargs,
        "errors": errors[-MOST_ERRORS:],
        "worker_ids": result.worker_ids,
        "return_value": result._return_value,
        **end,
    }


def read_record(text: str | None) -> Record | None:
    """Return a record from its JSON text; None for what another kind of task has left, or another version."""
    if text is None:
        return None
    data = json.loads(text)
    if not isinstance(data, dict) or set(data) != {field.name for field in attrs.fields(Record)}:
        return None
    times = {name: data[name] and datetime.fromisoformat(data[name]) for name in TIMES}
    errors = tuple(TaskError(**error) for error in data["errors"])
    return Record(**{**data, **times, "errors": errors, "worker_ids": tuple(data["worker_ids"])})


def arguments(payload: object) -> tuple[list[Any], dict[str, Any], str | None]:
    """Return args, kwargs, and the alias of TASKS that enqueued it, from a payload; raise InvalidPayload.

    What Node or plain SQL adds may leave out any of them.
    """
    if not isinstance(payload, dict) or not set(payload) <= {"args", "kwargs", "backend"}:
        raise InvalidPayload('the payload of a task of Django\'s is an object such as {"args": [1], "kwargs": {}}')
    args, kwargs, backend = payload.get("args", []), payload.get("kwargs", {}), payload.get("backend")
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(backend, str | None):
        raise InvalidPayload("the payload of a task of Django's has a list of args, an object of kwargs")
    return args, kwargs, backend


def result_of_job(task: Any, job: Job, record: Record | None) -> Any:
    """Return the TaskResult of a job that has a row: it waits, runs, or has failed for good."""
    args, kwargs, backend = arguments(job.payload)
    task = as_enqueued(task, queue_name=label(job.flags), priority=-job.priority, backend=backend)
    running, failed = job.locked_at is not None, job.locked_at is None and job.attempts >= job.max_attempts
    before = job.attempts - running
    earlier = record if record is not None and len(record.worker_ids) <= before else Record()  # else it began anew
    workers = list(earlier.worker_ids)
    if not failed:  # what failed for good counts as many attempts as it might have made
        workers += [UNKNOWN_WORKER] * (before - len(workers))
    last = earlier.last_attempted_at
    if job.locked_at is not None:
        workers.append(job.locked_by or UNKNOWN_WORKER)
        last = job.locked_at
    status = TaskResultStatus.RUNNING if running else TaskResultStatus.FAILED if failed else TaskResultStatus.READY
    return TaskResult(
        task=task,
        id=str(job.id),
        status=status,
        enqueued_at=as_django_has_it(job.created_at),
        started_at=as_django_has_it(earlier.started_at or last),
        last_attempted_at=as_django_has_it(last),
        finished_at=as_django_has_it(earlier.finished_at) if failed else None,
        args=args,
        kwargs=kwargs,
        backend=task.backend,
        errors=list(errors_of(job, earlier.errors)),
        worker_ids=workers,
    )


def result_of_record(task: Any, id: int, record: Record) -> Any:
    """Return the TaskResult of a task that is over, and whose job has no row any more."""
    task = as_enqueued(task, queue_name=record.queue_name, priority=record.priority, backend=record.backend)
    result = TaskResult(
        task=task,
        id=str(id),
        status=TaskResultStatus(record.status),
        **{name: as_django_has_it(getattr(record, name)) for name in TIMES},
        args=record.args,
        kwargs=record.kwargs,
        backend=task.backend,
        errors=list(record.errors),
        worker_ids=list(record.worker_ids),
    )
    object.__setattr__(result, "_return_value", record.return_value)  # Django does so as well: it is frozen
    return result


def as_enqueued(task: Any, *, queue_name: str | None, priority: int, backend: str | None) -> Any:
    """Return the task with what it was enqueued with; as it is written where that is not valid here."""
    with suppress(InvalidTask, ImproperlyConfigured):
        return task.using(queue_name=queue_name, priority=priority, backend=backend)
    return task


def label(flags: Iterable[str]) -> str | None:
    """Return the queue_name of Django's that the flags of a job tell, None if they tell none."""
    return next((flag.removeprefix(LABEL) for flag in flags if flag.startswith(LABEL)), None)


def errors_of(job: Job, known: tuple[TaskError, ...]) -> Iterable[TaskError]:
    """Yield the errors a record has told of, and the one of the row, if that is another."""
    yield from known
    if job.last_error is not None and not (known and known[-1].traceback == traceback_in(job.last_error)):
        yield TaskError(exception_class_path=class_path_in(job.last_error), traceback=traceback_in(job.last_error))


def traceback_in(error: str) -> str:
    """Return the traceback in a last_error, which begins with the message; all of it where there is none."""
    found = TRACEBACK.search(error)
    return error if found is None else error[found.start() :]


def class_path_in(error: str) -> str:
    """Return the path of the exception class that a last_error begins with, as tracebacks do.

    What begins otherwise was written by no exception of Python's: by Node, by `Queue.cancel`, for a dead worker.
    """
    found = re.match(r"[\w.]+(?=:|\s*$)", error.partition("\n")[0])
    name = found[0] if found else ""
    kind: object = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return f"builtins.{name}"
    return name if "." in name.strip(".") else f"{JobFailedForGood.__module__}.{JobFailedForGood.__qualname__}"


def as_django_has_it(moment: datetime | None) -> datetime | None:
    """Return an aware datetime as this project has them: naive, in its time zone, where USE_TZ is off."""
    if moment is None or settings.USE_TZ:
        return moment
    made: datetime = django_timezone.make_naive(moment)
    return made


def in_utc(moment: datetime) -> datetime:
    """Return a datetime of this project's in UTC."""
    if django_timezone.is_naive(moment):
        moment = django_timezone.make_aware(moment)
    return moment.astimezone(timezone.utc)
