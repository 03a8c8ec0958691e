"""Tasks by their paths: Django has no list of them, so one that nobody has imported is found when a job names it.

<app>/tasks.py is imported at the start, and whatever imports a task registers it. A job may name one all the same that
this process has not seen: it is written in another module, and was enqueued by another process. So a worker looks, when
it starts and now and then, for identifiers that it does not know, and imports them, if they are of a module of an
installed app: what stands in a table does not decide what else is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.apps import apps
from django.db import Error

from graphile_worker_py._service import Service
from graphile_worker_py.contrib.django.app_queue import queue
from graphile_worker_py.contrib.django.connection_care import closed_again
from graphile_worker_py.contrib.django.task_runs import TaskHandler
from graphile_worker_py.contrib.django.tasks_framework import Task
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.events import PoolStarted, PoolStopped

LOOK_EVERY = 10.0  # seconds

logger = logging.getLogger(__name__)


def find_task(path: str) -> Any:
    """Return the task of that module path, imported if it is of an installed app; None if there is none."""
    known = queue.tasks.get(path)
    if known is None:
        module, _, name = path.rpartition(".")
        if not module or apps.get_containing_app_config(path) is None:
            return None
        try:
            found = getattr(import_module(module), name, None)
        except (Exception, SystemExit) as error:  # the latter of a script, which ends when it is done
            logger.warning("jobs of the task %s stay where they are, for it cannot be imported: %s", path, error)
            return None
        known = queue.tasks.get(path)  # its module may have it under another name
        if known is None:
            return found if isinstance(found, Task) else None
    return known.handler.task if isinstance(known.handler, TaskHandler) else None


class Finder(Service):
    """Looks, for as long as a worker runs, for tasks that jobs name and nobody has imported, and registers them."""

    def __init__(self, register: Callable[[Any], None]) -> None:
        super().__init__("finder of tasks")
        self._register = register
        self._seen: set[str] = set()  # what was looked for once: a module is imported once, too

    def step(self) -> float:
        """Look once; return when to look again. An outage is the pool's to tell of."""
        try:
            with closed_again():  # the first look is in somebody's thread, and this one has nothing else to ask
                self.look()
        except (Error, GraphileWorkerError) as error:
            logger.debug("no look for tasks: %s", error)
        return LOOK_EVERY

    def look(self) -> None:
        """Look for identifiers that have no handler here, and register the tasks that they name."""
        known = [*queue.tasks.identifiers(), *self._seen]
        for (identifier,) in queue.database.run("unknown_tasks", {"known": known}):
            self._seen.add(identifier)
            task = find_task(identifier)
            if task is not None:
                self._register(task)
                logger.info("found the task %s", identifier)


def find_while_working(register: Callable[[Any], None]) -> None:
    """Have a Finder beside each worker pool of this process: its first look is over when the pool takes jobs."""
    finders: dict[str, Finder] = {}

    def start(event: PoolStarted) -> None:
        finder = finders[event.pool_id] = Finder(register)
        finder.step()
        finder.start()

    def stop(event: PoolStopped) -> None:
        finder = finders.pop(event.pool_id, None)
        if finder is not None:
            finder.stop()

    queue.events.subscribe(PoolStarted, start)
    queue.events.subscribe(PoolStopped, stop)
