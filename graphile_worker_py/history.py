"""History: the runs that are over, of worker pools that keep them; read here, written by worker.recorder."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

import attrs

from graphile_worker_py._database import Database
from graphile_worker_py.checks import LARGEST_ID, check_integer, check_text
from graphile_worker_py.errors import InvalidJobSpec, NotSupported, SchemaMissing
from graphile_worker_py.jobs import moment

RunOutcome = Literal["completed", "retrying", "snoozed", "failed"]


@attrs.frozen
class JobRun:
    """One run of a job that is over.

    `outcome`: completed, retrying (it failed and is tried again), snoozed, or failed (for good). `attempt` counts from
    1; `finished_at` is when the outcome was written, and `duration` how many seconds the handler took. `error` is what
    was stored of it, cut to some lines; None of a completed one. `host` and `pool_id` say where it ran.
    """

    id: int
    job_id: int
    task_identifier: str
    attempt: int
    outcome: RunOutcome
    claimed_at: datetime = attrs.field(converter=moment)
    finished_at: datetime = attrs.field(converter=moment)
    duration: float
    error: str | None = attrs.field(repr=False)
    host: str
    pool_id: str


class History:
    """What `queue.history` is: call it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(
        self,
        *,
        job_id: int | None = None,
        task: str | None = None,
        outcome: RunOutcome | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[JobRun]:
        """Return up to `limit` (1 to 10,000) runs, the latest first; `before`: only those before the run of that id.

        Raises InvalidJobSpec, and NotSupported where the schema has no table for it.
        """
        if outcome is not None and outcome not in get_args(RunOutcome):
            raise InvalidJobSpec(f"outcome: expected completed, retrying, snoozed or failed, got {outcome!r}")
        for name, number in (("job_id", job_id), ("before", before)):
            if number is not None:
                check_integer(name, number, lowest=-LARGEST_ID, highest=LARGEST_ID)
        if task is not None:
            check_text("task", task, longest=128)
        check_integer("limit", limit, lowest=1, highest=10_000)
        filters = {"job_id": job_id, "task": task, "outcome": outcome, "before": before, "limit": limit}
        try:
            rows = self._database.run("list_history" if job_id is None else "list_history_of_job", filters)
        except SchemaMissing as error:
            raise NotSupported(f"there is no table for a history here: run queue.migrate() ({error})") from error
        return [JobRun(*row) for row in rows]
