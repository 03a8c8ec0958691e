"""Drills in which the database is there, and cannot or will not: it is full, read-only, locked, strict, upgraded."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from drills.catalogue import drill
from drills.scene import Scene
from drills.servers import Unavailable, own_folder
from graphile_worker_py import Queue

BACK = 30.0  # seconds
TRIES = 2.0  # a second, of each worker


def connections_tried(scene: Scene, position: int) -> int:
    """Return how often workers tried to connect, by the server's log from a position on."""
    received = re.findall(r"too many clients|remaining connection slots", scene.server.log()[position:])
    return len(received)


@drill(
    "connections-exhausted",
    "all connections of the server taken by others, and our own ended, for 20 s",
    "each worker waits, with ≤ 2 tries a second; back ≤ 30 s",
)
def connections_exhausted(scene: Scene) -> None:
    scene.server.settings |= {"max_connections": "30"}
    scene.start()
    kick = "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ '^(worker|producer)-'"
    with ExitStack() as hogs:
        with scene.fault("no connection free"):
            scene.server.execute(kick)
            hog(scene, hogs)
            scene.watch(2)
            position, since = len(scene.server.log()), time.monotonic()
            for producer in scene.producers:
                producer.stop()  # its tries are not the workers'
            scene.watch(scene.lasting(18, 6))
            tried = connections_tried(scene, position) / (time.monotonic() - since) / len(scene.workers)
            hogs.close()
        freed = time.time()
        scene.add_producer()
        scene.watch(scene.lasting(30, 15))
    scene.settle()
    scene.at_most("tries a second of each worker", tried, TRIES)
    scene.at_most("until 95 % (s)", scene.recovery(freed), BACK)


def hog(scene: Scene, hogs: ExitStack) -> None:
    """Take connections as an ordinary role until there are none left, a second long: some are just being given up."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            hogs.enter_context(contextlib.closing(psycopg.connect(scene.server.conninfo(tcp=False))))
        except psycopg.OperationalError:
            scene.watch(0.01)


@drill("idle-sessions", "300 idle sessions of others for 15 s", "≥ 95 % of the rate")
def idle_sessions(scene: Scene) -> None:
    scene.server.settings |= {"max_connections": "400"}
    scene.start()
    with ExitStack() as others, scene.fault("300 idle sessions") as fault:
        for _ in range(300):
            others.enter_context(psycopg.connect(scene.server.conninfo(tcp=False)))
        scene.watch(scene.lasting(15, 5))
    scene.settle()
    scene.at_least("rate during, share of the usual", scene.share(fault.began, fault.ended), 0.95)


@contextmanager
def small_disk(scene: Scene) -> Iterator[Path]:
    """Mount a small file system in memory, and move the database there."""
    disk = own_folder(scene.folder / "disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0777", "tmpfs", disk],  # noqa: S607 - from PATH
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"needs to mount a tmpfs (root on Linux): {done.stderr.strip()}")
    try:
        own_folder(disk / "space")
        scene.server.start()
        scene.server.execute(f"create tablespace small location '{disk}/space'")
        scene.server.execute("alter database app set tablespace small", dbname="postgres")
        yield disk
    finally:
        scene.server.stop()
        subprocess.run(["umount", "-l", disk], check=False)  # noqa: S607


@drill(
    "disk-full", "no space left where the tables are, for 20 s (a small tmpfs)", "all alive, nothing lost, back ≤ 30 s"
)
def disk_full(scene: Scene) -> None:
    with small_disk(scene) as disk:
        scene.start()
        with scene.fault("disk full"):
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            # What has room in pages that are there goes on for a while: until a table, or an index, must grow.
            full = "could not extend file"
            scene.wait(lambda: full in scene.server.log(), 60, "the tables to need space")
            scene.watch(scene.lasting(20, 5))
            filler.unlink()
        freed = time.time()
        scene.watch(scene.lasting(30, 15))
        scene.exactly("workers that ended", sum(not worker.is_running for worker in scene.workers), 0)
        scene.settle()
        scene.at_most("until 95 % (s)", scene.recovery(freed), BACK)


@drill(
    "read-only",
    "default_transaction_read_only for new sessions, and all old ones ended, for 20 s",
    "each worker waits, with ≤ 2 tries a second; back ≤ 30 s, though its sessions began as read-only ones",
)
def read_only(scene: Scene) -> None:
    scene.start()
    kick = "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ '^(worker|producer)-'"
    refused = "cannot execute .* in a read-only transaction"
    with scene.fault("read-only"):
        scene.server.execute("alter database app set default_transaction_read_only = on")
        scene.server.execute(kick)
        for producer in scene.producers:
            producer.stop()
        scene.watch(2)
        position, since = len(scene.server.log()), time.monotonic()
        scene.watch(scene.lasting(18, 6))
        tried = len(re.findall(refused, scene.server.log()[position:])) / (time.monotonic() - since) / 2
        scene.server.execute("alter database app reset default_transaction_read_only")
    writable = time.time()
    scene.add_producer()
    scene.watch(scene.lasting(30, 20))
    scene.settle()
    scene.at_most("tries a second of each worker", tried, TRIES)
    scene.at_most("until 95 % (s)", scene.recovery(writable), BACK)


# Locks.


def locked(scene: Scene, kind: str, during: Callable[[psycopg.Connection, float], object]) -> None:
    """Do something to the table of jobs, and see that it costs time and nothing else."""
    scene.start()
    superuser = scene.server.conninfo(tcp=False, user="postgres")
    with psycopg.connect(superuser, autocommit=True) as connection, scene.fault(kind) as fault:
        during(connection, time.monotonic() + scene.lasting(20, 5))
    scene.watch(scene.lasting(15, 10))
    scene.settle()
    scene.at_most("until 95 % (s)", scene.recovery(fault.ended), 5)


@drill(
    "lock-table",
    "the table of jobs locked by a transaction for 20 s",
    "no attempt charged, nothing done twice, 95 % ≤ 5 s after",
)
def lock_table(scene: Scene) -> None:
    def hold(connection: psycopg.Connection, until: float) -> None:
        with connection.transaction():
            connection.execute("lock table graphile_worker._private_jobs in access exclusive mode")
            scene.watch(until - time.monotonic())

    locked(scene, "LOCK TABLE", hold)


@drill(
    "rewrite-table",
    "VACUUM FULL and REINDEX of the tables in turn, without pause, for 20 s",
    "no attempt charged, nothing done twice, 95 % ≤ 5 s after",
)
def rewrite_table(scene: Scene) -> None:
    tables = ("graphile_worker._private_jobs", "graphile_worker._private_job_queues")

    def rewrite(connection: psycopg.Connection, until: float) -> None:
        while time.monotonic() < until:
            for table in tables:
                connection.execute(f"vacuum full {table}".encode())
                connection.execute(f"reindex table {table}".encode())

    locked(scene, "VACUUM FULL, REINDEX", rewrite)


@drill(
    "deadlocks",
    "transactions of others that lock running jobs one by one in the wrong order, for 20 s; ours lose each deadlock",
    "deadlocks happened, were retried, and charged no attempt; 95 % ≤ 5 s after",
)
def deadlocks(scene: Scene) -> None:
    scene.server.settings |= {"deadlock_timeout": "50ms"}
    count = "select deadlocks from pg_stat_database where datname = 'app'"

    def collide(connection: psycopg.Connection, until: float) -> None:
        connection.execute("set deadlock_timeout = '10s'")  # so that the others find it first
        while time.monotonic() < until:
            lock_backwards(connection)

    locked(scene, "deadlocks", collide)
    scene.at_least("deadlocks", scene.server.execute(count)[0][0], 1)


def lock_backwards(connection: psycopg.Connection) -> None:
    """Lock jobs that are running, the last first, with time for a batch of outcomes to come from the other end."""
    with contextlib.suppress(psycopg.OperationalError), connection.transaction():
        ids = connection.execute(
            "select id from graphile_worker._private_jobs where locked_at is not null order by id desc limit 16"
        ).fetchall()
        for (job_id,) in ids:
            connection.execute("select from graphile_worker._private_jobs where id = %s for update", [job_id])
            time.sleep(random.uniform(0, 0.03))  # noqa: S311 - no secret


@drill(
    "serializable",
    "default_transaction_isolation = serializable for all sessions, for 30 s",
    "serialization failures are retried and charge no attempt; nothing lost, nothing done twice",
)
def serializable(scene: Scene) -> None:
    scene.server.start()
    scene.server.execute("alter database app set default_transaction_isolation = 'serializable'")
    scene.start(wait=False)
    scene.wait(lambda: scene.ledger.number("select count(*) from attempts"), 30, "jobs")
    with scene.fault("serializable") as fault:
        scene.watch(scene.lasting(30, 10))
    scene.settle()
    scene.state("jobs a second", scene.rate(fault.began, fault.ended))
    failures = len(re.findall("could not serialize access", scene.server.log()))
    scene.state("serialization failures", failures)


# An upgrade.

AS_IT_WAS = """
delete from graphile_worker.migrations where id > 19;
drop table graphile_worker._private_py_migrations, graphile_worker._private_py_pools;
drop table graphile_worker._private_py_timeouts, graphile_worker._private_py_progress;
drop table graphile_worker._private_py_results, graphile_worker._private_py_history;
drop table graphile_worker._private_py_limits, graphile_worker._private_py_slots, graphile_worker._private_py_starts;
drop index graphile_worker._private_py_queued_jobs;
"""
BACKLOG = """insert into graphile_worker._private_jobs (task_id, run_at, payload)
select t.id, now() + interval '1 year', '{"n": 0}'
from graphile_worker._private_tasks t, generate_series(1, %s) where t.identifier = 'work'"""


@drill(
    "upgrade",
    "the schema upgraded from migration 19, as Node 0.17 leaves it, with 200,000 jobs in it, under load",
    "no wait for a lock > 2 s, nothing lost, no attempt charged",
)
def upgrade(scene: Scene) -> None:
    scene.server.settings |= {"log_lock_waits": "on", "deadlock_timeout": "100ms"}
    scene.server.start()
    scene.server.execute(AS_IT_WAS)
    scene.start()
    scene.server.execute(BACKLOG, [200_000])
    scene.watch(2)
    with scene.fault("upgrade") as fault, Queue(scene.server.conninfo()) as queue:
        applied = queue.migrate()
    scene.watch(3)
    scene.server.execute("delete from graphile_worker._private_jobs where run_at > now() + interval '1 month'")
    scene.settle()
    scene.exactly("migrations applied", len(applied), 1)
    scene.state("upgrade (s)", fault.ended - fault.began)
    waits = [float(found) / 1000 for found in re.findall(r"acquired \w+ on .* after ([\d.]+) ms", scene.server.log())]
    scene.at_most("longest wait for a lock (s)", max(waits, default=0.0), 2)
    scene.at_most("longest time without a job done (s)", scene.longest_gap(fault.began - 1, fault.ended + 2), 2)
