"""WorkerPool: builds the services, starts and stops them in order.

    Listener ──wake──▶ LocalQueue ══▶ crew ──▶ executor ──▶ Completer ──▶ database

Stopping is starting reversed (an ExitStack, so the order cannot drift): stop listening, stop claiming and give back
what nobody started, let running handlers finish, write every outcome, stop the heart. A pool holds at most five
connections: one each to claim, to complete and to listen, and now and then one to give a sign of life or to sweep; with
a crontab a sixth, once a minute. Handlers that complete their jobs in a transaction have one each for as long.
"""

from __future__ import annotations

import functools
import os
import queue as queues
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from os import PathLike
from types import TracebackType

import psycopg

from graphile_worker_py import _processes, migrate
from graphile_worker_py._grip import Grip
from graphile_worker_py._service import Service, next_of
from graphile_worker_py._watched import hurried
from graphile_worker_py.checks import check_flags, check_integer, check_retention, check_seconds
from graphile_worker_py.cron.scheduler import CrontabSource, Scheduler
from graphile_worker_py.errors import GraphileWorkerError, UnknownTask
from graphile_worker_py.events import JobCompleted, JobFailed, JobStarted, PoolStarted, PoolStopped
from graphile_worker_py.jobs import Job, Outcome, RunSummary
from graphile_worker_py.queue import FlagSource, Queue
from graphile_worker_py.worker.completer import Completer
from graphile_worker_py.worker.context import Helpers, JobContext
from graphile_worker_py.worker.crew import Crew
from graphile_worker_py.worker.executor import execute
from graphile_worker_py.worker.health import Health, examine
from graphile_worker_py.worker.heartbeat import Heart, Sweeper
from graphile_worker_py.worker.limited_claims import LimitedClaims
from graphile_worker_py.worker.listener import Listener
from graphile_worker_py.worker.local_queue import LocalQueue
from graphile_worker_py.worker.oversight import Oversight
from graphile_worker_py.worker.recorder import Recorder
from graphile_worker_py.worker.signals import RELOAD, told_of_signals
from graphile_worker_py.worker.watch import Watch

LAST_TRIES = 5.0  # seconds, for giving back what was not started, and after the grace for the last outcomes
BRIEFLY = 0.05  # seconds that an idle thread takes to end, and no harm if it takes longer
THREAD_PREFIX = "graphile-worker-py "


class WorkerPool:
    """Threads that work on a queue's jobs: a context manager, or run() for a program that does nothing else.

    concurrency: handlers at a time (threads). poll_interval: seconds between looks at the table when nothing wakes the
    pool. grace: seconds that run() lets handlers go on after a signal. helper_threads: for ctx.submit and ctx.map, of
    all handlers together. forbidden_flags: jobs with one of these are left alone; a callable is asked at each claim.
    heartbeat, dead_after: seconds between signs of life, and of silence until others take the pool's jobs over.
    stuck_after: seconds until a job that still runs is reported, with the stack of its thread; None: never.
    crontab: the path of a file, or CronItem objects, to add jobs by the clock, beside what @queue.cron asks for; run()
    reads the file again at SIGHUP. history: how long this pool's runs are remembered, for `Queue.history`; None: not at
    all. Raises UnknownTask at start where no task is registered, InvalidHandler where a handler asks for a payload that
    cannot be made, InvalidCrontab, and MigrationError where the schema does not fit.
    """

    def __init__(
        self,
        queue: Queue,
        concurrency: int = 8,
        *,
        poll_interval: float = 2.0,
        grace: float = 30.0,
        helper_threads: int | None = None,
        forbidden_flags: FlagSource = None,
        heartbeat: float = 10.0,
        dead_after: float = 60.0,
        stuck_after: float | None = 600.0,
        crontab: CrontabSource = None,
        history: timedelta | None = None,
    ) -> None:
        self.queue = queue
        self.concurrency = check_integer("concurrency", concurrency, lowest=1, highest=10_000)
        self.grace = check_seconds("grace", grace)
        self.id = f"pool-{secrets.token_hex(9)}"
        self._poll_interval = check_seconds("poll_interval", poll_interval, shortest=0.001)
        self._flags = _flag_source(forbidden_flags)
        self._heartbeat = check_seconds("heartbeat", heartbeat, shortest=0.05)
        self._dead_after = check_seconds("dead_after", dead_after, shortest=3 * heartbeat)
        self._stuck_after = None if stuck_after is None else check_seconds("stuck_after", stuck_after, shortest=0.01)
        helpers = concurrency if helper_threads is None else helper_threads
        helpers = check_integer("helper_threads", helpers, lowest=1, highest=10_000)
        self._helpers = Helpers(helpers, around=queue.around_helpers)
        self._handlers_database = queue.database
        self._cancelled = threading.Event()
        self._inbox: queues.SimpleQueue[object] = queues.SimpleQueue()
        self._lock = threading.Lock()
        self._stack: ExitStack | None = None  # what ends when all handlers have returned
        self._quiet = ExitStack()  # what ends first: listening, claiming
        self._local_queue: LocalQueue | None = None
        self._crew: Crew | None = None
        self._crontab = crontab
        self._history = check_retention("history", history)
        self._scheduler: Scheduler | None = None
        self._completer: Completer | None = None
        self._oversight: Oversight | None = None
        self._kept: list[Service] = []
        self._claiming: list[Service] = []
        self._started = False
        self._stopped = False
        self._pid = 0

    def __enter__(self) -> WorkerPool:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Check the schema and start all threads; returns when they run. A pool is started once."""
        self._start(once=False)

    def stop(self, timeout: float | None = None) -> list[Job]:
        """Stop claiming, wait up to timeout seconds for running handlers, write outcomes, end all threads.

        Returns the jobs whose handlers still run after that time: their context's `cancelled` is set, their outcomes
        will be written, and another stop() waits for them again. None: `cancelled` is set after the grace, and the wait
        goes on without limit. Called in one of the pool's own threads, by a handler or a subscriber, it waits for
        nobody; run() then goes on to its end. In a process forked from the pool's it does nothing.
        """
        if self._pid not in (0, os.getpid()):
            return []
        began = time.monotonic()
        limit = self.grace if timeout is None else timeout
        from_inside = threading.current_thread().name.startswith(THREAD_PREFIX)
        if from_inside and self._stopped:
            return self.running()  # who holds the lock may be waiting for this very thread
        with self._lock:
            self._stopped = True
            if self._local_queue is not None:
                self._local_queue.last_try_at = began + LAST_TRIES
            for service in self._claiming:
                service.ask()  # all of them before the first is waited for: each may be waiting for the database
            self._quiet.close()
            crew = self._crew
        self._inbox.put("stopped")
        if crew is None or self._stack is None:
            return []
        if from_inside:
            return crew.running()
        if not crew.wait(max(0.0, began + limit - time.monotonic())):
            self._cancelled.set()
            crew.end()
            if timeout is not None:
                if running := _still_running(crew):
                    return running
            else:
                crew.wait(None)
                limit = time.monotonic() - began
        self._end(began + limit + LAST_TRIES)
        return []

    def _end(self, last_try_at: float) -> None:
        with self._lock:
            stack, self._stack = self._stack, None
            if stack is not None and self._completer is not None:
                self._completer.last_try_at = last_try_at
                stack.close()
        if stack is not None:
            self.queue.events.emit(PoolStopped(self.id, 0))

    def run(self) -> list[Job]:
        """Work until SIGTERM or SIGINT, or until another thread calls stop(), then stop within the grace.

        A second signal ends the grace. Returns the jobs whose handlers still run; the program should then release()
        them and end at once. Raises SchemaTooNew where the schema was migrated to one this version does not know.
        Signals are only handled when called in the main thread.
        """
        with self._signals():
            try:
                self.start()
            except psycopg.Error:
                if self._inbox.empty():
                    raise
                return []  # told to stop before it could begin, the database away or not
            while (message := next_of(self._inbox)) == RELOAD and self._scheduler:
                self._scheduler.reload()
            return self._stopped_after(message)

    def run_once(self) -> RunSummary:
        """Run all jobs that are ready, and those that become ready by it, then stop. Signals end it early."""
        counts: Counter[str] = Counter()

        def count(event: JobCompleted | JobFailed) -> None:
            if event.job.locked_by == self.id:
                counts["completed" if isinstance(event, JobCompleted) else "failed" if event.final else "retrying"] += 1

        with ExitStack() as stack:
            stack.callback(self.queue.events.subscribe(JobCompleted, count))
            stack.callback(self.queue.events.subscribe(JobFailed, count))
            stack.enter_context(self._signals())
            self._start(once=True)
            self._stopped_after(next_of(self._inbox))
        return RunSummary(counts["completed"], counts["retrying"], counts["failed"])

    def release(self, jobs: Iterable[Job]) -> None:
        """Give jobs back, attempt and all, while their handlers still run: for a process that ends right after.

        What waits behind them in the same named queue goes back as well; what a handler has just completed in a
        transaction that is not committed does not: it is recovered as after a crash. Executables are killed first,
        since they would not end with the process.
        """
        _processes.end_all()
        if self._local_queue is not None and self._crew is not None:
            with hurried():
                self._local_queue.give_back([*self._crew.waiting(), *jobs], wait=False)

    def nudge(self) -> None:
        """Look for jobs now: for a program that knows of some before the database's notification arrives."""
        if self._local_queue is not None:
            self._local_queue.wake()

    def leaves_jobs(self) -> bool:
        """Return whether the pool, stopped while the database was away, has left jobs locked for others to recover."""
        return self.unwritten() > 0 or (self._local_queue is not None and self._local_queue.stays_locked)

    def unwritten(self) -> int:
        """Return how many handlers have returned whose outcomes are not written yet."""
        return self._completer.unwritten() if self._completer else 0

    def running(self) -> list[Job]:
        """Return the jobs whose handlers are running."""
        return self._crew.running() if self._crew else []

    def health(self) -> Health:
        """Return whether its threads move and it takes jobs, and if not, why; it asks nobody, so ask it often."""
        services = [*self._kept, *(self._oversight.services() if self._oversight else ())]
        return examine(
            services if self._claiming else [],
            self.queue.database,
            heartbeat=self._heartbeat,
            stopping=self._stopped,
            running=len(self.running()),
        )

    def _start(self, *, once: bool) -> None:
        if not len(self.queue.tasks):
            raise UnknownTask(
                "no task is registered, so there is nothing to work on: decorate a handler with @queue.task, "
                "in a module that is imported"
            )
        for task in self.queue.tasks:
            task.prepare()
        self._scheduler = None if once else Scheduler.of(self.queue, self._crontab)
        migrate.check(self.queue.database)
        limited = LimitedClaims(
            self.queue.tasks,
            self.queue.database,
            self.id,
            forbidden_flags=self._flags,
            poll_interval=self._poll_interval,
        )
        limited.check()
        with self._lock:
            if self._started:
                raise GraphileWorkerError("this WorkerPool was started before: make a new one")
            self._started, self._pid = True, os.getpid()
        if not self._stopped:
            self.queue.events.emit(PoolStarted(self.id, self.concurrency, tuple(self.queue.tasks.identifiers())))
        with self._lock:
            if not self._stopped:  # by a subscriber just now, or by another thread
                self._start_threads(limited, once=once)

    def _start_threads(self, limited: LimitedClaims, *, once: bool) -> None:
        database = self.queue.database
        self._handlers_database = database.another(max_size=self.concurrency)  # handlers do not wait for each other
        local_queue = self._local_queue = LocalQueue(
            database,
            self.id,
            concurrency=self.concurrency,
            tasks=limited.others,
            forbidden_flags=self._flags,
            poll_interval=self._poll_interval,
            limited=limited,
            on_end=self._inbox.put if once else None,
        )
        recorder = Recorder(database, self.id, tasks=self.queue.tasks, history=self._history)
        completer = self._completer = Completer(
            database,
            self.id,
            events=self.queue.events,
            on_settled=local_queue.settled,
            held=local_queue.held,
            give_back=functools.partial(local_queue.give_back, free_queues=False),
            recorder=recorder,
        )
        self._crew = Crew(self.concurrency, take=local_queue.get, work=self._work, deliver=completer.put)
        heart = Heart(
            database,
            self.id,
            concurrency=self.concurrency,
            interval=self._heartbeat,
            dead_after=self._dead_after,
            on_alive=local_queue.alive,
            on_dead=local_queue.give_up,
        )
        heart.register()
        self._stack = ExitStack()
        self._keep(heart, self._stack)
        self._stack.callback(self._see_what_stays_locked, heart)
        self._keep(completer, self._stack)
        self._stack.callback(self._handlers_database.close)
        self._stack.callback(self._helpers.close)
        self._oversight = Oversight(self.queue, self.id, self._crew.grips)
        self._oversight.start()
        self._stack.callback(self._oversight.stop)
        self._crew.start()
        if self._stuck_after is not None:
            self._keep(Watch(self._crew.at_work, after=self._stuck_after, events=self.queue.events), self._stack)
        self._quiet.callback(local_queue.close)
        self._begin_claiming(local_queue)
        if not once:
            self._attend(local_queue, recorder, self._oversight)

    def _attend(self, local_queue: LocalQueue, recorder: Recorder, oversight: Oversight) -> None:
        """Start what only a lasting pool needs."""
        database, put = self.queue.database, self._inbox.put
        listener = Listener(database, on_jobs=local_queue.wake, on_breaking=put, on_running=oversight.hear)
        oversight.hears = lambda: listener.hears
        for service in (Sweeper(database, forget=recorder.forget), listener, self._scheduler):
            if service is not None:
                self._begin_claiming(service)

    def _keep(self, service: Service, stack: ExitStack) -> None:
        service.start()
        self._kept.append(service)
        stack.callback(service.stop)

    def _begin_claiming(self, service: Service) -> None:
        self._claiming.append(service)
        self._keep(service, self._quiet)

    def _see_what_stays_locked(self, heart: Heart) -> None:
        heart.leaves_jobs = self.leaves_jobs()

    def _work(self, job: Job, grip: Grip) -> Outcome:
        if self.queue.events.wants(JobStarted):
            self.queue.events.emit(JobStarted(job))
        task, queue = self.queue.tasks[job.task_identifier], self.queue
        return execute(task, job, self._context, policy=queue.retry, around=queue.around, grip=grip)

    def _context(self, job: Job) -> JobContext:
        return JobContext(
            job,
            self.queue.for_handlers or self.queue,
            cancelled=self._cancelled,
            helpers=self._helpers,
            database=self._handlers_database,
            timeout=self.queue.tasks[job.task_identifier].timeout,
            tell=self._oversight.tell if self._oversight else None,
        )

    def _stopped_after(self, message: object) -> list[Job]:
        running = self.stop(self.grace)
        if running:
            running = self.stop(_processes.time_to_end())  # no time at all where no executable runs
        if running:
            self.queue.events.emit(PoolStopped(self.id, len(running)))
        if isinstance(message, BaseException):
            raise message
        return running

    def _signals(self) -> AbstractContextManager[None]:
        reloads = isinstance(self._crontab, (str, PathLike))
        return told_of_signals(self._inbox, reloads=reloads, on_second=self._hurry)

    def _hurry(self) -> None:
        if self._crew:
            self._crew.hurry()


def _still_running(crew: Crew) -> list[Job]:
    """Return the jobs that run after all the time there was; [] when all threads have ended, idle ones a bit later."""
    while not (running := crew.running()) and not crew.wait(BRIEFLY):
        pass
    return running


def _flag_source(flags: FlagSource) -> Callable[[], list[str]]:
    if callable(flags):
        return lambda: list(check_flags(flags()) or ())
    fixed = list(check_flags(flags) or ())
    return lambda: fixed
