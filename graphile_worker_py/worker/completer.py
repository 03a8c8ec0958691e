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
from typing import TypeAlias

import attrs
import psycopg

from graphile_worker_py._database import PASSING, Database
from graphile_worker_py._service import Service
from graphile_worker_py.events import Events, JobCompleted, JobFailed, JobLost
from graphile_worker_py.jobs import Job, Kind, Outcome

logger = logging.getLogger(__name__)

Written: TypeAlias = dict[int, tuple[Outcome, bool]]  # what was written of each id, and whether no attempt is left

LARGEST_BATCH = 1000
MOST_WAITING = 1000
LAST_TRIES = 10.0  # seconds


class Completer(Service):
    """The one place in a pool that writes outcomes.

    `on_settled` hears of every job that is written; `give_back` takes those that were not begun after all, whose queue
    is not to be freed by that: the outcome of the job before them does it.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        *,
        events: Events,
        on_settled: Callable[[Iterable[Job]], None],
        give_back: Callable[[list[Job]], None],
    ) -> None:
        super().__init__("completer")
        self._database = database
        self._holder = holder
        self._events = events
        self._on_settled = on_settled
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
            while self._waiting and len(self._batch) < LARGEST_BATCH:
                self._batch.append(self._waiting.popleft())
            with self._room:
                self._room.notify_all()
            self._write()
            self._batch, self._tried = [], False
        return None

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
            written = self._finish(of_kind[Kind.COMPLETED]) | self._fail(of_kind[Kind.FAILED])
        except BaseException:
            self._tried = True
            raise
        ended = of_kind[Kind.COMPLETED] + of_kind[Kind.FAILED]
        self._on_settled(outcome.job for outcome in ended)
        for outcome in ended:
            if (done := written.get(outcome.job.id)) or self._tried:
                self._tell(*(done or (outcome, outcome.job.attempts >= outcome.job.max_attempts)))
            else:
                self._events.emit(JobLost(outcome.job))

    def _finish(self, outcomes: list[Outcome]) -> Written:
        """Delete what is done, together; if the database refuses one of them, that one has failed."""
        if not outcomes:
            return {}
        by_id = {outcome.job.id: outcome for outcome in outcomes}
        freeing = [o.job.id for o in outcomes if o.frees_queue and o.job.job_queue_id is not None]
        try:
            rows = self._database.run("finish_jobs", {"freeing": freeing, **self._claimed(outcomes)})
        except psycopg.Error as error:
            if isinstance(error, PASSING):
                raise
            if len(outcomes) > 1:
                return self._singly(self._finish, outcomes)
            text = f"done, but its row could not be deleted: {error}"
            return self._fail([attrs.evolve(outcomes[0], kind=Kind.FAILED, error=text, exception=error)])
        return {id: (by_id[id], True) for (id,) in rows}

    def _fail(self, outcomes: list[Outcome]) -> Written:
        """Write failures together; if the database cannot take one of them, each alone, the bad one in plain words."""
        if not outcomes:
            return {}
        try:
            return self._record(outcomes)
        except psycopg.Error as error:
            if isinstance(error, PASSING):
                raise
            if len(outcomes) > 1:
                return self._singly(self._fail, outcomes)
            text = f"failed, and its error or what remained of its batch could not be stored ({type(error).__name__})"
            return self._record([attrs.evolve(outcomes[0], error=text, kept=None)])

    def _record(self, outcomes: list[Outcome]) -> Written:
        by_id = {outcome.job.id: outcome for outcome in outcomes}
        parameters = {
            "errors": [outcome.error for outcome in outcomes],
            "kept": [None if outcome.kept is None else _array(outcome.kept) for outcome in outcomes],
            **self._claimed(outcomes),
        }
        return {id: (by_id[id], final) for id, final in self._database.run("fail_jobs", parameters)}

    def _singly(self, write: Callable[[list[Outcome]], Written], outcomes: list[Outcome]) -> Written:
        return {id: done for outcome in outcomes for id, done in write([outcome]).items()}

    def _claimed(self, outcomes: list[Outcome]) -> dict[str, object]:
        """Return the parameters by which a statement knows that we still hold these jobs, and since which claim."""
        jobs = [outcome.job for outcome in outcomes]
        return {"holder": self._holder, "ids": [job.id for job in jobs], "since": [job.locked_at for job in jobs]}

    def _tell(self, outcome: Outcome, final: bool) -> None:
        job = outcome.job
        if outcome.kind is Kind.COMPLETED:
            if self._events.wants(JobCompleted):
                self._events.emit(JobCompleted(job, outcome.duration))
        else:
            remaining = None if outcome.kept is None else len(outcome.kept)
            error = outcome.error or ""
            self._events.emit(JobFailed(job, error, outcome.exception, final, outcome.duration, remaining))


def _array(places: tuple[int, ...]) -> str:
    """Return places from 0 as the text of an array of places from 1: the array of arrays has to be one of texts."""
    return "{" + ",".join(str(place + 1) for place in places) + "}"
