"""Service: a named thread with one body, which everything that goes on in the background shares.

A turn of work is one `step()`. It returns how many seconds to wait before the next one (None: until woken). wake()
ends the wait, also when it comes during a step, so nothing is missed in between. A step that raises is logged and
tried again after a capped, jittered back-off: a service ends only when it is stopped.
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

logger = logging.getLogger(__name__)

SHORTEST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0
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
    """A thread that repeats `step` until stopped. Subclasses write `step`, and `on_stop` if they must."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._woken = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"graphile-worker-py {name}", daemon=True)

    def start(self) -> None:
        """Start the thread; a service is started once."""
        self._thread.start()

    def wake(self) -> None:
        """Let the next step begin now."""
        if not self._woken.is_set():  # setting takes a lock, asking does not, and this is called for every job
            self._woken.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Ask the thread to end after the step it is in, wait up to timeout seconds, and say whether it has."""
        self.stopping.set()
        self.wake()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def step(self) -> float | None:
        """Do one turn of work; return the seconds to wait before the next, or None to wait until woken."""
        raise NotImplementedError

    def on_stop(self) -> None:
        """Let go of what the thread held; called in the thread, last."""

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._woken.wait(self._turn())
                self._woken.clear()
        finally:
            self.on_stop()

    def _turn(self) -> float | None:
        try:
            delay = self.step()
        except BaseException as error:  # whatever somebody else's code raised in here: a service ends when stopped
            self._back_off(error)
            return 0
        self._failures = 0
        return delay

    def _back_off(self, error: BaseException) -> None:
        """Log the error (a traceback only where it is not the database's) and wait; only stop() cuts this short."""
        self._failures += 1
        limit = min(LONGEST_BACKOFF, SHORTEST_BACKOFF * 2 ** min(self._failures, 10))
        delay = limit * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        expected = isinstance(error, psycopg.Error)
        logger.warning(
            "%s: %s; trying again in %.1f s", self.name, _first_line(error), delay, exc_info=None if expected else error
        )
        self.stopping.wait(delay)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
