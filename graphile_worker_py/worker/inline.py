"""InlineWorker: jobs are run one after the other by the thread that asks for it; there is no other thread, no service.

A job goes the way it goes in a pool, but for who does it when: it is claimed, executed, and its outcome written by the
Completer's own methods, so that retries, batches and events come out the same. On a connection that is given all of it
happens inside that connection's transaction, the handler's own use of the queue included; nothing is committed. What
a handler did there stays if it fails, as what it commits elsewhere would; only where it leaves the transaction broken
is it taken back to where the handler began.

A time limit is told and not enforced, for there is nobody to interrupt this thread: `ctx.remaining` and
`ctx.check_cancelled()` know it. Progress is checked and not kept.

Named queues and priorities count, flags do not: they are for telling workers apart, and here is only one.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from typing import TypeAlias

from graphile_worker_py._grip import Grip
from graphile_worker_py._one_connection import OneConnection
from graphile_worker_py.errors import GraphileWorkerError, UnknownTask
from graphile_worker_py.events import JobCompleted, JobFailed, JobLost, JobSnoozed, JobStarted
from graphile_worker_py.jobs import Job, Outcome
from graphile_worker_py.queue import Queue
from graphile_worker_py.worker.completer import Completer
from graphile_worker_py.worker.context import Helpers, JobContext
from graphile_worker_py.worker.executor import execute
from graphile_worker_py.worker.recorder import Recorder

Settled: TypeAlias = JobCompleted | JobFailed | JobSnoozed | JobLost


class _SharedContext(JobContext):
    """The context of a handler that may complete its job on a connection whose transaction goes on after it."""

    def left_to_the_row(self, outcome: Outcome) -> Outcome:
        """Return the outcome as ever, but take the transaction that all share for no forgotten one."""
        if self._deciding is not None and isinstance(self._database, OneConnection):
            connection, _ = self._deciding
            self._deciding = None if self._database.is_on(connection) else self._deciding
        return super().left_to_the_row(outcome)


class InlineWorker:
    """Run the jobs of a queue here and now, each when run_next() is called; not safe in threads.

    connection: what add_job takes for one; everything is then done on it, and in its transaction.
    """

    def __init__(self, queue: Queue, *, connection: object = None) -> None:
        self.id = f"inline-{secrets.token_hex(9)}"
        self._queue = queue
        self._database = queue.database
        if connection is not None:
            self._database = OneConnection(connection, schema=queue.schema)
        self._helpers = Helpers(0)
        self._held: dict[int, Job] = {}
        self._completer = Completer(
            self._database,
            self.id,
            events=queue.events,
            on_settled=lambda jobs, seconds: None,
            held=self._held,
            give_back=lambda jobs: None,
            recorder=Recorder(self._database, self.id, tasks=queue.tasks, history=None),
        )

    def run_next(self, *, within: timedelta = timedelta(0), tried: Collection[int] = ()) -> Settled | None:
        """Run one job that is due, or will be within that time, and return what became of it; None if there is none.

        Jobs whose ids are in `tried` are left alone. Raises UnknownTask where no task is registered, and, once it is
        written as a failure, what a handler was interrupted by: a KeyboardInterrupt, the end of a test.
        """
        with self._in_place():
            job = self._claimed(within, tried)
            if job is None:
                return None
            self._held[job.id] = job
            self._completer.put(self._executed(job))
            settled = self._written(job)
            del self._held[job.id]
        exception = settled.exception if isinstance(settled, JobFailed) else None
        if exception is not None and not isinstance(exception, (Exception, SystemExit)):
            raise exception
        return settled

    def without_handler(self) -> list[str]:
        """Return the identifiers of jobs that are due and that no task is registered for here."""
        with self._in_place():
            return [task.identifier for task in self._queue.stats() if task.ready and not self._knows(task.identifier)]

    def _in_place(self) -> AbstractContextManager[None]:
        """Have the queue on the one connection; where it is there, or there is none, it stays where it is."""
        return nullcontext() if self._queue.database is self._database else self._queue.elsewhere(self._database)

    def _knows(self, identifier: str) -> bool:
        return self._queue.tasks.get(identifier) is not None

    def _claimed(self, within: timedelta, tried: Collection[int]) -> Job | None:
        tasks = self._queue.tasks.identifiers()
        if not tasks:
            raise UnknownTask("no task is registered, so no job can be run: decorate a handler with @queue.task")
        wanted = {"tasks": tasks, "within": within.total_seconds(), "tried": list(tried), "holder": self.id}
        rows = self._database.run("claim_next_job", wanted)
        return Job(*rows[0]) if rows else None

    def _executed(self, job: Job) -> Outcome:
        if self._queue.events.wants(JobStarted):
            self._queue.events.emit(JobStarted(job))
        task, around = self._queue.tasks[job.task_identifier], self._queue.around
        unbroken = self._database.unbroken() if isinstance(self._database, OneConnection) else nullcontext()
        grip = Grip()  # nobody interrupts by it; current_job() asks it
        with grip.bound(), unbroken:
            return execute(task, job, self._context, policy=self._queue.retry, around=around, grip=grip)

    def _context(self, job: Job) -> JobContext:
        return _SharedContext(
            job,
            self._queue,
            cancelled=threading.Event(),
            helpers=self._helpers,
            database=self._database,
            timeout=self._queue.tasks[job.task_identifier].timeout,
        )

    def _written(self, job: Job) -> Settled:
        """Write the outcome, and return the event that tells of it."""
        heard: list[Settled] = []
        subscribe = self._queue.events.subscribe
        with ExitStack() as stack:
            stack.callback(subscribe(JobCompleted, heard.append))
            stack.callback(subscribe(JobFailed, heard.append))
            stack.callback(subscribe(JobSnoozed, heard.append))
            stack.callback(subscribe(JobLost, heard.append))
            self._completer.step()
        for event in heard:
            if event.job is job:
                return event
        raise GraphileWorkerError(
            f"what became of job {job.id} ({job.task_identifier}) could not be written; see the log"
        )
