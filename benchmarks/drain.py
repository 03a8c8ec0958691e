"""Drain no-op jobs, beside a bare loop of claim and delete statements, in one run: `make bench`.

Both drain the same number of jobs from a fresh table, straight after the bulk load, in a process of their own, turn and
turn about; the medians and their ratio are printed. The loop takes 500 jobs a statement over one connection, plans by
index and JIT off, and does nothing with them: it is what the server can do at most with these statements.
Give a conninfo as the argument, or nothing for an embedded server.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from graphile_worker_py import JobSpec, Queue
from graphile_worker_py.embedded import EmbeddedPostgres

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


def loop(url: str) -> None:
    """Claim and delete until nothing is left."""
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            cursor = connection.execute(CLAIM)
            cursor.nextset()
            ids = [row[0] for row in cursor.fetchall()]
            if not ids:
                return
            connection.execute("delete from graphile_worker._private_jobs where id = any (%s)", [ids])


def worker(url: str, concurrency: int) -> None:
    """Run all that is ready through the library, at its defaults but for the number of threads."""
    with Queue(url) as queue:
        queue.task("noop")(lambda payload: None)
        queue.run_once(concurrency)


def measure(url: str, side: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Return jobs a second and peak memory in MB of one side, on a database of its own."""
    name = sql.Identifier("bench_drain")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        connection.execute(sql.SQL("create database {}").format(name))
    target = make_conninfo(url, dbname="bench_drain")
    with Queue(target) as queue:
        queue.migrate()
        queue.add_jobs(JobSpec("noop", {"id": number}) for number in range(arguments.jobs))
    command = [sys.executable, __file__, target, "--side", side, "--concurrency", str(arguments.concurrency)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    with psycopg.connect(target) as connection:
        left = connection.execute("select count(*) from graphile_worker._private_jobs").fetchone()
    if left != (0,):
        raise SystemExit(f"{side} left {left} jobs behind")
    seconds, memory = map(float, answer.stdout.split())
    return arguments.jobs / seconds, memory


def main() -> None:
    """Measure, or be the side that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--side", choices=["loop", "worker"])
    arguments = parser.parse_args()
    if arguments.side:
        began = time.perf_counter()
        loop(arguments.url) if arguments.side == "loop" else worker(arguments.url, arguments.concurrency)
        print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings={"fsync": "on"})).url
        rounds = [(measure(url, "worker", arguments), measure(url, "loop", arguments)) for _ in range(arguments.rounds)]
    ours, bare = ([result[side] for result in rounds] for side in (0, 1))
    ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, bare, strict=True))
    print(f"{arguments.jobs} no-op jobs, concurrency {arguments.concurrency}, median of {arguments.rounds} rounds")
    memory = max(result[1] for result in ours)
    print(f"worker     {statistics.median(r[0] for r in ours):10,.0f} jobs/s   {memory:5.0f} MB at most")
    print(f"bare loop  {statistics.median(r[0] for r in bare):10,.0f} jobs/s")
    print(f"ratio      {ratio:10.2f}")


if __name__ == "__main__":
    main()
