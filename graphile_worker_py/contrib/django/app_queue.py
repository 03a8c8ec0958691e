"""The queue of a Django project: what is added or asked for goes over Django's connection of the calling thread.

So it is part of the transaction that the ORM is in, on every backend for PostgreSQL, and takes no second connection.
The worker is another thing: its threads claim jobs and write outcomes beside what handlers do, so it has a queue with
connections of its own, and the same tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from graphile_worker_py._database import Database
from graphile_worker_py._own_connection import AnyConnection
from graphile_worker_py._watched import Watched
from graphile_worker_py.checks import LARGEST_ID
from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.connection_care import cared_for, fresh_connections
from graphile_worker_py.errors import NotSupported, SchemaMissing
from graphile_worker_py.queue import Queue, Source


class AppDatabase(Database):
    """Run every statement on the connection that Django has for this thread under an alias; None: nobody knows yet."""

    shares_adds = False  # each thread has a transaction of its own

    def __init__(self, alias: str | None, *, schema: str) -> None:
        super().__init__(None, schema=schema, listen=False)
        self._alias = alias

    @contextmanager
    def connection(self, given: object = None) -> Iterator[AnyConnection]:
        """Lend Django's connection, opened if need be; raise TransactionManagementError in a broken atomic block."""
        try:
            with super().connection(connections[self._known_alias()] if given is None else given) as connection:
                yield connection
        except SchemaMissing as error:
            raise SchemaMissing(
                f"schema {self.schema!r} is not in the database {self._alias!r}, or not visible to this role: "
                f"run {conf.how_to_migrate(self._alias)}"
            ) from error

    def connect(self) -> Watched:
        """Open a connection of its own, which sees nothing of a transaction that is open here; to migrate, say."""
        return Database(conf.conninfo(self._known_alias()), schema=self.schema).connect()

    def another(self, *, max_size: int) -> NoReturn:
        """Refuse, as pool() does."""
        self._refuse()

    def pool(self) -> NoReturn:
        """Refuse: Django's connections belong to the threads that opened them."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotSupported(
            "this queue is on Django's connections, which a worker cannot use: run `manage.py graphile_worker`, "
            "or give a WorkerPool the queue that graphile_worker_py.contrib.django.worker_queue() makes"
        )

    def _known_alias(self) -> str:
        if self._alias is None:
            conf.options()  # raises what is wrong with them
            raise ImproperlyConfigured(
                f"the job queue was used before Django was ready: add {conf.APP!r} to INSTALLED_APPS, "
                "and call django.setup() in a script of your own"
                if not apps.is_installed(conf.APP)
                else "the job queue was used before Django was ready: use it in functions, and not at import"
            )
        return self._alias


class AppQueue(Queue):
    """The Queue of a Django project, made by an import, and told where its jobs are by configure()."""

    def configure(self) -> None:
        """Read the settings, when the apps are ready and when a test changes them.

        A mistake in them is told by a check, and by whatever is done with the queue.
        """
        try:
            options = conf.options()
        except ImproperlyConfigured:
            self._use(AppDatabase(None, schema=self.schema))
            return
        settings = Queue(schema=options.schema, **options.queue)
        self.retry, self.around = settings.retry, settings.around
        self._use(AppDatabase(options.alias, schema=options.schema))

    def _connected_to(self, database: Source, schema: str, listen: str | bool | None) -> Database:
        return AppDatabase(None, schema=schema) if database is None else super()._connected_to(database, schema, listen)


queue = AppQueue()
task = queue.task


def job_id(text: str) -> int | None:
    """Return the id of a job, as somebody has typed it; None for what can be none."""
    short = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID))  # Python reads no 5,000 digits
    return number if short and (number := int(text)) <= LARGEST_ID else None


def worker_queue() -> Queue:
    """Return a Queue with connections of its own for a worker of the project: the same tasks, and events.

    It is in the same database and schema, and takes care of Django's connections around every job.
    """
    options = conf.options()
    arguments = {**options.queue, "around": cared_for(queue.around)}
    made = Queue(conf.conninfo(options.alias), schema=options.schema, **arguments)
    made.include(queue.tasks)
    made.events = queue.events
    made.for_handlers = queue
    made.around_helpers = fresh_connections
    return made
