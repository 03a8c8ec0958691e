"""A limit in a fleet of processes, some of which are killed: never more at a time, and no slot is lost with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import environment
from plain_sql import eventually

from graphile_worker_py import JobSpec, Queue

AT_MOST = 3
JOBS = 400
KEYS = "ab"

WORKER = f"""
import sys
import time
import psycopg
from graphile_worker_py import Limit, Queue, WorkerPool

queue = Queue(sys.argv[1])

@queue.task(limit=Limit({AT_MOST}, key=lambda payload: payload["key"]))
def work(payload, ctx):
    with psycopg.connect(sys.argv[1], autocommit=True) as connection:
        run = connection.execute(
            "insert into runs (key, holder) values (%s, %s) returning id", (payload["key"], ctx.job.locked_by)
        ).fetchone()
        time.sleep(0.03)
        connection.execute("update runs set ended_at = clock_timestamp() where id = %s", run)

pool = WorkerPool(queue, 6, heartbeat=0.2, dead_after=2, poll_interval=0.2)
print(pool.id, flush=True)
pool.run()
"""  # noqa: S608 - it is no statement but a program

RUNS = """
create table runs (
    id integer generated always as identity, key text, holder text,
    began_at timestamptz default clock_timestamp(), ended_at timestamptz
)
"""
MOST_AT_A_TIME = """
select max(c.count) from (
    select (
        select count(*) from runs as o
        where o.key = r.key and o.began_at <= r.began_at and coalesce(o.ended_at, 'infinity') > r.began_at
    )
    from runs as r
) as c
"""


JOBS_LEFT = "select count(*) from graphile_worker._private_jobs"


class Worker:
    """A process with a pool; kill() is kill -9."""

    def __init__(self, program: Path, url: str) -> None:
        command = [sys.executable, "-W", "error", str(program), url]
        self._process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.pool = self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)


@pytest.fixture
def worker(tmp_path: Path, migrated_url: str) -> Iterator[Callable[[], Worker]]:
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(program, migrated_url))
        return started[-1]

    yield start
    for each in started:
        each.close()


def number(db: psycopg.Connection, statement: str) -> int:
    return int(db.execute(statement).fetchone()[0])  # type: ignore[arg-type, index]


def at_work(db: psycopg.Connection) -> set[str]:
    """Return the pools whose handlers run just now; those that were killed are not among them for long."""
    lately = "ended_at is null or ended_at > clock_timestamp() - interval '1 second'"
    return {pool for (pool,) in db.execute(f"select holder from runs where {lately}").fetchall()}  # noqa: S608


def test_never_more_at_a_time_in_four_processes_two_of_which_are_killed(
    worker: Callable[[], Worker], queue: Queue, db: psycopg.Connection
) -> None:
    db.execute(RUNS)
    fleet = {each.pool: each for each in [worker() for _ in range(4)]}
    flags = {key: [f"limit:{key}"] for key in KEYS}
    queue.add_jobs(JobSpec("work", {"key": key}, flags=flags[key]) for _ in range(JOBS // 2) for key in KEYS)
    killed = []
    for _ in range(2):
        eventually(lambda: at_work(db) & fleet.keys())
        doomed = fleet.pop((at_work(db) & fleet.keys()).pop())
        doomed.kill()
        killed.append((db.execute("select clock_timestamp()").fetchone()[0], doomed.pool))
    eventually(lambda: number(db, JOBS_LEFT) == 0, seconds=60)
    for each in killed:  # now, for the last of its statements may have come to the server after its death
        db.execute("update runs set ended_at = greatest(began_at, %s) where holder = %s and ended_at is null", each)
    assert number(db, "select count(*) from runs where ended_at is null") == 0
    assert number(db, MOST_AT_A_TIME) == AT_MOST
    assert number(db, "select count(distinct holder) from runs") >= 3
    assert number(db, "select count(*) from runs") >= JOBS
