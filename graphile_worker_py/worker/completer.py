"""Completer: writes outcomes, as many as have piled up while the last ones were being written. There is no timer.

The way in is a bounded queue: while the database is away it fills, the crew blocks, and no more is claimed. A batch
is kept until it is written. If the answer to a write is lost, writing it again finds nothing to do, which then is no
sign that somebody else took the jobs.
"""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import attrs
import psycopg

from graphile_worker_py._database import PASSING, Database
from graphile_worker_py._service import Service
from graphile_worker_py.events import Events, JobCompleted, JobFailed, JobLost
from graphile_worker_py.jobs import Job, Kind, Outcome

logger = logging.getLogger(__name__)

LARGEST_BATCH = 1000
MOST_WAITING = 1000
LAST_TRIES = 10.0  # seconds


class Completer(Service):
    """The one place in a pool that writes outcomes. `on_settled` hears of every job that is written."""

    def __init__(
        self, database: Database, holder: str, *, events: Events, on_settled: Callable[[Iterable[Job]], None]
    ) -> None:
        super().__init__("completer")
        self._database = database
        self._holder = holder
        self._events = events
        self._on_settled = on_settled
        self._waiting: queue.Queue[Outcome] = queue.Queue(MOST_WAITING)
        self._batch: list[Outcome] = []
        self._tried = False  # the batch was sent before, and no answer came

    def put(self, outcome: Outcome) -> None:
        """Take an outcome to be written soon; blocks while too many wait."""
        self._waiting.put(outcome)
        self.wake()

    def step(self) -> float | None:
        """Write all that waits; return at once if there is nothing."""
        while self._batch or not self._waiting.empty():
            while len(self._batch) < LARGEST_BATCH and not self._waiting.empty():
                self._batch.append(self._waiting.get_nowait())
            self._write()
            self._batch, self._tried = [], False
        return None

    def unwritten(self) -> int:
        """Return how many outcomes still wait."""
        return len(self._batch) + self._waiting.qsize()

    def on_stop(self) -> None:
        """Write the last ones; if the database stays away their jobs are left to be recovered, like a crash's."""
        deadline = time.monotonic() + LAST_TRIES
        while self.unwritten():
            try:
                self.step()
            except psycopg.Error as error:
                if time.monotonic() > deadline:
                    logger.error("%s outcomes could not be written: %s", self.unwritten(), error)
                    return
                time.sleep(0.2)

    def _write(self) -> None:
        completed = [outcome for outcome in self._batch if outcome.kind is Kind.COMPLETED]
        failed = [outcome for outcome in self._batch if outcome.kind is Kind.FAILED]
        try:
            written = self._finish(completed) | self._fail(failed)  # each id with whether no attempt is left
        except psycopg.Error:
            self._tried = True
            raise
        self._on_settled([outcome.job for outcome in self._batch])
        for outcome in self._batch:
            if self._tried or outcome.job.id in written:
                self._tell(outcome, final=written.get(outcome.job.id, outcome.job.attempts >= outcome.job.max_attempts))
            else:
                self._events.emit(JobLost(outcome.job))

    def _finish(self, outcomes: list[Outcome]) -> dict[int, bool]:
        if not outcomes:
            return {}
        ids = [outcome.job.id for outcome in outcomes]
        return {row[0]: True for row in self._database.run("finish_jobs", {"ids": ids, "holder": self._holder})}

    def _fail(self, outcomes: list[Outcome]) -> dict[int, bool]:
        """Write failures together; if the database cannot take one of them, each alone, the bad one in plain words."""
        if not outcomes:
            return {}
        try:
            return self._record(outcomes)
        except PASSING:
            raise
        except psycopg.Error as error:
            if len(outcomes) > 1:
                return {id: final for outcome in outcomes for id, final in self._fail([outcome]).items()}
            text = f"failed, and its error or what remained of its batch could not be stored ({type(error).__name__})"
            return self._record([attrs.evolve(outcomes[0], error=text, remaining=None)])

    def _record(self, outcomes: list[Outcome]) -> dict[int, bool]:
        parameters = {
            "ids": [outcome.job.id for outcome in outcomes],
            "errors": [outcome.error for outcome in outcomes],
            "payloads": [_payload_text(outcome.remaining) for outcome in outcomes],
            "holder": self._holder,
        }
        return dict(cast("list[tuple[int, bool]]", self._database.run("fail_jobs", parameters)))

    def _tell(self, outcome: Outcome, *, final: bool) -> None:
        job = outcome.job
        if outcome.kind is Kind.COMPLETED:
            if self._events.wants(JobCompleted):
                self._events.emit(JobCompleted(job, outcome.duration))
        else:
            remaining = None if outcome.remaining is None else len(outcome.remaining)
            error = outcome.error or ""
            self._events.emit(JobFailed(job, error, outcome.exception, final, outcome.duration, remaining))


def _payload_text(remaining: list[Any] | None) -> str | None:
    # Plain JSON, not our own strict form: these items came out of the database and go back as they were.
    return None if remaining is None else json.dumps(remaining, separators=(",", ":"))
