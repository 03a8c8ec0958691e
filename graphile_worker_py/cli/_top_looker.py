"""The thread of `top` that asks the database, so that one that does not answer holds up neither keys nor drawing."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from graphile_worker_py import GraphileWorkerError, NotSupported, Queue, SchemaMissing
from graphile_worker_py._looks import Snapshot
from graphile_worker_py._service import Service
from graphile_worker_py.cli._options import describe
from graphile_worker_py.cli._top_view import Details, Silence
from graphile_worker_py.monitor import Monitor

RETRY = 1.0  # seconds until what failed is tried again, at least


class Looker(Service):
    """Looks at the queue every `interval` seconds, or as often as the monitor lets it, and calls `on_news` each time.

    `snapshot` is the last look, `silence` says since when there was no other, `details` are of the job that was opened.
    `problem` is an error that no patience mends.
    """

    def __init__(self, queue: Queue, monitor: Monitor, first: Snapshot, *, interval: float) -> None:
        super().__init__("top")
        self._queue = queue
        self._monitor = monitor
        self._interval = interval
        self._due = time.monotonic() + interval
        self._job: int | None = None
        self._paused = False
        self.snapshot = first
        self.silence: Silence | None = None
        self.details: Details | None = None
        self.problem: Exception | None = None
        self.on_news: Callable[[], object] = lambda: None

    def follow(self, job: int | None, *, paused: bool) -> None:
        """Look at that job too; `paused`: at nothing else."""
        changed = (job, paused) != (self._job, self._paused)
        self._job, self._paused = job, paused
        if changed:
            self.wake()

    def step(self) -> float | None:
        """Look at what is due."""
        try:
            if not self._paused and time.monotonic() >= self._due:
                self._look()
                self.silence = None
            if (job := self._job) is not None:
                self.details = details_of(self._queue, job)
                self.silence = None
        except (psycopg.Error, GraphileWorkerError) as error:
            self.silence = Silence(self.snapshot.at, describe(error))
            self._due = time.monotonic() + max(RETRY, self._interval)
        except Exception as error:  # a mistake of ours: whoever draws raises it, with the terminal given back
            self.problem = error
        self.on_news()
        return max(0.0, self._due - time.monotonic()) if not self._paused else self._interval

    def _look(self) -> None:
        began = time.monotonic()
        self.snapshot = self._monitor.look()
        self._due = began + max(self._interval, self._monitor.pause)


def details_of(queue: Queue, id: int) -> Details:
    """Return what there is to know of a job, but for its payload."""
    jobs = queue.jobs(ids=[id]).items
    if not jobs:
        return Details(id, None, None)
    with suppress(SchemaMissing, NotSupported):  # a table of our own may not be there, or not for this role
        return Details(id, jobs[0], queue.progress(id))
    return Details(id, jobs[0], None)
