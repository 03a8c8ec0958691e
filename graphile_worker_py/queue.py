"""Queue: add jobs, administer them, install the schema, start workers. No SQL is decided here.

Everything defers to the shared SQL functions. The one import that goes up, to the worker, is made when run_worker
or run_once is called: the façade offers the whole job in one place, and a web process that only adds jobs never
loads the worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeAlias

from psycopg_pool import ConnectionPool

from graphile_worker_py import _administration, _running
from graphile_worker_py import migrate as migrations
from graphile_worker_py._adding import add_all, add_one, listed
from graphile_worker_py._cleaning import CleanupTask, clean_up
from graphile_worker_py._database import DEFAULT_SCHEMA, Database, all_or_nothing
from graphile_worker_py._running import Cancellation, Progress
from graphile_worker_py._together import Together
from graphile_worker_py.checks import (
    LARGEST_ID,
    check_integer,
    check_job_key_mode,
    check_seconds,
)
from graphile_worker_py.cron.crontab import CronItem
from graphile_worker_py.cron.known import KnownItems
from graphile_worker_py.events import Events
from graphile_worker_py.history import History
from graphile_worker_py.jobs import Job, JobKeyMode, JobSpec, RunSummary, TaskStats
from graphile_worker_py.listing import JobList, QueueInfo, WorkerInfo, queues_of, workers_of
from graphile_worker_py.results import Waiters
from graphile_worker_py.retry import DelayRule, ExceptionTypes, RetryPolicy
from graphile_worker_py.tasks import Around, AroundHelpers, Tasks, check_around

Source: TypeAlias = "str | ConnectionPool[Any] | None"
FlagSource: TypeAlias = Iterable[str] | Callable[[], Iterable[str] | None] | None


class Queue:
    """The jobs of one schema in one database, and the tasks this process works on.

    database: a conninfo or URL, a psycopg_pool.ConnectionPool, or None for DATABASE_URL, else libpq's PG* variables,
    read on first use. schema: None reads GRAPHILE_WORKER_SCHEMA, else graphile_worker. max_size: connections at most,
    opened when needed; min_size of them stay open when idle, all for max_lifetime seconds. connect_timeout: seconds to
    wait for a connection; statement_timeout: for a sign of life during a statement, None for ever. prepared_statements:
    of what is run often; never through a pooler. listen: where a worker hears of new jobs, True (this database), a
    conninfo, or False (nowhere: it polls); None reads GRAPHILE_WORKER_LISTEN, a conninfo or "off". retry, retry_on,
    give_up_on: of tasks that do not say it themselves, see Tasks.task. around: called with a handler's JobContext, it
    returns a context manager, entered around each handler call. Safe in threads and after a fork. Raises
    InvalidSchemaName, InvalidConninfo; every method may raise SchemaMissing and psycopg's errors.
    """

    for_handlers: Queue | None = None  # what their contexts offer in place of this one
    around_helpers: AroundHelpers = nullcontext  # entered in a helper thread around what it does for a handler

    def __init__(
        self,
        database: Source = None,
        *,
        schema: str | None = None,
        min_size: int = 1,
        max_size: int = 10,
        max_lifetime: float = 600.0,
        connect_timeout: float = 5.0,
        statement_timeout: float | None = 20.0,
        prepared_statements: bool = True,
        listen: str | bool | None = None,
        retry: DelayRule | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        around: Around | None = None,
    ) -> None:
        if statement_timeout is not None:
            check_seconds("statement_timeout", statement_timeout, shortest=0.1)
        self._options = {
            "min_size": check_integer("min_size", min_size, lowest=0, highest=10_000),
            "max_size": check_integer("max_size", max_size, lowest=1, highest=10_000),
            "max_lifetime": check_seconds("max_lifetime", max_lifetime, shortest=1),
            "connect_timeout": check_seconds("connect_timeout", connect_timeout, shortest=0.01),
            "statement_timeout": statement_timeout,
            "prepared_statements": prepared_statements,
        }
        self.tasks = Tasks()
        self.tasks.bind(self.add_job)
        self.task = self.tasks.task
        self.cron = self.tasks.cron
        self.events = Events()
        self.retry = RetryPolicy(retry, retry_on, give_up_on)
        self.around = check_around(around)
        schema = schema if schema is not None else os.environ.get("GRAPHILE_WORKER_SCHEMA") or DEFAULT_SCHEMA
        self._use(self._connected_to(database, schema, listen))

    def _use(self, database: Database) -> None:
        self.database = database
        self._together = Together(database)
        self._waiters = Waiters(database)

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Queue schema={self.schema!r} tasks={len(self.tasks)}>"

    @property
    def schema(self) -> str:
        """Return the name of the schema."""
        return self.database.schema

    @property
    def crontab(self) -> KnownItems:
        """Return what lists, pauses and resumes the cron items of this schema, and runs one now."""
        return KnownItems(self.database, self.tasks)

    @property
    def history(self) -> History:
        """Return what lists the runs of pools that keep a history, when called: `queue.history(task="charge")`."""
        return History(self.database)

    @property
    def jobs(self) -> JobList:
        """Return what lists jobs, when called, and counts them: `queue.jobs(state="failed")`, `queue.jobs.count()`."""
        return JobList(self.database)

    def point_at(self, database: Source, *, schema: str | None = None, listen: str | bool | None = None) -> None:
        """Move this queue to another database (None: as the environment says), its tasks and handles with it.

        `listen` is then as if the queue were made anew; in the same database it stays, unless it is given.
        """
        if listen is None and database == self.database.source:
            listen = self.database.listen_on
        self.database.close()
        self._use(self._connected_to(database, self.schema if schema is None else schema, listen))

    @contextmanager
    def elsewhere(self, database: Database) -> Iterator[None]:
        """Do everything on another Database in the block, with the tasks' handles; for one thread, in tests."""
        before = self.database, self._together, self._waiters
        self._use(database)
        try:
            yield
        finally:
            self.database, self._together, self._waiters = before

    def close(self) -> None:
        """Close the pool, unless it was given; the next use opens a new one."""
        self.database.close()

    def migrate(self) -> list[int]:
        """Install the schema or bring it up to date; return the numbers of the migrations that were applied.

        Raises SchemaTooOld, SchemaTooNew, NotSupported. Many at once, Node's included, do no harm.
        """
        return migrations.migrate(self.database)

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
        """Add one job and return it as stored; the arguments are described at AddJob.

        With a job_key that waits already, the stored job is the old one, changed as job_key_mode says. Raises
        InvalidJobSpec before anything is sent.
        """
        spec = JobSpec(
            identifier,
            payload,
            queue_name=queue_name,
            run_at=run_at,
            priority=priority,
            max_attempts=max_attempts,
            job_key=job_key,
            flags=flags,
        )
        check_job_key_mode(job_key_mode, job_key)
        spec = self._with_defaults(spec)
        if connection is None and job_key is None:
            return self._together.add(spec)
        with self.database.connection(connection) as conn:
            return add_one(self.database, conn, spec, job_key_mode=job_key_mode)

    def add_jobs(
        self,
        specs: Iterable[JobSpec],
        *,
        job_key_preserve_run_at: bool = False,
        connection: object = None,
        on_progress: Callable[[int], object] | None = None,
        return_jobs: bool = True,
    ) -> list[Job]:
        """Add many jobs in one transaction and return them in the order given: all of them, or none.

        specs may be a generator: it is read in chunks. Two specs of one key behave as if added one after the other.
        on_progress is called with how many were added so far. Both are called inside the transaction: what they add
        themselves over another connection may wait for it, for ever. job_key_preserve_run_at: keyed jobs that wait,
        untried, keep their run_at. return_jobs=False: returns [], for millions that need no memory. Raises
        InvalidJobSpec.
        """
        jobs: list[Job] = []
        count = 0
        asked = map(self._with_defaults, listed("specs", specs))
        with self.database.connection(connection) as conn, all_or_nothing(conn), ExitStack() as stack:
            if connection is None:  # on a connection of the caller's, what the specs come from may need it as it is
                stack.enter_context(conn.pipeline())
            for added in add_all(self.database, conn, asked, preserve_run_at=job_key_preserve_run_at):
                jobs += added if return_jobs else ()
                count += len(added)
                if on_progress is not None:
                    on_progress(count)
        return jobs

    def remove_job(self, job_key: str, *, connection: object = None) -> Job | None:
        """Delete the job of a key and return it; None where no job has the key.

        A job that is running loses its key and its further attempts instead, and is returned as it then is.
        """
        return _administration.remove_job(self.database, job_key, connection=connection)

    def complete_jobs(self, ids: Iterable[int], *, connection: object = None) -> list[Job]:
        """Delete jobs as if they were done, but for those running (locked within four hours); return the deleted."""
        return _administration.complete_jobs(self.database, ids, connection=connection)

    def permanently_fail_jobs(
        self, ids: Iterable[int], reason: str | None = None, *, connection: object = None
    ) -> list[Job]:
        """Use up all attempts of jobs that are not running, with a reason for last_error; return the changed ones."""
        return _administration.fail_jobs(self.database, ids, reason=reason, connection=connection)

    def reschedule_jobs(
        self,
        ids: Iterable[int],
        *,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        connection: object = None,
    ) -> list[Job]:
        """Change jobs that are not running; what is None stays, run_at too. Return the changed ones as they now are."""
        numbers = {"priority": priority, "attempts": attempts, "max_attempts": max_attempts}
        return _administration.reschedule_jobs(
            self.database, ids, run_at=run_at, numbers=numbers, connection=connection
        )

    def run_jobs_now(self, ids: Iterable[int], *, connection: object = None) -> list[Job]:
        """Make jobs that are not running due, failed ones with all their attempts anew; return those that are due now.

        One that is due already keeps its place. Workers are woken.
        """
        return _administration.run_jobs_now(self.database, ids, connection=connection)

    def force_unlock_workers(self, ids: Iterable[str], *, connection: object = None) -> None:
        """Free all jobs and queues these workers hold, without asking whether they live: make sure they are dead."""
        _administration.unlock(self.database, ids, connection=connection)

    def cleanup(
        self, tasks: Iterable[CleanupTask] = ("GC_JOB_QUEUES",), *, keep_tasks: Iterable[str] = ()
    ) -> dict[CleanupTask, int]:
        """Delete what is of no more use and return how many rows of each.

        DELETE_PERMAFAILED_JOBS: jobs without attempts left. GC_JOB_QUEUES: queues without jobs. GC_TASK_IDENTIFIERS:
        task names without jobs, but for this queue's tasks and keep_tasks; not while Node workers run, which remember
        the ids. Waits up to two seconds for transactions that are adding jobs, then raises psycopg's LockNotAvailable.
        """
        return clean_up(self.database, tasks, keep=[*self.tasks.identifiers(), *listed("keep_tasks", keep_tasks)])

    def queues(
        self, *, locked: bool | None = None, limit: int = 100, after: str | None = None, patience: float | None = None
    ) -> list[QueueInfo]:
        """Return up to `limit` (1 to 10,000) named queues in the order of their names, after the name `after`.

        locked: only those that are held, or are not. Their jobs are counted for `patience` seconds at most.
        """
        return queues_of(self.database, locked=locked, limit=limit, after=after, patience=patience)

    def workers(self, *, patience: float | None = None) -> list[WorkerInfo]:
        """Return the worker pools of this library, and whoever else holds jobs or queues.

        The jobs they hold are counted for `patience` seconds at most.
        """
        return workers_of(self.database, patience=patience)

    def job(self, id: int) -> Job | None:
        """Return the job of that id with its payload, or None: a job that is done has no row."""
        check_integer("id", id, lowest=-LARGEST_ID, highest=LARGEST_ID)
        rows = self.database.run("one_job", {"id": id})
        return Job(*rows[0]) if rows else None

    def wait_for(self, job: Job | int, timeout: float | None = None) -> Any:
        """Wait until a job, or that of an id, is over; return its result, None where its task keeps none.

        timeout: in seconds; None waits for ever. A job that keeps no result is over when its row is gone: done, or
        removed by somebody. Raises TimeoutError, JobFailedForGood, and ResultMissing where the task of a Job that is
        given keeps results, as is known here, and there is none. The job must have been committed.
        """
        return self._waiters.wait_for(job, timeout, tasks=self.tasks)

    def cancel(self, id: int, reason: str | None = None, *, connection: object = None) -> Cancellation:
        """End a job and say what it was: one that waits never runs, one that runs is told to end, wherever it does.

        Either has then failed for good, with the reason in last_error. A running job's handler sees ctx.cancelled
        within a second, and is interrupted a second later; one that completes all the same is done.
        """
        return self.cancel_jobs([id], reason, connection=connection)[id]

    def cancel_jobs(
        self, ids: Iterable[int], reason: str | None = None, *, connection: object = None
    ) -> dict[int, Cancellation]:
        """Cancel many jobs at once, as `cancel` does one, and say for each id what it was."""
        return _running.cancel(self.database, listed("ids", ids), reason=reason, connection=connection)

    def set_timeout(self, id: int, timeout: timedelta | float | None, *, connection: object = None) -> bool:
        """Give one job its own limit in place of its task's, None for no limit; say whether there is such a job.

        It counts from the start of each attempt, also of one that runs. A worker knows of it a second later.
        Raises SchemaMissing, NotSupported where the role that migrated could not make our own tables.
        """
        return _running.set_timeout(self.database, id, timeout, connection=connection)

    def progress(self, id: int) -> Progress | None:
        """Return what a job's handler has told last by ctx.progress; None if it told nothing, or the job is done."""
        return _running.progress(self.database, id)

    def stats(self, *, idle: bool = False) -> list[TaskStats]:
        """Return how many jobs of each task are ready, scheduled, running, retrying and failed; reads every row.

        `idle`: with tasks that have no job.
        """
        return [TaskStats(*row) for row in self.database.run("count_by_task", {"idle": idle})]

    def run_worker(
        self,
        concurrency: int = 8,
        *,
        poll_interval: float = 2.0,
        grace: float = 30.0,
        helper_threads: int | None = None,
        forbidden_flags: FlagSource = None,
        crontab: str | os.PathLike[str] | Iterable[CronItem] | None = None,
        history: timedelta | None = None,
    ) -> list[Job]:
        """Work until SIGTERM or SIGINT; the arguments, and what is returned, are those of WorkerPool and its run()."""
        from graphile_worker_py.worker.pool import WorkerPool

        return WorkerPool(
            self,
            concurrency,
            poll_interval=poll_interval,
            grace=grace,
            helper_threads=helper_threads,
            forbidden_flags=forbidden_flags,
            crontab=crontab,
            history=history,
        ).run()

    def run_once(
        self, concurrency: int = 8, *, helper_threads: int | None = None, forbidden_flags: FlagSource = None
    ) -> RunSummary:
        """Run what is ready now, and what that makes ready, and return a summary; later jobs are not waited for."""
        from graphile_worker_py.worker.pool import WorkerPool

        return WorkerPool(self, concurrency, helper_threads=helper_threads, forbidden_flags=forbidden_flags).run_once()

    def _with_defaults(self, spec: JobSpec) -> JobSpec:
        task = self.tasks.get(spec.identifier) if isinstance(spec, JobSpec) else None
        return spec if task is None else task.complete_spec(spec)

    def _connected_to(self, database: Source, schema: str, listen: str | bool | None) -> Database:
        return Database(database, schema=schema, listen=listen, **self._options)  # type: ignore[arg-type]
