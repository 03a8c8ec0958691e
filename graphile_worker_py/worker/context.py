"""What a handler may ask for: its job, helper threads, jobs to add, a transaction in which the job is completed.

Nothing here touches the database unless a handler asks for it.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import attrs
import psycopg
from psycopg.pq import TransactionStatus

from graphile_worker_py._database import Connection, Database
from graphile_worker_py._own_connection import AnyConnection, is_pipelined, own_connection
from graphile_worker_py._running import check_progress
from graphile_worker_py.current import helped
from graphile_worker_py.errors import (
    GraphileWorkerError,
    InvalidJobSpec,
    JobCancelled,
    JobNotHeld,
    JobTimeout,
    NotSupported,
    SchemaMissing,
)
from graphile_worker_py.jobs import Job, JobKeyMode, JobSpec, Kind, Outcome
from graphile_worker_py.queue import Queue
from graphile_worker_py.results import CHANNEL, as_json
from graphile_worker_py.tasks import AroundHelpers

T = TypeVar("T")
U = TypeVar("U")


class Helpers:
    """A bounded pool of threads that handlers may share work out to; its threads start on first use.

    Work submitted from within the pool runs at once in the same thread: a helper that waited for another helper
    could otherwise wait for ever once all are taken. So does all work where the size is 0. `around` makes what is
    entered around each call in a thread of the pool.
    """

    def __init__(self, size: int, *, around: AroundHelpers = nullcontext) -> None:
        self._size = size
        self._around = around
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._here = threading.local()

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run function(*args, **kwargs) in a helper thread, in a copy of the caller's context variables."""
        call = contextvars.copy_context().run
        if not self._size or getattr(self._here, "helping", False):
            return _call_now(call, function, *args, **kwargs)
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._size, "graphile-worker-py helper", self._mark)
            return self._executor.submit(call, self._within, function, *args, **kwargs)

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    def _mark(self) -> None:
        self._here.helping = True

    def _within(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        with self._around():
            return function(*args, **kwargs)


def _helping(job: Job, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call the function as a part of the job; the thread calls in a copy of the handler's context variables."""
    before = helped.set(job)
    try:
        return function(*args, **kwargs)
    finally:
        helped.reset(before)


def _call_now(call: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(call(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
    return future


class JobContext:
    """What a handler may ask for beside its payload.

    `job`: the job, with its attempt counted. `queue`: the Queue it came from. `logger`: a logger whose records carry
    job_id, task_identifier and attempts. timeout: seconds it may run; tell: takes what it tells of its progress.
    `result`: what is kept, of a task with keep_result, where the handler returns None; a handler that completes its job
    in a transaction sets it before, for it is written by that transaction.
    """

    result: Any = None
    _event: threading.Event | None = None  # made when somebody asks for it

    def __init__(
        self,
        job: Job,
        queue: Queue,
        *,
        cancelled: threading.Event,
        helpers: Helpers,
        database: Database,
        timeout: float | None = None,
        tell: Callable[[Job, tuple[int, int | None, str | None]], None] | None = None,
    ) -> None:
        self.job = job
        self.queue = queue
        self.told: GraphileWorkerError | None = None  # why it is to end
        self._stopping = cancelled  # the pool's, for all jobs
        self._ends_at = None if timeout is None else time.perf_counter() + timeout
        self._tell = tell
        self._helpers = helpers
        self._helped: list[Future[Any]] = []
        self._database = database  # with connections for handlers
        self._decided = False  # by complete(): the job is done if that transaction was committed
        self._kept: str | None = None  # the result that complete() has written
        self._deciding: tuple[AnyConnection, str] | None = None  # where, and which, unless it is known to be over
        self._pid = os.getpid()

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Return a logger named after the task."""
        job = self.job
        extra = {"job_id": job.id, "task_identifier": job.task_identifier, "attempts": job.attempts}
        return logging.LoggerAdapter(logging.getLogger(f"graphile_worker_py.task.{job.task_identifier}"), extra)

    @property
    def completed(self) -> bool:
        """Return whether the handler has completed its job in a transaction, which may not have been committed yet."""
        return self._decided

    @property
    def cancelled(self) -> threading.Event:
        """Return an event that is set when the handler is to end: time is over, it was cancelled, or the pool stops."""
        event = self._event
        if event is None:
            event = self.__dict__.setdefault("_event", threading.Event())  # one, whichever thread asks first
            if self.told is not None or self._stopping.is_set():  # asked last: who sets it may look for it just before
                event.set()
        return event

    @property
    def remaining(self) -> float | None:
        """Return the seconds that are left of the job's time, 0.0 when it is to end, None if it has no limit."""
        if self.told is not None:
            return 0.0
        return None if self._ends_at is None else max(0.0, self._ends_at - time.perf_counter())

    def check_cancelled(self) -> None:
        """Raise JobTimeout if the job's time is over, JobCancelled if it was cancelled or the pool wants to stop."""
        if self.told is not None:
            raise type(self.told)(*self.told.args)
        if self._ends_at is not None and time.perf_counter() >= self._ends_at:
            raise JobTimeout("the job's time is over")
        if self._stopping.is_set():
            raise JobCancelled("the worker pool is stopping")

    def progress(self, done: int, total: int | None = None, message: str | None = None) -> None:
        """Tell how far the job is, for `Queue.progress`: cheap, for at most once a second is written what is newest.

        done and total: 0 or more, in any unit. message: up to 1000 characters. Raises InvalidJobSpec for all else.
        """
        news = check_progress(done, total, message)
        if self._tell is not None:
            self._tell(self.job, news)

    def limit(self, ends_at: float | None) -> None:
        """Take note of a limit of the job's own, by time.perf_counter(); None: none."""
        self._ends_at = ends_at

    def end(self, error: GraphileWorkerError | None) -> None:
        """Set `cancelled`, and know why; None: the pool is stopping."""
        self.told = error or self.told
        if self._event is not None:
            self._event.set()

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
        """Add a job to the queue this one came from; see `Queue.add_job`."""
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

    def add_jobs(
        self,
        specs: Iterable[JobSpec],
        *,
        job_key_preserve_run_at: bool = False,
        connection: object = None,
        on_progress: Callable[[int], object] | None = None,
        return_jobs: bool = True,
    ) -> list[Job]:
        """Add many jobs to the queue this one came from; see `Queue.add_jobs`."""
        return self.queue.add_jobs(
            specs,
            job_key_preserve_run_at=job_key_preserve_run_at,
            connection=connection,
            on_progress=on_progress,
            return_jobs=return_jobs,
        )

    def complete(self, connection: object) -> None:
        """Delete the job in the caller's transaction: it is done when that commits, together with all it wrote.

        connection: what add_job takes for one, in a transaction unless a statement begins one. What is not
        committed when the handler returns is rolled back, and the job has failed. Raises InvalidJobSpec for what is no
        such connection, and JobNotHeld where the job is completed already or another worker has it; the transaction is
        then not to be committed.
        """
        with own_connection(connection) as own:
            if own.autocommit and not is_pipelined(own) and own.info.transaction_status == TransactionStatus.IDLE:
                raise InvalidJobSpec("connection: is in autocommit, and no transaction is open on it; begin one")
            self._complete_on(own)

    def _complete_on(self, own: AnyConnection) -> None:
        """Delete the job, and keep its result, in the transaction that is open there."""
        job = self.job
        claim = {"id": job.id, "holder": job.locked_by, "since": job.locked_at}
        rows = self._database.run_on(own, "complete_held_job", claim)
        if not rows:
            raise JobNotHeld(f"job {job.id} is completed already, or another worker has it: commit nothing for it")
        self._decided, self._deciding = True, (own, rows[0][0])
        task = self.queue.tasks.get(job.task_identifier)
        if task is not None and task.keep_result is not None:
            self._kept = as_json(self.result)
            what = {"id": job.id, "result": self._kept, "keep_for": task.keep_result.total_seconds()}
            try:
                with own.transaction():  # a savepoint in it
                    self._database.run_on(own, "enter_result", {**what, "channel": CHANNEL})
            except (SchemaMissing, NotSupported) as error:
                self.logger.warning("the result is not kept: %s", error)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction on a connection of the worker's and yield it; at its end the job is completed in it.

        The effects are then there exactly once, whatever happens to this process. The worker keeps up to as many
        connections for this as it has threads; of a ConnectionPool that was given it takes all but the seven it
        needs itself, and handlers wait for each other, for connect_timeout seconds at most (psycopg_pool.PoolTimeout).
        Raises JobNotHeld as complete() does, and rolls back.
        """
        with self._database.connection() as connection, connection.transaction():
            try:
                yield cast(Connection, connection)  # psycopg2's has as much of it as handlers use
            except psycopg.Rollback as error:  # psycopg would roll back, and go on as if all were well
                raise GraphileWorkerError("the handler rolled back the transaction that completes the job") from error
            self._complete_on(connection)
        self._deciding = None

    def left_to_the_row(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a handler that has called complete(): its row tells, once no transaction is open."""
        if not self._decided or self._is_in_a_child():
            return outcome
        if outcome.result is not None and outcome.result != self._kept:
            self.logger.warning("job %s was completed before it had a result: set ctx.result before that", self.job.id)
        error = outcome.error or "the handler completed the job in a transaction that was not committed"
        if self._deciding is not None and self._is_open(*self._deciding):
            connection, _ = self._deciding
            error = outcome.error or "the handler returned before it committed the transaction that completes the job"
            outcome = attrs.evolve(outcome, exception=outcome.exception or GraphileWorkerError(error))
            try:
                connection.rollback()
            except Exception:  # it is in use by a thread of the handler's, or broken
                connection.close()
        return attrs.evolve(outcome, kind=Kind.DECIDED, error=error)

    def _is_open(self, connection: AnyConnection, transaction: str) -> bool:
        """Say whether this very transaction still goes on; given back to a pool, the connection may be in another's."""
        if connection.closed or connection.info.transaction_status == TransactionStatus.IDLE:
            return False
        try:
            return bool(self._database.run("transaction_status", {"transaction": transaction})[0][0] == "in progress")
        except Exception as error:  # rather wait for it to end than undo what somebody else does
            self.logger.warning("whether the transaction that completes the job was committed is not known: %s", error)
            return False

    def _is_in_a_child(self) -> bool:
        """Say whether this is a process that the handler forked: its connections and threads are its parent's."""
        return os.getpid() != self._pid

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run function(*args, **kwargs) on the pool's helper threads and return its future.

        The job waits for it, whether the handler returns the future or not; only a returned one decides the outcome.
        """
        future = self._helpers.submit(_helping, self.job, function, *args, **kwargs)
        self._helped.append(future)
        return future

    def wait_for_helpers(self) -> None:
        """Wait until all that was submitted has ended; the worker does so when the handler has returned."""
        while pending := [future for future in self._helped if not future.done()]:
            if self._is_in_a_child():
                return
            wait_for(pending)

    def drop_helpers(self) -> None:
        """Cancel what was submitted and has not begun; the worker does so when the handler is interrupted."""
        for future in list(self._helped):
            future.cancel()

    def map(self, function: Callable[[U], T], items: Iterable[U]) -> list[Future[T]]:
        """Run function on every item on the helper threads: `return ctx.map(deliver, payload)` settles a batch."""
        return [self.submit(function, item) for item in items]
