"""ProgressWriter: writes how far the jobs of a pool are: the newest of each, all together, at most once a second."""

from __future__ import annotations

import logging
import threading
import time

from graphile_worker_py._database import Database
from graphile_worker_py._outage import first_line, is_passing
from graphile_worker_py._service import Service
from graphile_worker_py.errors import NotSupported, SchemaMissing
from graphile_worker_py.jobs import Job

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two writes

News = tuple[int, int | None, str | None]  # done, total, message


class ProgressWriter(Service):
    """Takes what handlers tell of their progress, and writes it for the pool that holds their jobs."""

    def __init__(self, database: Database, holder: str) -> None:
        super().__init__("progress", database.outage)
        self._database = database
        self._holder = holder
        self._lock = threading.Lock()
        self._news: dict[int, tuple[Job, News]] = {}
        self._next_at = 0.0
        self._has_table = True

    def tell(self, job: Job, news: News) -> None:
        """Take what a handler tells; what it told before and is not written yet is forgotten."""
        with self._lock:
            self._news[job.id] = job, news
        self.wake()

    def step(self) -> float | None:
        """Write what is new, if it is time for that; return when it will be."""
        early = self._next_at - time.monotonic()
        if not self._news:
            return None
        if early > 0:
            self.stopping.wait(early)  # what is told meanwhile need not wake anybody
        self._next_at = time.monotonic() + INTERVAL
        self._write()
        return 0

    def on_stop(self) -> None:
        """Write what was told last, if that can be done now: jobs that have failed keep it."""
        try:
            self._write()
        except Exception as error:
            logger.info("the last progress of jobs could not be written: %s", error)

    def _write(self) -> None:
        with self._lock:
            news, self._news = self._news, {}
        if not news or not self._has_table:
            return
        told = list(news.values())
        try:
            self._database.run(
                "write_progress",
                {
                    "holder": self._holder,
                    "ids": [job.id for job, _ in told],
                    "attempts": [job.attempts for job, _ in told],
                    "done": [done for _, (done, _, _) in told],
                    "totals": [total for _, (_, total, _) in told],
                    "messages": [message for _, (_, _, message) in told],
                },
            )
        except (SchemaMissing, NotSupported):
            self._has_table = False
            logger.info("no table of progress here: what handlers tell of it is not kept")
        except Exception as error:
            if not is_passing(error):  # such as a letter that the database's encoding lacks: drop it, the next may do
                logger.warning("the progress of %s jobs could not be written: %s", len(told), first_line(error))
                return
            with self._lock:
                self._news = news | self._news
            raise
