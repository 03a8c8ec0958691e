"""The bare loop, as a process to be measured: claim 500, delete them, until SIGTERM; nothing is done with the jobs."""

from __future__ import annotations

import signal
import sys
import time

import psycopg

CLAIM = """
select set_config(name, 'off', true)
from unnest('{jit,enable_seqscan,enable_bitmapscan,enable_sort}'::text[]) as name;
with free as (
    select id from graphile_worker._private_jobs
    where is_available and job_queue_id is null and run_at <= now()
    order by priority, run_at limit 500 for update skip locked
)
update graphile_worker._private_jobs set attempts = attempts + 1, locked_at = now(), locked_by = 'loop'
where id = any (array(select id from free)) returning id, payload::text
"""


def main(url: str) -> None:
    """Claim and delete; wait a little where nothing is left."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with psycopg.connect(url, autocommit=True) as connection:
        print("go", flush=True)
        while True:
            cursor = connection.execute(CLAIM)
            cursor.nextset()
            ids = [row[0] for row in cursor.fetchall()]
            if ids:
                connection.execute("delete from graphile_worker._private_jobs where id = any (%s)", [ids])
            else:
                time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
