"""Crew: the threads that run handlers. They take jobs, run them, pass outcomes on; they never touch the database."""

from __future__ import annotations

import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable

import attrs

from graphile_worker_py._grip import Grip
from graphile_worker_py._service import next_of
from graphile_worker_py.jobs import Job, Kind, Outcome
from graphile_worker_py.worker.claims import Run

logger = logging.getLogger(__name__)


class Crew:
    """`size` threads that call work(job, grip) for each job that take() returns, and pass the outcome to deliver().

    A handler that forks may return in the child too: there the outcome counts for nothing, and the thread ends, and
    with it the child.
    The jobs of a Run are worked through in order by one thread; a failure ends it, and so does its time being over.
    """

    def __init__(
        self,
        size: int,
        *,
        take: Callable[[], Job | Run | None],
        work: Callable[[Job, Grip], Outcome],
        deliver: Callable[[Outcome], None],
    ) -> None:
        self._take = take
        self._work = work
        self._deliver = deliver
        self._lock = threading.Lock()
        self._running: list[Job | None] = [None] * size  # each thread has its place, so none needs a lock
        self._runs: list[Run | None] = [None] * size
        self.grips = [Grip() for _ in range(size)]
        self._left = size
        self._forked = False  # this is a handler's thread that went on in a child process, after os.fork()
        _crews.add(self)
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._live, args=(place,), name=f"graphile-worker-py crew {place + 1}", daemon=True)
            for place in range(size)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def running(self) -> list[Job]:
        """Return the jobs whose handlers have not returned."""
        return [job for job in self._running if job is not None]

    def at_work(self) -> list[tuple[Job, int]]:
        """Return the running jobs, each with the identifier of its thread."""
        pairs = zip(list(self._running), self._threads, strict=True)
        return [(job, thread.ident or 0) for job, thread in pairs if job is not None]

    def end(self) -> None:
        """Tell the handlers that are running that the pool wants its threads back."""
        for grip in self.grips:
            if (context := grip.context) is not None:
                context.end(None)

    def waiting(self) -> list[Job]:
        """Return the jobs of runs that are behind a running one."""
        return [job for run in self._runs if run is not None for job in list(run.jobs)]

    def wait(self, timeout: float | None) -> bool:
        """Wait up to timeout seconds, or until hurry() is called, for all threads to end; say whether they have.

        They end once take() has returned None to each.
        """
        try:
            if self._left:
                next_of(self.news, timeout)
        except queue.Empty:
            return False
        if self._left:
            return False
        self.news.put("pass it on")  # to others who wait: a message reaches one of them
        for thread in self._threads:
            thread.join()
        return True

    def hurry(self) -> None:
        """End a wait() now; may be called in a signal handler, for SimpleQueue.put is safe there."""
        self.news.put("hurry")

    def _live(self, place: int) -> None:
        grip = self.grips[place]
        grip.bind()
        while (taken := self._next()) is not None:
            if isinstance(taken, Run):
                self._runs[place] = taken
                self._work_through(place, taken, grip)
                self._runs[place] = None
                if self._forked:
                    return
            else:
                self._running[place] = taken
                outcome = self._work(taken, grip)
                if self._forked:
                    return
                self._deliver(outcome)
                self._running[place] = None
        with self._lock:
            self._left -= 1
            if not self._left:
                self.news.put("all threads have ended")

    def _next(self) -> Job | Run | None:
        while True:
            try:
                return self._take()
            except BaseException:  # somebody else's code has thrown it into this thread
                logger.exception("an idle thread was interrupted, and goes on")

    def _work_through(self, place: int, run: Run, grip: Grip) -> None:
        """Run the jobs of one queue; what goes back is delivered first, for the queue is freed by the last outcome."""
        jobs = run.jobs
        while jobs:
            self._running[place] = job = jobs.popleft()
            outcome = self._work(job, grip)
            if self._forked:
                return
            if outcome.exception is not None or run.over():
                while jobs:
                    self._deliver(Outcome(jobs.popleft(), Kind.RETURNED, frees_queue=False))
            if jobs:
                outcome = attrs.evolve(outcome, frees_queue=False)
            self._deliver(outcome)
            self._running[place] = None


_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


def _after_fork() -> None:
    for crew in list(_crews):
        crew._forked = True


os.register_at_fork(after_in_child=_after_fork)
