"""The tasks of jobs.py in a process that remembers, and at its end writes to the folder BENCH_LOG, a line each:

    claim MS                                  how long a claim took, the way to the database and back included
    run ID QUEUE START END LOCKED_AT PRIORITY RUN_AT
                                              a job of the task `record`; times in seconds, "-" for no queue

Remembering takes time of its own: what is measured here is claims, and order, but no throughput.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphile_worker_py import JobContext
from graphile_worker_py._database import Database

claims: list[float] = []
runs: list[tuple[object, ...]] = []
begin_by_index = Database.begin_by_index


def timed(self: Database, name: str, parameters: Any) -> Callable[[], Any]:
    """Time the statement that claims, from when it is sent to when its answer was read."""
    began = time.perf_counter()
    answer = begin_by_index(self, name, parameters)

    def rows() -> Any:
        found = answer()
        if name == "claim_jobs":
            claims.append(time.perf_counter() - began)
        return found

    return rows


def write() -> None:
    """Write what was remembered."""
    lines = [f"claim {seconds * 1000}" for seconds in claims]
    lines += [" ".join(["run", *map(str, run)]) for run in runs]
    Path(os.environ["BENCH_LOG"], str(os.getpid())).write_text("".join(f"{line}\n" for line in lines))


Database.begin_by_index = timed  # type: ignore[method-assign]
atexit.register(write)

from jobs import queue  # noqa: E402 - it waits at the gate: everything else comes first


@queue.task
def record(payload: Any, context: JobContext) -> None:
    """Remember when this job began and ended, and its place in the order of jobs."""
    began = time.perf_counter()
    job = context.job
    assert job.locked_at is not None
    place = job.locked_at.timestamp(), job.priority, job.run_at.timestamp()
    runs.append((job.id, payload["queue"] or "-", began, time.perf_counter(), *place))
