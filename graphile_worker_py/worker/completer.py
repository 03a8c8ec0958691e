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
from collections.abc import Callable, Mapping

import attrs
import psycopg

from graphile_worker_py._database import Database, Row
from graphile_worker_py._outage import is_passing
from graphile_worker_py._service import Service
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.events import Events, JobCompleted, JobFailed, JobLost, JobSnoozed
from graphile_worker_py.jobs import AGAIN, Job, Kind, Outcome, moment
from graphile_worker_py.worker.recorder import Recorder

logger = logging.getLogger(__name__)


LARGEST_BATCH = 1000
MOST_WAITING = 1000


class Completer(Service):
    """The one place in a pool that writes outcomes.

    `on_settled` hears of every job that is written, and of the seconds their handlers took; `held` are the jobs that
    the pool holds, by id, each as the claim it came from; `give_back` takes those that were not begun after all, whose
    queue is not to be freed by that: the outcome of the job before them does it. `recorder` keeps what somebody wants
    to know of jobs that are over.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        *,
        events: Events,
        on_settled: Callable[[list[Job], float], None],
        held: Mapping[int, Job],
        give_back: Callable[[list[Job]], None],
        recorder: Recorder,
    ) -> None:
        super().__init__("completer", database.outage)
        self._database = database
        self._holder = holder
        self._events = events
        self._on_settled = on_settled
        self._held = held
        self._give_back = give_back
        self._recorder = recorder
        self._waiting: deque[Outcome] = deque()
        self._room = threading.Condition()
        self._batch: list[Outcome] = []
        self._tried = False  # the batch was sent before, and no answer came
        self.last_try_at = 0.0  # when stopped, the last outcomes are tried until then; by time.monotonic()

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
            self.moved()
            self._fill_batch()
            self._write()
            self._batch, self._tried = [], False
        return None

    def _fill_batch(self) -> None:
        """Take what waits; what another claim of this very pool holds by now is no longer this attempt's to write.

        That is asked again of a batch that could not be written: one list of claims guards all of it.
        """
        batch, waiting, held = self._batch, self._waiting, self._held
        while waiting and len(batch) < LARGEST_BATCH:
            batch.append(waiting.popleft())
        lost = [outcome for outcome in batch if held.get(outcome.job.id) is not outcome.job]
        for outcome in lost:
            batch.remove(outcome)
            if outcome.kind is not Kind.RETURNED:  # that was given back already, by release()
                self._events.emit(JobLost(outcome.job))
        with self._room:
            self._room.notify_all()

    def unwritten(self) -> int:
        """Return how many outcomes still wait."""
        return len(self._batch) + len(self._waiting)

    def on_stop(self) -> None:
        """Write the last ones; if the database stays away their jobs are left to be recovered, like a crash's."""
        while self.unwritten():
            try:
                self.step()
            except Exception as error:
                if not is_passing(error) or time.monotonic() > self.last_try_at:
                    logger.error("%s outcomes could not be written: %s", self.unwritten(), error)
                    return
                time.sleep(0.2)

    def _write(self) -> None:
        """Write the batch. What goes back goes first: the queue of its run is freed by the outcome before it."""
        returned, completed, failed, decided = (
            [outcome for outcome in self._batch if outcome.kind is kind]
            for kind in (Kind.RETURNED, Kind.COMPLETED, Kind.FAILED, Kind.DECIDED)
        )
        try:
            if returned:
                self._give_back([outcome.job for outcome in returned])
            news = [*self._finish(completed), *self._fail(failed), *self._decide(decided)]
        except BaseException:
            self._tried = True
            raise
        written = [*completed, *failed, *decided]
        self._on_settled([o.job for o in written], sum([o.duration for o in written]))
        for event in news:
            self._events.emit(event)

    def _finish(self, outcomes: list[Outcome]) -> list[object]:
        """Delete what is done, together, and return the events; if the database refuses one, that one has failed."""
        if not outcomes:
            return []
        try:
            not_found = self._deleted(outcomes)
        except (psycopg.Error, GraphileWorkerError) as error:
            if is_passing(error):
                raise
            if len(outcomes) > 1:
                return [event for outcome in outcomes for event in self._finish([outcome])]
            text = f"done, but its row could not be deleted: {error}"
            return self._fail([attrs.evolve(outcomes[0], kind=Kind.FAILED, error=text, exception=error)])
        missing = set() if self._tried else not_found
        news: list[object] = [JobLost(o.job) for o in outcomes if o.job.id in missing] if missing else []
        if self._events.wants(JobCompleted):
            news += [JobCompleted(o.job, o.duration) for o in outcomes if o.job.id not in missing]
        return news

    def _deleted(self, outcomes: list[Outcome]) -> set[int]:
        """Delete jobs, keep what is to be kept of them, and return the ids of those that were not found."""
        claimed = self._claimed(outcomes)
        if self._recorder.wants():
            with self._recorder.if_it_can():
                return self._recorder.finish(outcomes, claimed)
        return {row[0] for row in self._database.run("finish_jobs", claimed)}

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
            "kept": [None if o.kept is None else _array([place + 1 for place in o.kept]) for o in outcomes],
            **_verdicts(outcomes),
            **self._claimed(outcomes),
        }
        rows = self._written(outcomes, parameters)
        final = _finality(rows)
        over = {id for id, _, is_over in rows if is_over}
        return [
            self._failed(o, final.get(o.job.id), is_over=o.job.id in over)
            if o.job.id in final or o.kind is not Kind.DECIDED
            else self._decided(o)
            for o in outcomes
        ]

    def _written(self, outcomes: list[Outcome], parameters: dict[str, object]) -> list[Row]:
        """Write failures, and what is to be kept of them; return what fail_jobs does."""
        if self._recorder.wants():
            with self._recorder.if_it_can(), self._database.connection() as connection, connection.transaction():
                rows = self._database.run_on(connection, "fail_jobs", parameters)
                self._recorder.enter(connection, outcomes, _finality(rows))
                return rows
        return self._database.run("fail_jobs", parameters)

    def _decide(self, outcomes: list[Outcome]) -> list[object]:
        """Write as failed what no transaction of its handler's has deleted; of the rest only the queues are freed."""
        news = self._fail(outcomes)
        done = {event.job.id for event in news if isinstance(event, (JobCompleted, JobLost))}
        freed = [o.job for o in outcomes if o.job.id in done and o.job.job_queue_id is not None and o.frees_queue]
        if freed:
            queues = [job.job_queue_id for job in freed]
            since = [job.locked_at for job in freed]
            self._database.run("free_queues", {"holder": self._holder, "queues": queues, "since": since})
        return news

    def _decided(self, outcome: Outcome) -> object:
        job = outcome.job
        if outcome.exception is not None:
            logger.warning("job %s was completed in a transaction of its handler, which then failed", job.id)
        return JobCompleted(job, outcome.duration)

    def _failed(self, outcome: Outcome, final: bool | None, *, is_over: bool) -> object:
        job = outcome.job
        if final is None:
            if not self._tried:
                return JobLost(job)
            spent = job.attempts >= job.max_attempts and not outcome.verdict.snoozed
            final = is_over or spent or outcome.verdict.final
        remaining = None if outcome.kept is None else len(outcome.kept)
        if outcome.verdict.snoozed and not final:
            return JobSnoozed(job, outcome.exception, outcome.duration, remaining)
        return JobFailed(
            job, outcome.error or "", outcome.exception, final, outcome.duration, remaining, outcome.given_up
        )

    def _claimed(self, outcomes: list[Outcome]) -> dict[str, object]:
        """Return the parameters by which a statement knows that we still hold these jobs, and since which claims."""
        since = {at for outcome in outcomes if (at := outcome.job.raw_locked_at) is not None}
        ids = _array([outcome.job.id for outcome in outcomes])
        freeing = [o.job.id for o in outcomes if o.frees_queue and o.job.job_queue_id is not None]
        return {"holder": self._holder, "ids": ids, "since": [moment(at) for at in since], "freeing": freeing}


def _finality(rows: list[Row]) -> dict[int, bool | None]:
    """Return what fail_jobs says of each job: whether it has failed for good, None if it is not ours any more."""
    return {id: final for id, final, _ in rows}


def _verdicts(outcomes: list[Outcome]) -> dict[str, object]:
    """Return what the verdicts say, a list for each parameter; nothing at all where all jobs wait as in Node."""
    if all(outcome.verdict is AGAIN for outcome in outcomes):
        return {name: [] for name in ("delays", "run_ats", "final", "snoozed", "keyed")}
    verdicts = [outcome.verdict for outcome in outcomes]
    return {
        "delays": [verdict.delay for verdict in verdicts],
        "run_ats": [verdict.run_at for verdict in verdicts],
        "final": [verdict.final for verdict in verdicts],
        "snoozed": [verdict.snoozed for verdict in verdicts],
        "keyed": [outcome.job.key is not None for outcome in outcomes],
    }


def _array(numbers: list[int]) -> str:
    """Return PostgreSQL's text for an array: psycopg dumps a list element by element, ten times as slowly."""
    return f"{{{str(numbers)[1:-1]}}}"
