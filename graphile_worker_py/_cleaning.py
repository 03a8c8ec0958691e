"""Deleting what is of no more use: jobs without attempts, queues and identifiers without jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from graphile_worker_py._adding import listed
from graphile_worker_py._database import Database
from graphile_worker_py.checks import check_text
from graphile_worker_py.errors import InvalidJobSpec

CleanupTask = Literal["GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"]

# In the order they run: jobs first, so that the names only they used can go as well.
STATEMENTS: dict[CleanupTask, str] = {
    "DELETE_PERMAFAILED_JOBS": "delete_permafailed_jobs",
    "GC_TASK_IDENTIFIERS": "gc_task_identifiers",
    "GC_JOB_QUEUES": "gc_job_queues",
}


def clean_up(database: Database, tasks: Iterable[CleanupTask], *, keep: list[str]) -> dict[CleanupTask, int]:
    """Delete what `tasks` name and return how many rows of each; see `Queue.cleanup`."""
    chosen = list(listed("tasks", tasks))
    if any(name not in tuple(STATEMENTS) for name in chosen):
        got = ", ".join(map(str, chosen))
        raise InvalidJobSpec(f"tasks: expected some of {', '.join(STATEMENTS)}, got {got}")
    kept = {"keep": [check_text("keep_tasks", name, longest=128) for name in keep]}
    with database.connection() as connection, connection.transaction():
        database.run_on(connection, "limit_lock_wait")
        database.run_on(connection, "lock_jobs")
        return {
            name: database.run_on(connection, statement, kept)[0][0]
            for name, statement in STATEMENTS.items()
            if name in chosen
        }
