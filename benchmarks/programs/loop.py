"""The bare loop: claim 500 jobs by the index, work on them, delete them, over one connection, until SIGTERM.

No queue of any kind can be faster with these statements. Arguments: a conninfo; burn, for a millisecond of the
processor for each job.
"""

from __future__ import annotations

import signal
import sys
import time

import gate
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


def main(url: str, *, burning: bool) -> None:
    """Claim, work and delete; wait a little where nothing is left."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    gate.wait()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            cursor = connection.execute(CLAIM)
            cursor.nextset()
            ids = [row[0] for row in cursor.fetchall()]
            for _ in ids if burning else ():
                burn()
            if ids:
                connection.execute("delete from graphile_worker._private_jobs where id = any (%s)", [ids])
            else:
                time.sleep(0.05)


def burn() -> None:
    """Use the processor for a millisecond."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass


if __name__ == "__main__":
    main(sys.argv[1], burning="burn" in sys.argv[2:])
