"""The database that the model is compared with: its clock is the test's own, and all of it is seen in one round trip.

Functions now() and clock_timestamp() stand before PostgreSQL's in the search path, so that the time of each statement
is known to the microsecond, however slow the machine is.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from model import COLUMNS, columns
from psycopg.conninfo import make_conninfo

from graphile_worker_py import Job, Queue

BEGIN = datetime(2030, 1, 1, tzinfo=timezone.utc)
SWEPT_EVERY = 25  # examples, for each leaves dead rows behind

CLOCK = """
create schema model_clock;
create function model_clock.now() returns timestamptz language sql stable
    as $$ select current_setting('model.now')::timestamptz $$;
create function model_clock.clock_timestamp() returns timestamptz language sql stable as $$ select model_clock.now() $$;
create function model_clock.statement_timestamp() returns timestamptz language sql stable
    as $$ select model_clock.now() $$;
alter table graphile_worker._private_py_pools alter beat_at set default model_clock.now();
alter table graphile_worker._private_jobs alter updated_at set default model_clock.now();
"""
CLEAR = f"""
delete from graphile_worker._private_jobs;
delete from graphile_worker._private_job_queues;
delete from graphile_worker._private_tasks;
delete from graphile_worker._private_py_pools;
select setval('graphile_worker.jobs_id_seq1', 1, false), set_config('model.now', '{BEGIN.isoformat()}', false);
"""  # noqa: S608
SWEEP = (
    "vacuum graphile_worker._private_jobs, graphile_worker._private_job_queues, graphile_worker._private_tasks,"
    " graphile_worker._private_py_pools"
)
# All there is, a row for each job and for each queue without any; and what time it is from now on.
LOOK = """
select j.id, t.identifier, j.payload, q.queue_name, j.priority, j.run_at, j.attempts, j.max_attempts,
    split_part(j.last_error, ':', 1), j.updated_at, j.key, j.locked_at, j.locked_by, j.revision,
    array(select jsonb_object_keys(j.flags)), j.is_available, q.queue_name, q.id, q.locked_at, q.locked_by
from (select set_config('model.now', %s, false)) as clock (now)
left join (
    graphile_worker._private_jobs as j
    full join graphile_worker._private_job_queues as q on q.id = j.job_queue_id
    left join graphile_worker._private_tasks as t on t.id = j.task_id
) on true
order by j.id
"""


class Tables:
    """The database of a whole run of examples, over one connection."""

    def __init__(self, url: str) -> None:
        options = "-c search_path=model_clock,pg_catalog -c model.now=2030-01-01T00:00:00Z"
        self.queue = Queue(make_conninfo(url, options=options), max_size=1)
        self.run = self.queue.database.run
        self.execute(CLOCK)
        self.examples = self.claimed = 0

    def execute(self, script: str) -> None:
        with self.queue.database.connection() as connection:
            connection.execute(script)

    def clear(self) -> None:
        self.examples += 1
        if self.examples % SWEPT_EVERY == 0:
            self.execute(SWEEP)
        self.execute(CLEAR)

    def look(self, now: datetime) -> list[tuple[Any, ...]]:
        """Return all that is stored; what comes next happens at that time."""
        with self.queue.database.connection() as connection, connection.cursor(binary=True) as cursor:
            return cursor.execute(LOOK, [now.isoformat()], prepare=True).fetchall()


def shown(job: Job) -> tuple[Any, ...]:
    """Return a job that was returned as the model has it."""
    values = dict(zip(COLUMNS, columns(job), strict=True))
    values["last_error"] = job.last_error and job.last_error.partition(":")[0]
    return tuple(values.values())
