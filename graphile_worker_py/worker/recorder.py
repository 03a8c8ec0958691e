"""Recorder: what is kept of jobs that are over, results and a history, for those who ask.

It is written with the outcome, in one statement or one transaction, so what is kept is true: there is no result of a
job that is to run again, and no run is entered twice. Where nobody asks, outcomes are written as if there were no
recorder. In a schema without our tables a pool does without, and says so once.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from graphile_worker_py._database import Database
from graphile_worker_py._own_connection import AnyConnection
from graphile_worker_py.errors import NotSupported, SchemaMissing
from graphile_worker_py.history import RunOutcome
from graphile_worker_py.jobs import Job, Kind, Outcome
from graphile_worker_py.results import CHANNEL
from graphile_worker_py.tasks import Tasks

FORGET_AT_ONCE = 5000  # rows of each kind

logger = logging.getLogger(__name__)


class Recorder:
    """Writes results of the tasks that keep them and, if `history` says for how long to keep it, a history of all runs.

    `holder` is the pool's id.
    """

    def __init__(self, database: Database, holder: str, *, tasks: Tasks, history: timedelta | None) -> None:
        self._database = database
        self._tasks = tasks
        self._history = None if history is None else history.total_seconds()
        self._where = {"holder": holder, "host": socket.gethostname(), "history": self._history, "channel": CHANNEL}
        self._can = True  # until the database says otherwise
        self._forgets = True  # the same

    def wants(self) -> bool:
        """Say whether outcomes are to be written through here."""
        return self._can and (self._history is not None or any(task.keep_result is not None for task in self._tasks))

    @contextmanager
    def if_it_can(self) -> Iterator[None]:
        """End the block, and from now on do without, where our tables are not there or not ours to write."""
        try:
            yield
        except (SchemaMissing, NotSupported) as error:
            self._can = False
            logger.warning("neither results nor a history are kept: %s", error)

    def finish(self, outcomes: Sequence[Outcome], claimed: Mapping[str, object]) -> set[int]:
        """Delete finished jobs and keep what is to be kept of them; return the ids of those that were not found."""
        kept = [outcome for outcome in outcomes if outcome.result is not None]
        parameters = {
            **claimed,
            **self._where,
            "kept": [outcome.job.id for outcome in kept],
            "results": [outcome.result for outcome in kept],
            "keep_for": [self._keeps(outcome.job) for outcome in kept],
            "seconds": _durations(outcomes) if self._history is not None else "{}",
        }
        rows = self._database.run("finish_and_record_jobs", parameters)
        return {id for (id,) in rows if id is not None}

    def enter(self, connection: AnyConnection, outcomes: Sequence[Outcome], final: Mapping[int, bool | None]) -> None:
        """Enter failures, in the transaction that has written them; `final` is what fail_jobs returned.

        An outcome that it does not name was decided by a transaction of the handler's, which has completed the job, or
        changed nothing.
        """
        runs = [
            (outcome, _what(outcome, is_final))
            for outcome in outcomes
            if (is_final := final.get(outcome.job.id)) is not None
            or (outcome.kind is Kind.DECIDED and outcome.job.id not in final)
        ]
        over = [str(o.job.id) for o, what in runs if what == "failed" and self._keeps(o.job)]
        if runs and (over or self._history is not None):
            parameters = {
                **self._where,
                "ids": [o.job.id for o, _ in runs],
                "claimed_at": [o.job.locked_at for o, _ in runs],
                "seconds": [o.duration for o, _ in runs],
                "attempts": [o.job.attempts for o, _ in runs],
                "outcomes": [what for _, what in runs],
                "tasks": [o.job.task_identifier for o, _ in runs],
                "errors": [None if what == "completed" else o.error for o, what in runs],
                "over": ",".join(over[:300]) or None,  # the others are found by looking
            }
            self._database.run_on(connection, "record_runs", parameters)

    def forget(self) -> bool:
        """Delete some of what has expired, whoever kept it; say whether there may be more."""
        if not self._forgets:
            return False
        try:
            ((results, runs),) = self._database.run(
                "forget_expired", {"history": self._history, "count": FORGET_AT_ONCE}
            )
        except (SchemaMissing, NotSupported):  # said where somebody wants to keep something
            self._forgets = False
            return False
        return FORGET_AT_ONCE in (results, runs)

    def _keeps(self, job: Job) -> float:
        """Return for how many seconds results of this task are kept, 0 if they are not."""
        task = self._tasks.get(job.task_identifier)
        return 0.0 if task is None or task.keep_result is None else task.keep_result.total_seconds()


def _what(outcome: Outcome, is_final: bool | None) -> RunOutcome:
    """Say what became of a run; `is_final` is None for one that its handler's transaction has completed."""
    if is_final is None:
        return "completed"
    if is_final:
        return "failed"
    return "snoozed" if outcome.verdict.snoozed else "retrying"


def _durations(outcomes: Sequence[Outcome]) -> str:
    """Return an object in JSON: how many seconds each job took, by its id."""
    return "{" + ",".join([f'"{outcome.job.id}":{outcome.duration}' for outcome in outcomes]) + "}"
