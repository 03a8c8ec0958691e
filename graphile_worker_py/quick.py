"""One job from a script, over a connection of its own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from graphile_worker_py.jobs import Job, JobKeyMode
from graphile_worker_py.queue import Queue


def quick_add_job(
    conninfo: str | None,
    identifier: str,
    payload: Any = None,
    *,
    schema: str | None = None,
    queue_name: str | None = None,
    run_at: datetime | timedelta | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    job_key: str | None = None,
    job_key_mode: JobKeyMode | None = None,
    flags: Iterable[str] | None = None,
) -> Job:
    """Add one job over a connection opened for it and closed again; as `Queue.add_job` otherwise.

    For a script that adds a job or two. Not for loops: each call connects anew; make a Queue for that.
    """
    queue = Queue(conninfo, schema=schema)
    with queue.database.connect() as connection:
        return queue.add_job(
            identifier,
            payload,
            queue_name=queue_name,
            run_at=run_at,
            priority=priority,
            max_attempts=max_attempts,
            job_key=job_key,
            job_key_mode=job_key_mode,
            flags=flags,
            connection=connection,
        )
