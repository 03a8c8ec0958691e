"""Results: what a handler returned, for tasks that keep it, and how to wait for a job to be over.

Any number of threads of a program may wait. One of them, the leader, looks for all: it asks the database for every job
that is waited for at once, after a notification and in short intervals besides, since only kept results are notified
of. When its own job is over, or its time is, another takes its place. So a program that waits has one statement under
way now and then and one connection that listens, however many threads there are, and no thread of ours.

An outage is waited out; only the first look, and an error that no further try can mend, reach the caller.
"""

from __future__ import annotations

import json
import math
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import psycopg

from graphile_worker_py._database import Database, Row
from graphile_worker_py._outage import is_passing
from graphile_worker_py._payload import encode
from graphile_worker_py._watched import Watched
from graphile_worker_py.checks import LARGEST_ID, check_integer, check_seconds
from graphile_worker_py.errors import (
    InvalidHandler,
    InvalidJobSpec,
    JobFailedForGood,
    NotSupported,
    ResultMissing,
    SchemaMissing,
)
from graphile_worker_py.jobs import Job
from graphile_worker_py.tasks import Tasks

CHANNEL = "graphile_worker_py:over"

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds between looks; the first ones follow each other quickly
LISTEN_AFTER = 0.2  # seconds of waiting, for a connection is not worth its while before
LISTEN_AGAIN = 5.0  # seconds until a connection that could not be had, or was lost, is tried for again


def as_json(result: object) -> str:
    """Return what a handler returned as JSON text, futures as what they came to.

    Raises InvalidHandler for what JSON cannot carry, with its place.
    """
    if isinstance(result, (list, tuple)):
        result = [entry.result() if isinstance(entry, Future) else entry for entry in result]
    try:
        return encode(result.result() if isinstance(result, Future) else result)
    except InvalidJobSpec as error:
        what = str(error).replace("payload", "result", 1)
        raise InvalidHandler(f"the handler returned what cannot be kept as JSON: {what}") from error


@attrs.define(eq=False)
class _Ticket:
    """One thread that waits: for which job, for how many seconds and since when, and what came of it."""

    job_id: int
    seconds: float
    began_at: float = attrs.field(factory=time.monotonic)
    end: Row | None = None

    def left(self) -> float:
        return self.began_at + self.seconds - time.monotonic()

    def pause(self) -> float:
        """Return how long to wait until the next look: as long as it took so far, within bounds."""
        pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, time.monotonic() - self.began_at))
        return max(0.0, min(pause, self.left()))


class Waiters:
    """The threads of one program that wait for jobs of one queue."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[_Ticket] = []
        self._led = False
        self._ear: _Ear | None = None  # the leader's; the next one takes it over, and who leaves last closes it

    def wait_for(self, job: Job | int, timeout: float | None, *, tasks: Tasks) -> Any:
        """Wait until the job is over and return its result; what else may come of it is said at `Queue.wait_for`.

        `tasks` are those of whom it is known here whether they keep results.
        """
        id = check_integer("job id", job.id if isinstance(job, Job) else job, lowest=-LARGEST_ID, highest=LARGEST_ID)
        ticket = _Ticket(id, math.inf if timeout is None else check_seconds("timeout", timeout))
        with self._entered(ticket):
            self._look([ticket])
            while ticket.end is None:
                if ticket.left() <= 0:
                    raise TimeoutError(f"job {id} was not over after {timeout:g} s")
                self._follow_or_lead(ticket)
        task = tasks.get(job.task_identifier) if isinstance(job, Job) else None
        return _told(ticket.end, kept=task is not None and task.keep_result is not None)

    @contextmanager
    def _entered(self, ticket: _Ticket) -> Iterator[None]:
        try:
            with self._changed:
                self._tickets.append(ticket)
            yield
        finally:
            ear = None
            with self._changed:
                self._tickets = [other for other in self._tickets if other is not ticket]
                if not self._tickets:
                    ear, self._ear = self._ear, None
            if ear is not None:
                ear.close()

    def _follow_or_lead(self, ticket: _Ticket) -> None:
        """Wait while another leads; lead if nobody does, until this ticket's job is over or its time is."""
        leads = False
        try:
            with self._changed:
                pause = min(LONGEST_PAUSE, ticket.left())
                self._changed.wait_for(lambda: ticket.end is not None or not self._led, pause)
                if ticket.end is not None or self._led:
                    return
                leads = self._led = True  # in this order, for an interrupt may come in between
            self._lead(ticket)
        finally:
            if leads:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()

    def _lead(self, ticket: _Ticket) -> None:
        ear = self._ear = self._ear or _Ear(self._database, self._is_waited_for)
        while ticket.end is None and ticket.left() > 0:
            ear.wait(ticket.pause())
            with self._changed:
                tickets = [one for one in self._tickets if one.end is None]
            try:
                self._look(tickets)
            except psycopg.Error as error:
                if not is_passing(error):
                    raise

    def _look(self, tickets: list[_Ticket]) -> None:
        """Ask the database once for the jobs of all these, and tell those whose job is over."""
        try:
            rows = self._database.run("look_for_ends", {"ids": list({one.job_id for one in tickets})})
        except (SchemaMissing, NotSupported) as error:
            raise NotSupported(
                f"wait_for needs a table of ours that is not here: run queue.migrate() ({error})"
            ) from error
        ends = {row[0]: row for row in rows}
        with self._changed:
            for ticket in tickets:
                ticket.end = ticket.end or ends.get(ticket.job_id)  # another look may have been faster
            if ends:
                self._changed.notify_all()

    def _is_waited_for(self, ids: Iterable[int]) -> bool:
        with self._changed:
            return not {ticket.job_id for ticket in self._tickets}.isdisjoint(ids)


class _Ear:
    """Waits, and hears meanwhile of results: on a connection of its own, once the wait has lasted.

    Where none can listen, behind a pooler, by choice or in an outage, it just waits.
    """

    def __init__(self, database: Database, is_waited_for: Callable[[Iterable[int]], bool]) -> None:
        self._database = database
        self._is_waited_for = is_waited_for
        self._connection: Watched | None = None
        self._opens_at = time.monotonic() + LISTEN_AFTER

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when a job that is waited for is over, or once it has begun to listen."""
        ends_at = time.monotonic() + seconds
        if self._connection is None and time.monotonic() >= self._opens_at:
            self._open()
        elif self._connection is None:
            time.sleep(seconds)
        else:
            try:
                self._hear(self._connection, ends_at)
            except (psycopg.Error, OSError):
                self.close()

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> None:
        self._opens_at = time.monotonic() + LISTEN_AGAIN
        with suppress(psycopg.Error):
            self._connection = self._database.connect_to_listen()
            if self._connection is None:
                self._opens_at = math.inf
            else:
                self._database.listen(self._connection, CHANNEL)

    def _hear(self, connection: Watched, ends_at: float) -> None:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        while (left := ends_at - time.monotonic()) > 0:
            waiting.poll(left * 1000 + 1)
            for notification in list(connection.notifies(timeout=0)):
                ids = [int(text) for text in notification.payload.split(",") if text.isdecimal()]
                if not ids or self._is_waited_for(ids):
                    return


def _told(end: Row, *, kept: bool) -> Any:
    """Return the result, or raise what came instead; `kept`: there should be one."""
    id, result, failed, identifier, error = end
    if result is not None:
        return json.loads(result)
    if failed:
        raise JobFailedForGood(id, identifier, error)
    if kept:
        raise ResultMissing(
            f"job {id} is gone and has left no result: it was removed, its result has expired, "
            "or a worker ran it that keeps none"
        )
    return None


_all: weakref.WeakSet[Waiters] = weakref.WeakSet()


def _after_fork() -> None:
    """Wait in the child anew: the parent's threads are not there, and one of them may have held the lock."""
    for waiters in list(_all):
        waiters._renew()


os.register_at_fork(after_in_child=_after_fork)
