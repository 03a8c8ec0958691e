"""Task and Tasks: the names this process can work on, and the functions that do it.

What could not work is refused where the handler is written, a second handler for a name too. What an annotation makes
of payloads is found out when a worker starts: by then all it may name is defined, and who only adds jobs needs it not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload

from graphile_worker_py import limits
from graphile_worker_py._handlers import name_of, payload_annotation, wants_context
from graphile_worker_py._typed import reader
from graphile_worker_py.checks import check_retention, check_timeout
from graphile_worker_py.cron.crontab import CronItem, check_identifiers
from graphile_worker_py.errors import DuplicateTask, InvalidHandler, UnknownTask
from graphile_worker_py.jobs import Job, JobKeyMode, JobSpec
from graphile_worker_py.limits import Limit, Rate
from graphile_worker_py.retry import DelayRule, ExceptionTypes, RetryPolicy
from graphile_worker_py.signatures import AddJob, Takes

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Around: TypeAlias = Callable[[Any], AbstractContextManager[object]]  # called with the JobContext
AroundHelpers: TypeAlias = Callable[[], AbstractContextManager[object]]


class Task(Generic[P, R]):
    """A handler under its identifier: still a plain function when called, and a way to add its jobs.

    `defaults` are the add_job options given at registration; they hold wherever a job of this task is added by a
    process that has it registered. `wants_context` says whether the handler takes a second argument. `read` makes what
    the handler asks for of JSON data, None where it takes them as they are. `retry` is what it says about retries,
    `timeout` the seconds that it may run, None for ever; `around` makes the context manager that it is called in;
    `concurrency` is how many of its handlers run at a time in one pool; `limit` and `rate` hold in the whole fleet;
    `keep_result` is how long what it returns is kept, None for not at all.
    """

    def __init__(
        self,
        handler: Callable[P, R],
        identifier: str | None = None,
        *,
        retry: DelayRule | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        retry_invalid: bool = False,
        timeout: timedelta | float | None = None,
        around: Around | None = None,
        concurrency: int | None = None,
        limit: Limit | None = None,
        rate: Rate | None = None,
        keep_result: bool | timedelta | None = None,
        **defaults: Any,
    ) -> None:
        self.wants_context = wants_context(handler)
        self.handler = handler
        self.retry = RetryPolicy(retry, retry_on, give_up_on, retry_invalid)
        self.read: Callable[[Any], Any] | None = self._read_first
        name = identifier if identifier is not None else getattr(handler, "__name__", None)
        if name is None or name == "<lambda>":
            raise InvalidHandler("this handler has no name of its own: give the task an identifier")
        spec = JobSpec(name, **defaults)  # checks the name and every default here and now
        self.identifier = spec.identifier
        self.keep_result = check_retention("keep_result", keep_result)
        self.defaults = {key: getattr(spec, key) for key, value in defaults.items() if value is not None}
        self.timeout = check_timeout(timeout)
        self.around = check_around(around)
        self.concurrency, self.limit, self.rate = limits.check_limits(concurrency, limit, rate)
        self.limits = tuple(each for each in (limit, rate) if each is not None)
        self._add_job: AddJob | None = None
        functools.update_wrapper(self, handler, updated=())  # a handler's own attributes must not overwrite ours

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the handler itself, as a test would."""
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.identifier!r}>"

    def complete_spec(self, spec: JobSpec) -> JobSpec:
        """Return the spec with this task's defaults, and with the names of its limits among the flags."""
        spec = spec.with_defaults(self.defaults)
        for limit in self.limits:
            if callable(limit.key) and not limits.name_among(limit, spec.flags or ()):
                name = limits.name_for(limit, spec.plain_payload())
                spec = spec if name is None else spec.with_flag(name)
        return spec

    def bind(self, add_job: AddJob) -> None:
        """Let add_job of this handle go to that queue; the first queue that takes a task keeps it."""
        self._add_job = self._add_job or add_job

    def prepare(self) -> None:
        """Find out what the handler's annotation makes of payloads; raises InvalidHandler where that cannot be."""
        try:
            self.read = reader(payload_annotation(self.handler))
        except InvalidHandler as error:
            raise InvalidHandler(f"the payload of {name_of(self.handler)}: {error}") from error.__cause__

    def _read_first(self, payload: Any) -> Any:
        self.prepare()
        return payload if self.read is None else self.read(payload)

    @overload
    def add_job(
        self: Takes[dict[str, Any]],
        *,
        queue_name: str | None = None,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
        flags: Iterable[str] | None = None,
        connection: object = None,
    ) -> Job: ...

    @overload
    def add_job(
        self: Takes[T],
        payload: T,
        *,
        queue_name: str | None = None,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
        flags: Iterable[str] | None = None,
        connection: object = None,
    ) -> Job: ...

    def add_job(
        self,
        payload: Any = None,
        *,
        queue_name: str | None = None,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
        flags: Iterable[str] | None = None,
        connection: object = None,
    ) -> Job:
        """Add a job for this task and return it as stored; the arguments are those of `Queue.add_job`.

        Type checkers compare the payload with the handler's; none can be given where the handler takes any dict.
        """
        if self._add_job is None:
            raise UnknownTask(f"task {self.identifier!r} belongs to no queue yet: call queue.include(tasks) first")
        return self._add_job(
            self.identifier,
            payload,
            queue_name=queue_name,
            run_at=run_at,
            priority=priority,
            max_attempts=max_attempts,
            job_key=job_key,
            job_key_mode=job_key_mode,
            flags=flags,
            connection=connection,
        )


class Tasks:
    """A registry of tasks: `@tasks.task` fills it, `queue.include(tasks)` makes a queue work on them.

    What is registered after it was included is included too, so the order of imports does not matter.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {}
        self.limited: dict[str, Task[Any, Any]] = {}  # those of them with a limit of any kind
        self._cron_items: list[CronItem] = []
        self._included_by: list[Tasks] = []
        self._add_job: AddJob | None = None

    @overload
    def task(self, handler: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        identifier: str | None = None,
        /,
        *,
        queue_name: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        flags: Iterable[str] | None = None,
        retry: DelayRule | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        retry_invalid: bool = False,
        timeout: timedelta | float | None = None,
        around: Around | None = None,
        concurrency: int | None = None,
        limit: Limit | None = None,
        rate: Rate | None = None,
        keep_result: bool | timedelta | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        handler: Callable[..., Any] | str | None = None,
        /,
        *,
        queue_name: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        flags: Iterable[str] | None = None,
        retry: DelayRule | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        retry_invalid: bool = False,
        timeout: timedelta | float | None = None,
        around: Around | None = None,
        concurrency: int | None = None,
        limit: Limit | None = None,
        rate: Rate | None = None,
        keep_result: bool | timedelta | None = None,
    ) -> Any:
        """Register a function as the handler of a task: `@task`, or `@task("name", max_attempts=5)`.

        The identifier is the function's name unless given. queue_name to flags become the defaults of its jobs. retry:
        the delay after a failure, a Backoff or a function of attempt and exception that returns a timedelta, or None to
        give up. retry_on, give_up_on: the exception types that are, or are not, worth a retry. What is None is as the
        queue says, else as in Node. retry_invalid: try again also where the payload does not fit the annotation.
        timeout: how long the handler may run, a timedelta or seconds. around: called with the JobContext, it returns a
        context manager, which is entered around each call of the handler. concurrency: handlers at a time in one pool;
        limit, rate: see Limit and Rate. keep_result: how long what it returns is kept for `Queue.wait_for`; True: a
        day. Raises InvalidHandler, DuplicateTask, InvalidJobSpec.
        """
        if handler is not None and not isinstance(handler, str):
            return self._register(Task(handler))

        def register(function: Callable[P, R]) -> Task[P, R]:
            task = Task(
                function,
                handler,
                queue_name=queue_name,
                priority=priority,
                max_attempts=max_attempts,
                flags=flags,
                retry=retry,
                retry_on=retry_on,
                give_up_on=give_up_on,
                retry_invalid=retry_invalid,
                timeout=timeout,
                around=around,
                concurrency=concurrency,
                limit=limit,
                rate=rate,
                keep_result=keep_result,
            )
            return self._register(task)

        return register

    def cron(
        self,
        pattern: str,
        payload: Any = None,
        *,
        identifier: str | None = None,
        backfill: timedelta = timedelta(0),
        tz: str | tzinfo | None = None,
        queue_name: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        job_key_mode: Literal["replace", "preserve_run_at"] | None = None,
    ) -> Callable[[Task[P, R]], Task[P, R]]:
        """Add a job for a task by the clock: `@cron("0 4 * * *")` above `@task`, and several times if need be.

        The arguments are those of CronItem; worker pools see to it. Raises InvalidCrontab, also for an identifier
        (the task's own, unless given) that another item has.
        """

        def schedule(task: Task[P, R]) -> Task[P, R]:
            if not isinstance(task, Task):
                raise InvalidHandler("@cron needs a task: write it above the @task of the handler")
            item = CronItem(
                pattern,
                task.identifier,
                payload,
                identifier=task.identifier if identifier is None else identifier,
                backfill=backfill,
                tz=tz,
                queue_name=queue_name,
                priority=priority,
                max_attempts=max_attempts,
                job_key=job_key,
                job_key_mode=job_key_mode,
            )
            self._schedule([item])
            return task

        return schedule

    def cron_items(self) -> list[CronItem]:
        """Return what the cron decorators asked for."""
        return list(self._cron_items)

    def include(self, other: Tasks) -> None:
        """Work on the tasks of another registry too, those it has and those it will have, by the clock too.

        Raises DuplicateTask, InvalidCrontab, and InvalidHandler for what is no registry.
        """
        if not isinstance(other, Tasks):
            raise InvalidHandler(f"include: expected a Tasks registry, got {type(other).__name__}; a Queue has .tasks")
        for task in other:
            self._check(task)
        if self is not other and self not in other._included_by:
            other._included_by.append(self)
        self._schedule(other.cron_items())
        for task in other:
            self._register(task)

    def bind(self, add_job: AddJob) -> None:
        """Let the handles of this registry, those to come too, add their jobs to that queue; the first one stays."""
        self._add_job = self._add_job or add_job
        for task in self:
            task.bind(add_job)

    def __getitem__(self, identifier: str) -> Task[Any, Any]:
        try:
            return self._tasks[identifier]
        except KeyError:
            raise UnknownTask(f"no task {identifier!r} is registered: decorate its handler with @queue.task") from None

    def get(self, identifier: str) -> Task[Any, Any] | None:
        """Return the task of that identifier, or None."""
        return self._tasks.get(identifier)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    def identifiers(self) -> list[str]:
        """Return the identifiers this registry has handlers for."""
        return list(self._tasks)

    def _register(self, task: Task[P, R]) -> Task[P, R]:
        self._check(task)
        for registry in self._reached():
            if task.limits or task.concurrency is not None:
                registry.limited[task.identifier] = task  # first: it is never claimed as one without
            registry._tasks[task.identifier] = task
            if registry._add_job is not None:
                task.bind(registry._add_job)
        return task

    def _schedule(self, items: list[CronItem]) -> None:
        together = {
            registry: check_identifiers({id(item): item for item in [*registry._cron_items, *items]}.values())
            for registry in self._reached()
        }
        for registry, checked in together.items():
            registry._cron_items = checked

    def _check(self, task: Task[Any, Any]) -> None:
        for registry in self._reached():
            if registry._tasks.get(task.identifier, task) is not task:
                raise DuplicateTask(
                    f"task {task.identifier!r} has a handler already: give one of them another identifier"
                )

    def _reached(self) -> list[Tasks]:
        """Return the registries that a task registered here belongs to: this one, and all that include it."""
        reached = [self]
        for registry in reached:  # grows while it is walked
            reached += [includer for includer in registry._included_by if includer not in reached]
        return reached


def check_around(around: object) -> Around | None:
    """Return what makes context managers for handlers, or None; raise InvalidHandler for what cannot be called."""
    if around is not None and not callable(around):
        raise InvalidHandler(
            f"around: expected a function that takes the context and returns a context manager, "
            f"got {type(around).__name__}"
        )
    return around
