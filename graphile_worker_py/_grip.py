"""Grip: how one thread's handler is interrupted, and no other.

CPython can raise an exception in another thread (PyThreadState_SetAsyncExc): it arrives there at some later bytecode,
whatever that thread does by then. A handler that ends just before would let it loose on the thread's next job. So each
thread has a token, which is there while a handler runs, and whoever takes it decides, for taking the last element of a
list is atomic: the thread takes it when its handler has ended, and nobody can send an exception any more; or the one
who interrupts takes it, and the thread goes nowhere before the exception has been sent, and has arrived or been called
back. A token is never put back once an exception was sent for it: one job gets one exception at most.

The same token covers what must not be torn in the middle, such as taking a connection from a pool.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from graphile_worker_py.errors import GraphileWorkerError, JobCancelled, JobTimeout
from graphile_worker_py.jobs import Job

GLANCE = 0.0005  # seconds
INTERRUPTS = (JobTimeout, JobCancelled)


class Told(Protocol):
    """The context of a handler, which is told that it is to end, and of a limit of its job's own."""

    job: Job

    def limit(self, ends_at: float | None) -> None:
        """Take note of a limit, by time.perf_counter(); None: none."""
        ...

    def end(self, error: GraphileWorkerError | None) -> None:
        """Set the event, and know why; None: the pool is stopping."""
        ...

    def drop_helpers(self) -> None:
        """Cancel what it has shared out and nobody has begun."""
        ...


class Grip:
    """The hold on one thread; `job` is the one whose handler runs there, since `began`, by time.perf_counter()."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.began = 0.0
        self.context: Told | None = None
        self.own_limit: tuple[Job | None, float | None] = (None, None)  # seconds that this job may run, None for ever
        self.demand: tuple[Job, GraphileWorkerError] | None = None  # this job is to end, for this reason
        self._token: list[Job] = []
        self._struck: Job | None = None  # an exception was sent for this one
        self.thread = 0
        self._depth = 0  # of what covers it
        self._covers = False  # it has taken the token

    def bind(self) -> None:
        """Make it the grip of this very thread."""
        self.thread = threading.get_ident()
        _here.grip = self

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Make it the grip of this very thread for the block; for one that is no crew's."""
        before = grip_here()
        self.bind()
        try:
            yield
        finally:
            _here.grip = before

    def take(self, job: Job, began: float, context: Told | None = None) -> None:
        """Begin: from now on the thread can be interrupted."""
        self.began = began
        self.context = context
        self.job = job
        self._token.append(job)

    def let_go(self) -> None:
        """End: nothing can be sent any more. Raises what was sent in the last moment, or calls it back."""
        try:
            self._token.pop()
            self.job = self.context = None
        except IndexError:
            job, self.job, self.context = self.job, None, None
            if self._wait_for_the_token(job):
                return
            _raise_in(self.thread, ctypes.py_object())  # it has arrived already, or is not to any more

    def interrupt(self, job: Job, error: type[GraphileWorkerError]) -> bool:
        """Raise the error in the thread if it runs this job's handler, and say so; never twice for one job."""
        try:
            held = self._token.pop()
        except IndexError:
            return False
        if held is not job:
            self._token.append(held)
            return False
        _raise_in(self.thread, ctypes.py_object(error))
        self._struck = job
        return True

    def has_struck(self, job: Job) -> bool:
        """Say whether an exception was sent for this job."""
        return self._struck is job

    def reason(self, job: Job) -> GraphileWorkerError | None:
        """Return why this job was to end, if it was."""
        demand = self.demand
        return demand[1] if demand is not None and demand[0] is job else None

    def cover(self) -> None:
        """Let no exception arrive until uncover(); raises one that is on its way."""
        if self._depth == 0 and (job := self.job) is not None:
            try:
                self._token.pop()
                self._covers = True
            except IndexError:
                self._covers = self._wait_for_the_token(job)
                for _ in range(100):  # it arrives where a loop turns, unless it has arrived before
                    pass
        self._depth += 1

    def uncover(self) -> None:
        """Let exceptions arrive again, if this was the outermost cover()."""
        self._depth -= 1
        if self._depth == 0 and self._covers:
            self._covers = False
            if self.job is not None:
                self._token.append(self.job)

    def _wait_for_the_token(self, job: Job | None) -> bool:
        """Say whether it could be had; if not, an exception was sent. Somebody has it, for a moment."""
        while self._struck is not job:
            try:
                self._token.pop()
                return True
            except IndexError:
                time.sleep(GLANCE)
        return False


class Shielded:
    """A block that an interrupted handler is let finish; of no effect in other threads than those of a crew."""

    def __enter__(self) -> None:
        grip: Grip | None = getattr(_here, "grip", None)
        if grip is not None:
            grip.cover()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        grip: Grip | None = getattr(_here, "grip", None)
        if grip is not None:
            grip.uncover()


_here = threading.local()
shielded = Shielded()


def grip_here() -> Grip | None:
    """Return the grip of this thread, if it has one: a crew's, or one that runs jobs in place."""
    grip: Grip | None = getattr(_here, "grip", None)
    return grip


def _raise_in(thread: int, error: ctypes.py_object[type[GraphileWorkerError]]) -> None:
    """Make the error arrive in that thread; an empty object calls back one that has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
