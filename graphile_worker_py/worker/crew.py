"""Crew: the threads that run handlers. They take jobs, run them, pass outcomes on; they never touch the database."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from graphile_worker_py.jobs import Job, Outcome


class Crew:
    """`size` threads that call work(job) for each job that take() returns, and pass the outcome to deliver()."""

    def __init__(
        self,
        size: int,
        *,
        take: Callable[[], Job | None],
        work: Callable[[Job], Outcome],
        deliver: Callable[[Outcome], None],
    ) -> None:
        self._take = take
        self._work = work
        self._deliver = deliver
        self._lock = threading.Lock()
        self._running: dict[int, Job] = {}
        self._left = size
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"graphile-worker-py crew {number}", daemon=True)
            for number in range(1, size + 1)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def running(self) -> list[Job]:
        """Return the jobs whose handlers have not returned."""
        with self._lock:
            return list(self._running.values())

    def wait(self, timeout: float | None) -> bool:
        """Wait up to timeout seconds, or until hurry() is called, for all threads to end; say whether they have.

        They end once take() has returned None to each.
        """
        try:
            if self._left:
                self.news.get(timeout=timeout)
        except queue.Empty:
            return False
        if self._left:
            return False
        for thread in self._threads:
            thread.join()
        return True

    def hurry(self) -> None:
        """End a wait() now; may be called in a signal handler, for SimpleQueue.put is safe there."""
        self.news.put("hurry")

    def _run(self) -> None:
        while (job := self._take()) is not None:
            number = threading.get_ident()
            with self._lock:
                self._running[number] = job
            self._deliver(self._work(job))
            with self._lock:
                del self._running[number]
        with self._lock:
            self._left -= 1
            if not self._left:
                self.news.put("all threads have ended")
