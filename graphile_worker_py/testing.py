"""For tests of code that adds jobs and of handlers: run what is due, see what was enqueued, have a schema to do it in.

Nothing here needs pytest. The fixtures are in pytest_graphile_worker_py.py, outside the package, because pytest imports
its plugins at every start, also in tests of something else, and this package takes longer to import than pytest.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

import attrs
import psycopg

from graphile_worker_py import _payload, migrate
from graphile_worker_py._database import Database
from graphile_worker_py._one_connection import OneConnection
from graphile_worker_py._payload_differences import differences, shown
from graphile_worker_py.checks import check_integer, check_text
from graphile_worker_py.embedded import EmbeddedPostgres
from graphile_worker_py.errors import GraphileWorkerError, NotSupported
from graphile_worker_py.events import JobCompleted, JobFailed
from graphile_worker_py.jobs import Job
from graphile_worker_py.queue import Queue
from graphile_worker_py.tasks import Task
from graphile_worker_py.worker.executor import own_frames
from graphile_worker_py.worker.inline import InlineWorker

PATIENCE = 10.0  # seconds to wait for the locks of a schema that is to be dropped
MOST_SHOWN = 5  # jobs that an assertion's message compares

AnyTask: TypeAlias = str | Task[Any, Any]


@attrs.frozen
class Drained:
    """What a drain() ran, in order: all of it, what was completed, what failed, each failure as its JobFailed.

    What was snoozed is in `ran` alone. `without_handler`: identifiers of jobs that are due, and were left alone because
    no task is registered for them.
    """

    ran: tuple[Job, ...]
    completed: tuple[Job, ...]
    failed: tuple[JobFailed, ...]
    without_handler: tuple[str, ...]

    @property
    def tasks(self) -> list[str]:
        """Return the identifiers of the tasks that ran, in order."""
        return [job.task_identifier for job in self.ran]


class Drain(Protocol):
    """The fixture `drain`: the function of that name, for the queue of the test."""

    def __call__(
        self,
        *,
        connection: object = None,
        within: timedelta = timedelta(0),
        raise_errors: bool = True,
        at_most: int = 1000,
    ) -> Drained:
        """Run due jobs; see drain()."""
        ...


class Enqueued(Protocol):
    """The fixture `enqueued`: the function of that name, for the queue of the test."""

    def __call__(self, task: AnyTask, payload: Any = None, /, **fields: Any) -> list[Job]:
        """Return the jobs of a task that wait, with at least that payload and these fields; see enqueued()."""
        ...


class AssertEnqueued(Protocol):
    """The fixture `assert_enqueued`: the function of that name, for the queue of the test."""

    def __call__(self, task: AnyTask, payload: Any = None, /, **fields: Any) -> Job:
        """Return the first job of a task with at least that payload and these fields; see assert_enqueued()."""
        ...


def drain(
    queue: Queue,
    *,
    connection: object = None,
    within: timedelta = timedelta(0),
    raise_errors: bool = True,
    at_most: int = 1000,
) -> Drained:
    """Run the jobs that are due, and those that become due by it, one after the other in this thread.

    connection: do all of it on this one, in its transaction. within: also run what is due within that time, retries
    too, in the order in which time would bring it. raise_errors: raise the first exception of a handler as soon as its
    failure is written; else go on, and return all failures. at_most: so many jobs, lest a handler that adds itself runs
    for ever. Raises UnknownTask where no task is registered, GraphileWorkerError where at_most were run.
    """
    __tracebackhide__ = True
    check_integer("at_most", at_most, lowest=1, highest=1_000_000)
    worker = InlineWorker(queue, connection=connection)
    ran: list[Job] = []
    completed: list[Job] = []
    failed: list[JobFailed] = []
    for _ in range(at_most):
        # Where a transaction has been open for long, a retry counts from its beginning and may be due at once.
        settled = worker.run_next(within=within, tried=() if within else [job.id for job in ran])
        if settled is None:
            return Drained(tuple(ran), tuple(completed), tuple(failed), tuple(worker.without_handler()))
        ran.append(settled.job)
        if isinstance(settled, JobCompleted):
            completed.append(settled.job)
        elif isinstance(settled, JobFailed):
            failed.append(settled)
            if raise_errors:
                raise _error_of(settled)
    raise GraphileWorkerError(
        f"{at_most} jobs were run, the last of {ran[-1].task_identifier!r}, and more may be due: "
        "does a handler add its own job again? If so many are meant, call drain(at_most=...)"
    )


def enqueued(queue: Queue, task: AnyTask, payload: Any = None, /, **fields: Any) -> list[Job]:
    """Return the jobs of a task that wait, to be run now or later, whose payload has at least what is given.

    A dict has to have the keys given, in dicts within it too; anything else has to be equal, as add_job would store it.
    A batch job fits if its list is equal, or if one of its items has the fields.
    """
    return [job for job in _waiting(queue, task) if not differences(_wanted(payload, fields), job.payload)]


def assert_enqueued(queue: Queue, task: AnyTask, payload: Any = None, /, **fields: Any) -> Job:
    """Return the first job that enqueued() finds; raise AssertionError, which shows what differs, if there is none."""
    __tracebackhide__ = True
    wanted = _wanted(payload, fields)
    compared = [(job, differences(wanted, job.payload)) for job in _waiting(queue, task)]
    for job, different in compared:
        if not different:
            return job
    raise AssertionError(_unlike(wanted, task, compared) if compared else _none_waits(queue, task))


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the conninfo of a server for tests: DATABASE_URL, else one that is started for it; raise NotSupported."""
    url = os.environ.get("DATABASE_URL")
    if url:
        yield url
        return
    with ExitStack() as stack:
        try:
            server = stack.enter_context(EmbeddedPostgres())
        except NotSupported as error:
            raise NotSupported(f"tests need a PostgreSQL: set DATABASE_URL to one. Without it, {error}") from error
        yield server.url


@contextmanager
def schema_of_its_own(conninfo: str) -> Iterator[str]:
    """Install a schema with a new name and yield that; at the end drop it, with all the jobs in it."""
    schema = f"graphile_worker_test_{secrets.token_hex(6)}"
    database = Database(conninfo, schema=schema, statement_timeout=PATIENCE, listen=False)
    migrate.migrate(database)
    try:
        yield schema
    finally:
        _drop(database)


@contextmanager
def placed(queue: Queue, conninfo: str) -> Iterator[None]:
    """Let a queue use a schema of its own in the block, with what its module-level tasks and handles add."""
    with (
        schema_of_its_own(conninfo) as schema,
        closing(Database(conninfo, schema=schema, listen=True)) as database,
        queue.elsewhere(database),
    ):
        yield


@contextmanager
def placed_on(queue: Queue, connection: object, schema: str) -> Iterator[None]:
    """Let a queue do everything on one connection in the block, as a part of its transaction; raise SchemaMissing."""
    database = OneConnection(connection, schema=schema)
    migrate.check(database)
    with queue.elsewhere(database):
        yield


class Schemas:
    """The schemas of tests that roll back, and so can share them: one to a database, made when it is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._names: dict[str, str] = {}

    def of(self, conninfo: str) -> str:
        """Return the name of the schema in a database."""
        if conninfo not in self._names:
            self._names[conninfo] = self._stack.enter_context(schema_of_its_own(conninfo))
        return self._names[conninfo]

    def close(self) -> None:
        """Drop them."""
        self._stack.close()


def _drop(database: Database) -> None:
    with closing(database.connect()) as connection:
        try:
            database.run_on(connection, "drop_schema")
        except (psycopg.errors.QueryCanceled, psycopg.OperationalError) as error:
            raise GraphileWorkerError(
                f"schema {database.schema!r} could not be dropped in {PATIENCE:g} s, and stays: something the test "
                "left open, a transaction or a thread, still uses it"
            ) from error


def _error_of(event: JobFailed) -> BaseException:
    """Return what the handler raised, with the frames of its own and a note that names the job."""
    job = event.job
    error = event.exception or GraphileWorkerError(event.error)
    error = error.with_traceback(own_frames(error))
    note = f"raised by job {job.id} ({job.task_identifier}), attempt {job.attempts} of {job.max_attempts}"
    add_note: Callable[[str], None] | None = getattr(error, "add_note", None)  # from Python 3.11 on
    if add_note is not None:
        add_note(note if event.remaining is None else f"{note}: {event.error.partition(chr(10))[0]}")
    return error


def _identifier(task: AnyTask) -> str:
    return check_text("task", task.identifier if isinstance(task, Task) else task, shortest=1, longest=128)


def _waiting(queue: Queue, task: AnyTask) -> list[Job]:
    return [Job(*row) for row in queue.database.run("waiting_jobs", {"task": _identifier(task)})]


def _wanted(payload: Any, fields: Mapping[str, Any]) -> Any:
    """Return what is asked for as add_job would store it; {} asks for nothing."""
    wanted = {} if payload is None else json.loads(_payload.encode(payload))
    if not fields:
        return wanted
    if not isinstance(wanted, dict):
        raise TypeError("fields can be asked for of a payload that is an object only: give either them or a payload")
    return wanted | json.loads(_payload.encode(fields))


def _unlike(wanted: Any, task: AnyTask, compared: list[tuple[Job, list[str]]]) -> str:
    nearest = sorted(compared, key=lambda pair: len(pair[1]))[:MOST_SHOWN]
    name, asked, count = repr(_identifier(task)), shown(wanted), len(compared)
    many = f"none of the {count} waiting jobs of {name} fits {asked}"
    lines = [many if count > 1 else f"the waiting job of {name} does not fit {asked}"]
    for job, different in nearest:
        lines += ["", f"job {job.id}:", *(f"    {line}" for line in different)]
    if len(compared) > len(nearest):
        lines += ["", f"and {len(compared) - len(nearest)} more, which differ in no fewer places"]
    return "\n".join(lines)


def _none_waits(queue: Queue, task: AnyTask) -> str:
    identifier = _identifier(task)
    text = f"no job of {identifier!r} waits"
    others = []
    for stats in queue.stats():
        waiting = stats.ready + stats.scheduled + stats.retrying
        if stats.identifier == identifier:
            text += f" ({stats.failed} failed for good, {stats.running} running)"
        elif waiting:
            others.append(f"{stats.identifier} ({waiting})")
    return f"{text}; of other tasks: {', '.join(others) or 'none'}"
