"""Administration: what changes jobs that nobody works on, by the shared SQL functions, as Queue offers it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from graphile_worker_py._adding import listed, moment
from graphile_worker_py._database import Database
from graphile_worker_py.checks import LARGEST_ID, check_integer, check_run_at, check_text
from graphile_worker_py.jobs import Job

LOWEST = {"priority": -32768, "attempts": 0, "max_attempts": 1}


def remove_job(database: Database, job_key: str, *, connection: object) -> Job | None:
    """Delete the job of a key; see `Queue.remove_job`."""
    check_text("job_key", job_key, shortest=1, longest=512)
    rows = database.run("remove_job", {"job_key": job_key}, connection=connection)
    return Job(*rows[0]) if rows else None


def complete_jobs(database: Database, ids: Iterable[int], *, connection: object) -> list[Job]:
    """Delete jobs as if they were done; see `Queue.complete_jobs`."""
    return _change(database, "complete_jobs", ids, connection=connection)


def fail_jobs(database: Database, ids: Iterable[int], *, reason: str | None, connection: object) -> list[Job]:
    """Use up all attempts of jobs; see `Queue.permanently_fail_jobs`."""
    if reason is not None:
        check_text("reason", reason, longest=1_000_000)
    return _change(database, "permanently_fail_jobs", ids, connection=connection, reason=reason)


def reschedule_jobs(
    database: Database,
    ids: Iterable[int],
    *,
    run_at: datetime | timedelta | None,
    numbers: dict[str, int | None],
    connection: object,
) -> list[Job]:
    """Change jobs; `numbers`: priority, attempts and max_attempts; see `Queue.reschedule_jobs`."""
    if run_at is not None:
        check_run_at(run_at)
    for name, value in numbers.items():
        if value is not None:
            check_integer(name, value, lowest=LOWEST[name], highest=32767)
    return _change(database, "reschedule_jobs", ids, connection=connection, **moment(run_at), **numbers)


def run_jobs_now(database: Database, ids: Iterable[int], *, connection: object) -> list[Job]:
    """Make jobs due; see `Queue.run_jobs_now`."""
    return _change(database, "run_jobs_now", ids, connection=connection)


def unlock(database: Database, ids: Iterable[str], *, connection: object) -> None:
    """Take everything from these holders; see `Queue.force_unlock_workers`."""
    names = [check_text("ids", name, longest=10_000) for name in listed("ids", ids)]
    database.run("force_unlock_workers", {"ids": names}, connection=connection)


def _change(database: Database, statement: str, ids: Iterable[int], *, connection: object, **changes: Any) -> list[Job]:
    numbers = [check_integer("ids", id, lowest=-LARGEST_ID, highest=LARGEST_ID) for id in listed("ids", ids)]
    rows = database.run(statement, {"ids": numbers, **changes}, connection=connection)
    return [Job(*row) for row in rows]
