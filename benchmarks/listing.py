"""Look through many jobs by each filter, in a database made for it: `python benchmarks/listing.py URL [JOBS]`.

The server has to run on this machine: beside the time stands how long the processor was at it, which says more where
others want it too. Searches have all the time they need, and are not run in parallel.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from graphile_worker_py import Queue

NAME = "gwpy_listing"
# A retry in 200, a failure in 2,500, a running job in 100,000; one of a task, and one with an error, that are rare.
FILL = """
insert into graphile_worker._private_tasks (identifier) select 'task_' || n from generate_series(1, 20) as n;
insert into graphile_worker._private_job_queues (queue_name) select 'queue_' || n from generate_series(1, 2000) as n;
insert into graphile_worker._private_jobs
  (task_id, job_queue_id, payload, priority, run_at, attempts, last_error, key, locked_at, locked_by)
select 1 + n % 19, case when n % 10 = 0 then 1 + n / 10 % 1999 end, json_build_object('id', n), n % 5,
  now() + case when n % 3 = 0 then interval '1 day' else interval '-1 hour' end,
  case when n % 2500 = 7 then 25 when n % 200 = 0 then 3 else 0 end,
  case when n % 2500 = 7 or n % 200 = 0 then 'ValueError: ' || n || repeat(E'\n  File "app.py", line 12', 12) end,
  case when n % 100 = 0 then 'key:' || n end,
  case when n % 100000 = 3 then now() end, case when n % 100000 = 3 then 'pool-' || n % 7 end
from generate_series(1, current_setting('gwpy.jobs')::integer) as n;
insert into graphile_worker._private_jobs (task_id, last_error) values (20, 'NeedleError: once');
vacuum analyze graphile_worker._private_jobs
"""
FILTERS: dict[str, dict[str, str | int]] = {
    "none": {},
    **{state: {"state": state} for state in ("ready", "scheduled", "running", "retrying", "failed")},
    "a task": {"task": "task_3"},
    "a rare task": {"task": "task_20"},
    "a queue": {"queue_name": "queue_7"},
    "a priority nobody has": {"priority": 77},
    "a rare error": {"error": "needleerror"},
    "a key": {"job_key": "key:100"},
}


def fill(url: str, jobs: int) -> None:
    """Install the schema, and insert the jobs without add_jobs, whose defaults would all be alike."""
    with Queue(url) as queue:
        queue.migrate()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select set_config('gwpy.jobs', %s, false)", [str(jobs)])
        for statement in FILL.split(";\n"):
            connection.execute(statement.encode())


def measure(url: str) -> None:
    """Print for each filter how long a page and a count took."""
    with Queue(make_conninfo(url, options="-c max_parallel_workers_per_gather=0"), max_size=1) as queue:
        with queue.database.connection() as connection:
            busy = processor(connection.info.backend_pid)
        for name, wanted in FILTERS.items():
            timed(f"page by {name}", busy, lambda wanted=wanted: queue.jobs(**wanted))
            timed(f"count by {name}", busy, lambda wanted=wanted: queue.jobs.count(**wanted))
        timed("queues", busy, queue.queues)
        timed("workers", busy, queue.workers)
        timed("stats", busy, queue.stats)


def processor(pid: int) -> Callable[[], float]:
    """Return what says for how many seconds a process has had a processor."""

    def seconds() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return seconds


def timed(name: str, busy: Callable[[], float], look: Callable[[], object]) -> None:
    """Print how long something took, and how long the server's process was at it."""
    began, was_busy = time.monotonic(), busy()
    look()
    print(f"{name:32} {time.monotonic() - began:8.3f} s {busy() - was_busy:8.2f} s", flush=True)


def main(url: str, jobs: str = "5000000") -> None:
    """Measure on a database that is made for it, and dropped."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {NAME}")
        try:
            fill(make_conninfo(url, dbname=NAME), int(jobs))
            measure(make_conninfo(url, dbname=NAME))
        finally:
            connection.execute(f"drop database {NAME} with (force)")


if __name__ == "__main__":
    main(*sys.argv[1:])
