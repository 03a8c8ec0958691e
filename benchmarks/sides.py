"""The sides of a comparison, each as processes of its own: our worker, Node's, and a bare loop of SQL statements.

A side prints "go" when it is about to claim, is stopped by SIGTERM, and is measured from the one to the moment when the
last row is gone. Each measurement has a database of its own, copied from a template that was just bulk-loaded.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from interop import node  # noqa: E402 - the path comes first

JOBS = "graphile_worker._private_jobs"


@attrs.frozen
class Side:
    """Who is measured: a name, and the command that works on a database, with its environment."""

    name: str
    command: Callable[[str], tuple[list[str], dict[str, str]]]


def ours(concurrency: int, *, work: str = "noop", once: bool = False) -> Side:
    """Return our worker, at its defaults but for the number of threads."""

    def command(url: str) -> tuple[list[str], dict[str, str]]:
        options = ["--concurrency", str(concurrency), "--work", work]
        return [sys.executable, str(HERE / "worker.py"), url, *options], dict(os.environ)

    return Side(f"ours, {concurrency} threads", command)


def nodes(concurrency: int, *, tuned: bool, version: str = node.NEWEST, work: str = "noop") -> Side:
    """Return Node's worker: as tuned for throughput as it goes, or as it comes."""

    def command(url: str) -> tuple[list[str], dict[str, str]]:
        options = ["tuned" if tuned else "default", str(concurrency), work]
        return (
            [node.binary(version), str(installed("worker.mjs")), *options],
            node.environment(version, url, {"NODE_ENV": "production"}),
        )

    return Side(f"Node {version}, {'tuned' if tuned else 'default'}, {concurrency}", command)


def node_is_there() -> bool:
    """Say whether Node's worker can be measured here; where not, print why."""
    try:
        node.installed()
        node.binary(node.NEWEST)
    except node.Unavailable as missing:
        print(f"without Node's worker: {missing}")
        return False
    return True


def loop() -> Side:
    """Return the bare loop: 500 rows a claim over one connection, by index, and nothing done with them."""
    return Side("bare loop", lambda url: ([sys.executable, str(HERE / "loop.py"), url], dict(os.environ)))


def installed(script: str) -> Path:
    """Return a copy of a script of ours where Node finds the packages."""
    target = node.installed() / f"bench-{script}"
    target.write_bytes((HERE / script).read_bytes())
    return target


@contextmanager
def database(url: str, template: str, name: str = "bench_run") -> Iterator[str]:
    """Make a database from a template, and drop it after."""
    with psycopg.connect(url, autocommit=True) as connection:
        drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        connection.execute(drop)
        make = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        connection.execute(make)
        connection.execute("checkpoint")
        yield make_conninfo(url, dbname=name)
        connection.execute(drop)


@contextmanager
def loaded(url: str, load: Callable[[str], object], name: str = "bench_template") -> Iterator[str]:
    """Make the template: migrated, loaded by `load`, kept from autovacuum, so that it stays as fresh as it is."""
    from graphile_worker_py import Queue

    with database(url, "template0", name) as target:
        with Queue(target) as queue, psycopg.connect(target, autocommit=True) as connection:
            queue.migrate()
            connection.execute(f"alter table {JOBS} set (autovacuum_enabled = off)")
            load(target)
            connection.execute(f"alter table {JOBS} reset (autovacuum_enabled)")
        yield name


def drain(side: Side, url: str, *, processes: int = 1, left: int = 0, limit: float = 300.0) -> dict[str, Any]:
    """Let a side work until at most `left` jobs are there; return seconds, and what it took of everything else."""
    with psycopg.connect(url, autocommit=True) as connection:
        (before,) = connection.execute(f"select count(*) from {JOBS}").fetchone() or (0,)
        (lsn,) = connection.execute("select pg_current_wal_lsn()").fetchone() or (None,)
        commits = _commits(connection)
        command, environment = side.command(url)
        running = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)
        ]
        for process in running:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "go":
                raise SystemExit(f"{side.name} did not start")
        began = time.perf_counter()
        done = _wait_until_gone(connection, left, began + limit)
        seconds = time.perf_counter() - began
        (wal,) = connection.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", [lsn]).fetchone() or (0,)
        usage = [_stopped(process) for process in running]
        jobs = before - left if done else before - _count(connection)
        return {
            "side": side.name,
            "jobs": jobs,
            "rate": jobs / seconds,
            "finished": done,
            "cpu_us": sum(used.ru_utime + used.ru_stime for used in usage) / max(jobs, 1) * 1e6,
            "memory_mb": max(used.ru_maxrss for used in usage) / 1024,
            "wal_bytes": float(wal) / max(jobs, 1),
            "commits": (_commits(connection) - commits) / max(jobs, 1),
        }


def _wait_until_gone(connection: psycopg.Connection, left: int, deadline: float) -> bool:
    """Look every 20 ms whether more than `left` rows are there; walk over no more than that."""
    query = f"select count(*) from (select from {JOBS} limit {left + 1}) as found"
    while (connection.execute(query).fetchone() or (0,))[0] > left:
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.02)
    return True


def _count(connection: psycopg.Connection) -> int:
    return int((connection.execute(f"select count(*) from {JOBS}").fetchone() or (0,))[0])


def _commits(connection: psycopg.Connection) -> int:
    time.sleep(1.1)  # the server's counters are a second behind
    connection.execute("select pg_stat_clear_snapshot()")
    query = "select xact_commit from pg_stat_database where datname = current_database()"
    return int((connection.execute(query).fetchone() or (0,))[0])


def _stopped(process: subprocess.Popen[str]) -> Any:
    process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if process.stdout is not None:
        process.stdout.close()
    return usage


def median(results: list[dict[str, Any]], figure: str) -> float:
    """Return the median of one figure over several runs."""
    return statistics.median(result[figure] for result in results)


def about(url: str) -> dict[str, Any]:
    """Return what has to be known beside the figures: versions, durability, the machine."""
    with psycopg.connect(url) as connection:
        names = "server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size"
        settings = {name: connection.execute(f"show {name}").fetchone()[0] for name in names}  # type: ignore[index]
    host = conninfo_to_dict(url).get("host", "")
    return {**settings, "python": sys.version.split()[0], "cores": os.cpu_count(), "socket": str(host).startswith("/")}
