"""How a worker runs a task of Django's: the handler that stands under the task's module path.

Signals are sent where they are for Django's own backends, in the thread that runs the task: task_finished only when it
is over, done or failed for good, and before that is written. A receiver that raises is logged, by Django, and harms
nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import psycopg
from asgiref.sync import async_to_sync
from django.db import Error
from django.utils import timezone

from graphile_worker_py.contrib.django.app_queue import queue
from graphile_worker_py.contrib.django.task_class import GraphileWorkerContext, run_options
from graphile_worker_py.contrib.django.task_options import TaskOptions
from graphile_worker_py.contrib.django.task_records import (
    Record,
    keep_attempt,
    plain,
    result_of_job,
    stored,
    traceback_in,
)
from graphile_worker_py.contrib.django.tasks_framework import (
    TaskError,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from graphile_worker_py.current import helped
from graphile_worker_py.errors import DuplicateTask, GraphileWorkerError, InvalidHandler, JobCancelled
from graphile_worker_py.results import as_json
from graphile_worker_py.retry import GiveUp
from graphile_worker_py.worker.context import JobContext
from graphile_worker_py.worker.executor import describe

LOOK_EVERY = 0.2  # seconds between looks whether a coroutine is to end

NOT_KEPT = (GraphileWorkerError, Error, psycopg.Error)  # over whichever connection the queue of a handler goes

logger = logging.getLogger(__name__)

_registering = threading.Lock()


class TaskHandler:
    """Run the jobs of one task of Django's; `task` is the one that stands under its path, as it is written there."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def __call__(self, payload: Any, ctx: JobContext) -> Any:
        """Run a job; return the record that is kept of it, None where none is."""
        return Attempt(self.task, ctx).run()


def register(task: Any, options: TaskOptions) -> None:
    """Let workers of this project run a task, under its module path; the newest function of a name counts.

    Raises DuplicateTask where the path is the identifier of another kind of task, and InvalidJobSpec.
    """
    with _registering:
        known = queue.tasks.get(task.module_path)
        if known is None:
            queue.task(task.module_path, **run_options(task, options))(TaskHandler(task))
        elif not isinstance(known.handler, TaskHandler):
            raise DuplicateTask(f"task {task.module_path!r} has a handler already, by @queue.task")
        elif known.handler.task.func is not task.func:
            known.handler.task = task


class Attempt:
    """One run of a task: its TaskResult, which changes with it. Raises InvalidPayload where it can have none."""

    def __init__(self, task: Any, ctx: JobContext) -> None:
        self._ctx = ctx
        self._registered = ctx.queue.tasks[ctx.job.task_identifier]
        self.result = result_of_job(task, ctx.job, self._record())
        self._sender = type(self.result.task.get_backend())

    def run(self) -> dict[str, Any] | None:
        """Call the function, and tell what comes of it; return what is kept, and raise what it raises."""
        task_started.send_robust(sender=self._sender, task_result=self.result)
        keeps = self._registered.keep_result is not None
        if keeps:  # a task that completes its job in a transaction has its record written by that, before it returns
            self._ctx.result = plain(self.result, done_at=timezone.now())
        try:
            returned = self._returned(self._called())
        except BaseException as error:
            self._fail(error)
            raise
        self._set(_return_value=returned, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now())
        kept = plain(self.result) if keeps and not self._ctx.completed else None
        task_finished.send_robust(sender=self._sender, task_result=self.result)
        return kept

    def _record(self) -> Record | None:
        """Return what earlier attempts have left, if results are kept, and there were any."""
        if self._registered.keep_result is None or self._ctx.job.attempts < 2:
            return None
        try:
            return stored(self._ctx.queue.database, self._ctx.job.id)[1]
        except NOT_KEPT as error:
            logger.warning("the earlier attempts of job %s are not known: %s", self._ctx.job.id, error)
            return None

    def _called(self) -> Any:
        result, ctx = self.result, self._ctx
        args = result.args
        if result.task.takes_context:
            args = [GraphileWorkerContext(task_result=result, job_context=ctx), *args]
        called = result.task.func(*args, **result.kwargs)
        if not isawaitable(called):
            return called
        helped.set(ctx.job)  # a coroutine runs in a thread of asgiref's, with a copy of this thread's context variables
        return async_to_sync(_finished)(called, ctx)

    def _returned(self, value: Any) -> Any:
        """Return a result as JSON has it; where results are kept, one that cannot be is no reason to run it again."""
        try:
            value = normalize_json(value)
            as_json(value)
        except (TypeError, ValueError, InvalidHandler) as error:
            if self._registered.keep_result is not None:
                raise GiveUp(f"the task returned what cannot be kept as JSON: {error}") from error
            return None
        return value

    def _fail(self, error: BaseException) -> None:
        ctx, result = self._ctx, self.result
        job = ctx.job
        verdict = self._registered.retry.or_else(ctx.queue.retry).verdict(error, job.attempts)
        final = verdict.final or isinstance(ctx.told, JobCancelled)
        if verdict.snoozed and not final:
            return
        kind = type(error)
        path, text = f"{kind.__module__}.{kind.__qualname__}", traceback_in(describe(error))
        result.errors.append(TaskError(exception_class_path=path, traceback=text))
        over = final or job.attempts >= job.max_attempts
        status = TaskResultStatus.FAILED if over else TaskResultStatus.READY
        self._set(status=status, finished_at=timezone.now() if over else None)
        self._keep()
        if over:
            task_finished.send_robust(sender=self._sender, task_result=result)

    def _keep(self) -> None:
        """Keep what is known of this attempt; that it cannot be is not to hide why the task failed."""
        keep_for, ctx = self._registered.keep_result, self._ctx
        if keep_for is not None:
            try:
                keep_attempt(ctx.queue.database, self.result, ctx.job, keep_for=keep_for)
            except NOT_KEPT as error:
                logger.warning("attempt %s of job %s is not kept: %s", ctx.job.attempts, ctx.job.id, error)

    def _set(self, **fields: Any) -> None:
        """Change the TaskResult, which is frozen for everybody else; Django's backends do it the same way."""
        for name, value in fields.items():
            object.__setattr__(self.result, name, value)


async def _finished(called: Awaitable[Any], ctx: JobContext) -> Any:
    """Await what a task's function returned, and cancel it when its job's time is over, or the job was cancelled.

    The worker's thread waits for it in a lock, where it could not be interrupted.
    """
    running = asyncio.ensure_future(called)
    while not running.done():
        await asyncio.wait({running}, timeout=LOOK_EVERY)
        if ctx.remaining == 0.0 and not running.done():
            running.cancel()
            await asyncio.wait({running})
            if running.cancelled():
                ctx.check_cancelled()
    return running.result()
