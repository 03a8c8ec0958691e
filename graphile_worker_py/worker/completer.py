"""Completer: writes outcomes, as many as have piled up while the last ones were being written. There is no timer.

The way in is a bounded queue: while the database is away it fills, the crew blocks, and no more is claimed. A batch
is kept until it is written. If the answer to a write is lost, writing it again finds nothing to do, which then is no
sign that somebody else took the jobs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

import attrs
import psycopg

from graphile_worker_py._database import Database, is_passing
from graphile_worker_py._service import Service
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.events import Events, JobCompleted, JobFailed, JobLost
from graphile_worker_py.jobs import Job, Kind, Outcome

logger = logging.getLogger(__name__)


LARGEST_BATCH = 1000
MOST_WAITING = 1000
LAST_TRIES = 10.0  # seconds


class Completer(Service):
    """The one place in a pool that writes outcomes.

    `on_settled` hears of every job that is written; `holds` says whether the pool holds a job by the claim it came
    from; `give_back` takes those that were not begun after all, whose queue
    is not to be freed by that: the outcome of the job before them does it.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        *,
        events: Events,
        on_settled: Callable[[Iterable[Job]], None],
        holds: Callable[[Job], bool],
        give_back: Callable[[list[Job]], None],
    ) -> None:
        super().__init__("completer")
        self._database = database
        self._holder = holder
        self._events = events
        self._on_settled = on_settled
        self._holds = holds
        self._give_back = give_back
        self._waiting: deque[Outcome] = deque()
        self._room = threading.Condition()
        self._batch: list[Outcome] = []
        self._tried = False  # the batch was sent before, and no answer came

    def put(self, outcome: Outcome) -> None:
        """Take an outcome to be written soon; blocks while too many wait."""
        self._waiting.append(outcome)
        self.wake()
        if len(self._waiting) >= MOST_WAITING:
            with self._room:
                self._room.wait_for(lambda: len(self._waiting) < MOST_WAITING)

    def step(self) -> float | None:
        """Write all that waits; return at once if there is nothing."""
        while self._batch or self._waiting:
            self._fill_batch()
            self._write()
            self._batch, self._tried = [], False
        return None

    def _fill_batch(self) -> None:
        """Take what waits; what another claim of this very pool holds by now is no longer this attempt's to write.

        That is asked again of a batch that could not be written: one list of claims guards all of it.
        """
        while self._waiting and len(self._batch) < LARGEST_BATCH:
            self._batch.append(self._waiting.popleft())
        lost = [outcome for outcome in self._batch if not self._holds(outcome.job)]
        for outcome in lost:
            self._batch.remove(outcome)
            if outcome.kind is not Kind.RETURNED:  # that was given back already, by release()
                self._events.emit(JobLost(outcome.job))
        with self._room:
            self._room.notify_all()

    def unwritten(self) -> int:
        """Return how many outcomes still wait."""
        return len(self._batch) + len(self._waiting)

    def on_stop(self) -> None:
        """Write the last ones; if the database stays away their jobs are left to be recovered, like a crash's."""
        deadline = time.monotonic() + LAST_TRIES
        while self.unwritten():
            try:
                self.step()
            except Exception as error:
                if time.monotonic() > deadline:
                    logger.error("%s outcomes could not be written: %s", self.unwritten(), error)
                    return
                time.sleep(0.2)

    def _write(self) -> None:
        """Write the batch. What goes back goes first: the queue of its run is freed by the outcome before it."""
        of_kind: dict[Kind, list[Outcome]] = {kind: [] for kind in Kind}
        for outcome in self._batch:
            of_kind[outcome.kind].append(outcome)
        try:
            if returned := of_kind[Kind.RETURNED]:
                self._give_back([outcome.job for outcome in returned])
            news = [*self._finish(of_kind[Kind.COMPLETED]), *self._fail(of_kind[Kind.FAILED])]
        except BaseException:
            self._tried = True
            raise
        self._on_settled([outcome.job for outcome in self._batch if outcome.kind is not Kind.RETURNED])
        for event in news:
            self._events.emit(event)

    def _finish(self, outcomes: list[Outcome]) -> list[object]:
        """Delete what is done, together, and return the events; if the database refuses one, that one has failed."""
        if not outcomes:
            return []
        freeing = [o.job.id for o in outcomes if o.frees_queue and o.job.job_queue_id is not None]
        try:
            rows = self._database.run("finish_jobs", {"freeing": freeing, **self._claimed(outcomes)})
        except (psycopg.Error, GraphileWorkerError) as error:
            if is_passing(error):
                raise
            if len(outcomes) > 1:
                return [event for outcome in outcomes for event in self._finish([outcome])]
            text = f"done, but its row could not be deleted: {error}"
            return self._fail([attrs.evolve(outcomes[0], kind=Kind.FAILED, error=text, exception=error)])
        missing = set() if self._tried else {row[0] for row in rows}
        news: list[object] = [JobLost(o.job) for o in outcomes if o.job.id in missing] if missing else []
        if self._events.wants(JobCompleted):
            news += [JobCompleted(o.job, o.duration) for o in outcomes if o.job.id not in missing]
        return news

    def _fail(self, outcomes: list[Outcome]) -> list[object]:
        """Write failures together, and return the events; one the database cannot take is put in plain words.

        One that it does not take even so is left locked, for no other outcome is to wait for it.
        """
        if not outcomes:
            return []
        try:
            return self._record(outcomes)
        except (psycopg.Error, GraphileWorkerError) as error:
            if is_passing(error):
                raise
            if len(outcomes) > 1:
                return [event for outcome in outcomes for event in self._fail([outcome])]
            text = f"failed, and its error or what remained of its batch could not be stored ({type(error).__name__})"
        try:
            return self._record([attrs.evolve(outcomes[0], error=text, kept=None)])
        except psycopg.Error as error:
            if is_passing(error):
                raise
            logger.error("job %s has failed, which cannot be written; it stays locked: %s", outcomes[0].job.id, error)
            return []

    def _record(self, outcomes: list[Outcome]) -> list[object]:
        parameters = {
            "errors": [outcome.error for outcome in outcomes],
            "kept": [None if o.kept is None else _array(place + 1 for place in o.kept) for o in outcomes],
            **self._claimed(outcomes),
        }
        final: dict[int, bool] = dict(self._database.run("fail_jobs", parameters))
        return [self._failed(outcome, final.get(outcome.job.id)) for outcome in outcomes]

    def _failed(self, outcome: Outcome, final: bool | None) -> object:
        job = outcome.job
        if final is None:
            if not self._tried:
                return JobLost(job)
            final = job.attempts >= job.max_attempts
        remaining = None if outcome.kept is None else len(outcome.kept)
        return JobFailed(job, outcome.error or "", outcome.exception, final, outcome.duration, remaining)

    def _claimed(self, outcomes: list[Outcome]) -> dict[str, object]:
        """Return the parameters by which a statement knows that we still hold these jobs, and since which claims."""
        since: list[datetime | None] = []
        for outcome in outcomes:
            if not since or since[-1] != outcome.job.locked_at:
                since.append(outcome.job.locked_at)
        return {"holder": self._holder, "ids": _array(outcome.job.id for outcome in outcomes), "since": since}


def _array(numbers: Iterable[int]) -> str:
    """Return PostgreSQL's text for an array: psycopg dumps a list element by element, ten times as slowly."""
    return "{" + ",".join(map(str, numbers)) + "}"
