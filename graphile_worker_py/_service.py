"""Service: a named thread with one body, which everything that goes on in the background shares.

A turn of work is one `step()`. It returns how many seconds to wait before the next one (None: until woken). wake()
ends the wait, also when it comes during a step, so nothing is missed in between. A step that raises is logged and
tried again after a capped, jittered back-off, or as soon as the database is back: a service ends only when it is
stopped. Once it has been told to, it waits for no answer of the database for long.
"""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
import time
from typing import TypeVar

import psycopg

from graphile_worker_py._outage import Outage, first_line, is_passing
from graphile_worker_py._watched import Hurry, hurried

logger = logging.getLogger(__name__)

SHORTEST_BACKOFF = 0.1
LONGEST_BACKOFF = 4.0  # five services together then try less than twice a second
HEED = 0.5  # seconds that a signal may go unnoticed

T = TypeVar("T")


def next_of(messages: queue.SimpleQueue[T], timeout: float | None = None) -> T:
    """Return the next message, or raise queue.Empty after `timeout` seconds; for a main thread that handles signals.

    A signal that arrives just before the thread waits for the queue's lock, or in another thread, does not end that
    wait, and its handler would run whenever something else does. So this waits for a short time, again and again.
    """
    ends = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = ends - time.monotonic()
        try:
            return messages.get(timeout=max(0.0, min(left, HEED)))
        except queue.Empty:
            if left <= HEED:
                raise


class Service:
    """A thread that repeats `step` until stopped. Subclasses write `step`, and `on_stop` if they must.

    outage: what is known of the database it works with, where it does.
    """

    def __init__(self, name: str, outage: Outage | None = None) -> None:
        self.name = name
        self._outage = outage or Outage()
        self._hurry = Hurry()
        self.stopping = threading.Event()
        self._woken = threading.Event()
        self._moved_at = math.inf
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"graphile-worker-py {name}", daemon=True)

    def start(self) -> None:
        """Start the thread; a service is started once."""
        self._thread.start()

    def wake(self) -> None:
        """Let the next step begin now."""
        if not self._woken.is_set():  # setting takes a lock, asking does not, and this is called for every job
            self._woken.set()

    def ask(self) -> None:
        """Ask the thread to end after the step it is in; do not wait for it."""
        self._hurry.begin()
        self.stopping.set()
        self.wake()
        self._outage.stir()

    def stop(self, timeout: float | None = None) -> bool:
        """Ask the thread to end, wait up to timeout seconds, and say whether it has."""
        self.ask()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def moved(self) -> None:
        """Take note that the thread is at work; for a step that goes on for long."""
        self._moved_at = time.monotonic()

    @property
    def still_for(self) -> float:
        """Return for how many seconds the thread has been in one step without a move; 0 where it waits for the next."""
        return max(0.0, time.monotonic() - self._moved_at)

    @property
    def has_ended(self) -> bool:
        """Return whether the thread was started, and is no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def step(self) -> float | None:
        """Do one turn of work; return the seconds to wait before the next, or None to wait until woken."""
        raise NotImplementedError

    def on_stop(self) -> None:
        """Let go of what the thread held; called in the thread, last."""

    def _run(self) -> None:
        with hurried(self._hurry):
            try:
                while not self.stopping.is_set():
                    self._turn()
            finally:
                self.on_stop()

    def _turn(self) -> None:
        try:
            self.moved()
            delay = self.step()
            self._failures = 0
            self._moved_at = math.inf
            self._woken.wait(delay)
        except BaseException as error:  # whatever somebody else's code has thrown in here: a service ends when stopped
            self._back_off(error)
        self._woken.clear()

    def _back_off(self, error: BaseException) -> None:
        """Log the error, with a traceback only where it is not the database's, and wait; wake() does not end this."""
        self._failures += 1
        self._moved_at = math.inf
        limit = min(LONGEST_BACKOFF, SHORTEST_BACKOFF * 2 ** min(self._failures, 10))
        delay = limit * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        if is_passing(error):
            self._outage.note(self.name, error, delay)
        else:
            expected = isinstance(error, psycopg.Error)
            message = "%s: %s; trying again in %.1f s"
            logger.warning(message, self.name, first_line(error), delay, exc_info=None if expected else error)
        self._outage.pause(delay, self.stopping)
