"""How long things take when there is little to do: latency, an idle worker, and whole commands.

Latency is from the moment the add has returned, so its transaction is committed, to the start of the handler, on a
worker that waits; both sides read the same clock of the machine. Adds are 5 ms apart. "after a second" is the same with
a second between them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from measuring import Bench, Side, run, started, stop
from psycopg.conninfo import conninfo_to_dict
from sides import PROGRAMS, THREADS, cli, nodes, ours, produce

from graphile_worker_py import Queue

PARTS = ("latency", "idle", "commands")
STATEMENTS = (
    "select coalesce(sum(calls), 0) from pg_stat_statements join pg_database d on d.oid = dbid where datname = %s"
)
CONNECTIONS = "select count(*) from pg_stat_activity where datname = %s and backend_type = 'client backend'"


def measure(bench: Bench, *, with_node: bool) -> None:
    """Measure in turn."""
    for number in bench.turns(3):
        if bench.wanted("latency"):
            for is_ours in (True, False) if with_node else (True,):
                latency(bench, is_ours=is_ours)
        if bench.wanted("idle") and not number:
            idle(bench, ours())
            if with_node:
                idle(bench, nodes())
        if bench.wanted("commands"):
            commands(bench)


def latency(bench: Bench, *, is_ours: bool) -> None:
    """Measure one side once."""
    samples = bench.size(1000)
    with bench.database() as url, tempfile.NamedTemporaryFile("r") as log, Queue(url) as queue:
        environment = {"BENCH_LOG": log.name}
        side = ours(environment=environment) if is_ours else nodes(tuned=False, environment=environment)
        run(side.produce(url, 1))
        with started(side, url) as (running, let_go):
            let_go()
            while next(iter(queue.jobs()), None):  # it works
                time.sleep(0.05)
            added = []
            for number in range(samples):
                queue.add_job("stamp", number)
                added.append(time.time())
                time.sleep(0.005)
            while next(iter(queue.jobs()), None):
                time.sleep(0.05)
            stop(running[0])
        begun = {int(number): float(at) for at, number in map(str.split, log)}
    times = sorted((begun[number] - added[number]) * 1000 for number in range(samples))
    figures = {"p50 ms": times[samples // 2], "p99 ms": times[samples * 99 // 100], "max ms": times[-1]}
    bench.add("latency", "add to start, idle worker", side.name, figures)


def idle(bench: Bench, side: Side) -> None:
    """Measure what a worker takes that has nothing to do; looked at from another database, so as not to be counted."""
    seconds = max(0.5, 30.0 * bench.scale)
    with bench.database() as url, psycopg.connect(bench.url, autocommit=True) as connection:
        run(side.produce(url, 1))
        name = str(conninfo_to_dict(url)["dbname"])
        with started(side, url) as (running, let_go):
            let_go()
            time.sleep(min(3.0, seconds))  # what a start takes is not idle
            if _counts_statements(connection):
                connection.execute("create extension if not exists pg_stat_statements")
                connection.execute("select pg_stat_statements_reset()")  # it forgets some as it fills up
            before = _activity(connection, name)
            ticks, began = _ticks(running[0].pid), time.perf_counter()
            time.sleep(seconds)
            share = (_ticks(running[0].pid) - ticks) / os.sysconf("SC_CLK_TCK") / (time.perf_counter() - began)
            after = _activity(connection, name)
            passed = time.perf_counter() - began
            (connections,) = connection.execute(CONNECTIONS, [name]).fetchone() or (0,)
            memory = _resident(running[0].pid)
            stop(running[0])
    per_second = {f"{what}/s": (after[what] - before[what]) / passed for what in after}
    bench.add(
        "idle",
        f"{THREADS} at a time",
        side.name,
        {"% of a core": share * 100, "MB": memory, "connections": connections, **per_second},
    )


def commands(bench: Bench) -> None:
    """Measure whole commands, from their start to their end: several, and keep each."""
    with bench.database() as url:
        run(produce(url, 1))
        once = cli("run", "jobs:queue", "--once", "--database", url)
        add = cli("add", "noop", "{}", "--database", url)
        _wall(once)  # takes the job that is there
        for _ in range(max(1, round(4 * bench.scale))):
            for case, command in (("run --once, nothing to do", once), ("add", add)):
                bench.add("commands", case, "ours", {"ms": _wall(command) * 1000})
                if case == "add":
                    _wall(once)


def _wall(command: tuple[list[str], dict[str, str]]) -> float:
    began = time.perf_counter()
    subprocess.run(command[0], env=command[1], cwd=PROGRAMS, check=True, capture_output=True)
    return time.perf_counter() - began


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _activity(connection: psycopg.Connection, name: str) -> dict[str, int]:
    """Return the transactions in a database so far, and statements where pg_stat_statements counts them."""
    time.sleep(1.1)  # a connection adds its own to the counters within a second
    query = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
    found = {"transactions": int((connection.execute(query, [name]).fetchone() or (0,))[0])}
    if _counts_statements(connection):
        found["statements"] = int((connection.execute(STATEMENTS, [name]).fetchone() or (0,))[0])
    return found


def _counts_statements(connection: psycopg.Connection) -> bool:
    (loaded,) = connection.execute("show shared_preload_libraries").fetchone() or ("",)
    return "pg_stat_statements" in loaded
