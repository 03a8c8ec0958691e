"""Oversight: what a pool does about its running jobs, apart from running them.

It ends those whose time is over or that were cancelled, and writes how far they are.
"""

from __future__ import annotations

from collections.abc import Callable

from graphile_worker_py._grip import Grip
from graphile_worker_py.queue import Queue
from graphile_worker_py.worker.cancellations import Cancellations
from graphile_worker_py.worker.deadlines import Deadlines
from graphile_worker_py.worker.progress import ProgressWriter


class Oversight:
    """Three services over the threads of a crew; `hears` is set to what says whether notifications arrive."""

    def __init__(self, queue: Queue, holder: str, grips: list[Grip]) -> None:
        self.hears: Callable[[], bool] = lambda: False
        self._deadlines = Deadlines(grips, queue.tasks, queue.events)
        self._cancellations = Cancellations(
            queue.database, holder, grips, hears=self._do_hear, on_news=self._deadlines.wake
        )
        self._progress = ProgressWriter(queue.database, holder)
        self.hear = self._cancellations.hear
        self.tell = self._progress.tell

    def start(self) -> None:
        """Start the services."""
        for service in self.services():
            service.start()

    def stop(self) -> None:
        """End the services; all are told before the first is waited for."""
        for service in self.services():
            service.ask()
        for service in self.services():
            service.stop()

    def _do_hear(self) -> bool:
        return self.hears()

    def services(self) -> tuple[Deadlines, Cancellations, ProgressWriter]:
        """Return the three."""
        return self._deadlines, self._cancellations, self._progress
