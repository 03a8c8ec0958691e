"""GraphileWorker: one set of tasks for any number of applications, each with a queue of its own.

The queue belongs to the application and its configuration, so that tests and factories may make as many as they like;
which one is meant is asked at each call, of the application context. The tasks belong to the module that has them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any

import attrs
from flask import Flask, current_app

from graphile_worker_py.contrib.flask import settings
from graphile_worker_py.contrib.flask.command_line import NAME, worker_command
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.jobs import Job, JobKeyMode
from graphile_worker_py.queue import Queue
from graphile_worker_py.tasks import Around, Tasks, check_around


class NotInitialized(GraphileWorkerError, RuntimeError):
    """Say that an application, or the extension, does not know of the other yet, or knows another."""


@attrs.frozen
class Attached:
    """What an application keeps of the extension: which it is, its queue, and the options of `flask worker run`."""

    extension: GraphileWorker
    queue: Queue
    run: Mapping[str, Any]


class GraphileWorker:
    """The extension: `GraphileWorker(app)`, or `worker = GraphileWorker()` and later `worker.init_app(app)`.

    Each handler, and what a helper thread does for one, is called in an application context of its own. `task` and
    `cron` are the decorators of `tasks`, the registry that all applications work on.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.tasks = Tasks()
        self.tasks.bind(self.add_job)
        self.task = self.tasks.task
        self.cron = self.tasks.cron
        self._app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read app.config, give the application its queue and the command `flask worker`; nothing is connected to.

        Raises InvalidSetting for what is wrong in app.config, NotInitialized where there is an extension already.
        """
        if NAME in app.extensions:
            raise NotInitialized(f"app {app.name!r} has a GraphileWorker already: call init_app once for each app")
        read = settings.read(app.config)
        try:
            around = _in_context(app, check_around(read.queue.get("around")))
            queue = Queue(read.database, **{**read.queue, "around": around})
        except (GraphileWorkerError, TypeError) as error:
            raise settings.InvalidSetting(f"app.config has a value that the queue cannot use: {error}") from error
        # Shared and not included: a registry holds on to those that include it, and applications come and go.
        queue.tasks, queue.task, queue.cron = self.tasks, self.task, self.cron
        queue.around_helpers = app.app_context
        app.extensions[NAME] = Attached(self, queue, read.run)
        app.cli.add_command(worker_command)
        weakref.finalize(app, queue.database.close)

    @property
    def queue(self) -> Queue:
        """Return the queue of the current application; outside of a context that of GraphileWorker(app).

        Raises NotInitialized where there is none.
        """
        app = current_app._get_current_object() if current_app else self._app  # type: ignore[attr-defined]
        if app is None:
            raise NotInitialized(
                "which application's queue? There is no application context: use it in a view or a job, or in "
                "`with app.app_context():`"
            )
        attached = app.extensions.get(NAME)
        if attached is None or attached.extension is not self:
            raise NotInitialized(f"app {app.name!r} does not know this GraphileWorker: call init_app(app) first")
        queue: Queue = attached.queue
        return queue

    def include(self, tasks: Tasks) -> None:
        """Work on the tasks of a library's registry too. Raises DuplicateTask."""
        self.tasks.include(tasks)
        tasks.bind(self.add_job)

    def add_job(
        self,
        identifier: str,
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
        """Add a job to the queue of the current application; see `Queue.add_job`. connection: `db.session`, say."""
        return self.queue.add_job(
            identifier,
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


def _in_context(app: Flask, around: Around | None) -> Callable[[Any], AbstractContextManager[object]]:
    """Return what has a handler called in an application context, and within that in the manager that was given."""

    @contextmanager
    def entered(context: Any) -> Iterator[None]:
        with app.app_context(), around(context) if around is not None else nullcontext():
            yield

    return entered
