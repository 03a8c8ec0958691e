"""Together: what several threads add at the same time goes into one statement, and one commit.

PostgreSQL lets one transaction that notifies commit at a time, so eight threads that add a job each get little further
than one (1.3 times, seen on 15). Here the first thread adds its job at once; those that come meanwhile wait for their
turn, and the first of them then adds for all who wait (2.2 times). Who comes alone waits for nobody.

Only what need not wait for anybody else's transaction is shared: jobs without a key and without a queue, of a task that
was added here before. If the database refuses what was added together, each tries alone and learns of its own mistake.
A thread that has waited for longer than a turn takes adds for those who wait, so a slow one holds up nobody for long.
"""

from __future__ import annotations

import copy
import os
import queue
import threading
from collections import deque
from contextlib import suppress

import psycopg

from graphile_worker_py._adding import add_all, add_one
from graphile_worker_py._database import Database
from graphile_worker_py._grip import shielded
from graphile_worker_py.jobs import Job, JobSpec

MOST = 100  # jobs at a time
LONGEST = 100_000  # characters of a payload
PATIENCE = 0.1  # seconds
MOST_KNOWN = 1000  # identifiers


class Together:
    """Adds single jobs for all threads of a process, also of one that was forked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._taken = False  # somebody adds, and will wake the first who waits

    def add(self, spec: JobSpec) -> Job:
        """Add a job and return it when that is committed. Raises what add_one raises.

        A handler that is to be interrupted ends this first: others may wait for what it adds.
        """
        with shielded:
            return self._add(spec)

    def _add(self, spec: JobSpec) -> Job:
        if not self._may_share(spec):
            return self._add_alone(spec)
        if self._pid != os.getpid():  # the lock may be held by a thread that this process does not have
            self._begin()
        call = _Call(spec)
        mine: list[_Call] = []  # what this thread is to add
        try:
            self._wait_for_a_turn(call)
            self._take(call, mine)
            if mine:
                self._add_for(mine)
            while not call.over and not mine:
                call.news.get()
        finally:
            self._end(call, mine)
        if call.error is not None:
            raise call.error
        return call.job or self._add_alone(spec)

    def _may_share(self, spec: JobSpec) -> bool:
        return (
            self._database.shares_adds
            and spec.job_key is None
            and spec.queue_name is None
            and spec.identifier in self._known
            and len(spec.raw_payload or "") <= LONGEST
        )

    def _add_alone(self, spec: JobSpec) -> Job:
        with self._database.connection() as connection:
            job = add_one(self._database, connection, spec, job_key_mode=None)
        if len(self._known) < MOST_KNOWN:
            self._known.add(spec.identifier)
        return job

    def _wait_for_a_turn(self, call: _Call) -> None:
        """Wait until the job is added or this thread is to add, but no longer than its patience lasts."""
        with self._lock:
            self._waiting.append(call)
            waits, self._taken = self._taken, True
        if waits:
            with suppress(queue.Empty):
                call.news.get(timeout=PATIENCE)

    def _take(self, call: _Call, mine: list[_Call]) -> None:
        """Take this call and others that wait, unless another thread has taken it."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
                mine.append(call)
                while self._waiting and len(mine) < MOST:
                    mine.append(self._waiting[0])
                    self._waiting.popleft()

    def _add_for(self, calls: list[_Call]) -> None:
        if len(calls) > 1:
            self._add_all(calls)
        else:
            calls[0].job = self._add_alone(calls[0].spec)

    def _end(self, call: _Call, mine: list[_Call]) -> None:
        """Wake those this thread has added for, and the next; a call with neither a job nor an error tries alone."""
        with self._lock:
            with suppress(ValueError):  # it was interrupted: what nobody has begun to add is not to be added
                self._waiting.remove(call)
            if mine:
                self._taken = bool(self._waiting)
                if self._taken:
                    self._waiting[0].news.put("your turn")
        for one in mine:
            one.over = True
            one.news.put("over")

    def _add_all(self, calls: list[_Call]) -> None:
        specs = [call.spec for call in calls]
        try:
            with self._database.connection() as connection:
                (jobs,) = add_all(self._database, connection, specs, preserve_run_at=False)
            for call, job in zip(calls, jobs, strict=True):
                call.job = job
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            for call in calls:  # it may have been committed: a second try could add them twice
                call.error = copy.copy(error)
        except Exception:
            return
        except BaseException:
            for call in calls:
                call.error = psycopg.OperationalError("the thread that added this job with its own was interrupted")
            raise


class _Call:
    """What a thread wants to add, and what came of it."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.job: Job | None = None
        self.error: Exception | None = None
        self.over = False
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()
