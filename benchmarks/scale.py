"""Measure where queues fall off a cliff, and how far ours scales, in one run, and print one table: `make bench-scale`.

Parts: cliffs, width, backlog, handlers, snapshot, checks. Ten minutes of it are those under a held snapshot.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import checks
import cliffs
import psycopg
from measuring import HERE, Bench, drain, drained, main, run, started, stop
from sides import PROGRAMS, THREADS, loop, ours, produce

from graphile_worker_py import Queue


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure every part that is wanted."""
    for name, part in PARTS.items():
        if bench.wanted(name):
            part(bench)


def width(bench: Bench) -> None:
    """Drain with more and more threads, then with more and more processes; deadlocks are counted."""
    count = bench.size(100_000)
    for _ in bench.turns():
        for threads in (1, 2, 4, 8, 16, 24, 32, 64):
            narrow(bench, "threads", threads, count)
        for processes in (1, 2, 3, 4):
            narrow(bench, "processes", processes, count)


def narrow(bench: Bench, what: str, number: int, count: int) -> None:
    """Drain with so many threads, or processes."""
    side = ours(number if what == "threads" else THREADS)
    with bench.database() as url:
        run(side.produce(url, count))
        figures = drain(side, url, count, processes=number if what == "processes" else 1)
    kept = {name: figures[name] for name in ("jobs/s", "CPU us/job", "MB", "deadlocks")}
    bench.add("width", what, str(number), kept)


def backlog(bench: Bench) -> None:
    """Drain long backlogs, once each, and compare the last tenth with the first."""
    for size in (1_000_000, 5_000_000):
        count = bench.size(size)
        with bench.database() as url:
            with Queue(url) as queue, psycopg.connect(url, autocommit=True) as db:
                queue.migrate()
                queue.add_job("noop")
                cliffs.fill(db, count - 1, "priority", "0")
            figures, seen = drained(ours(), url, count, limit=1200)
        seen.append((count / figures["jobs/s"], count))
        found = {
            "jobs/s": figures["jobs/s"],
            "first tenth": pace(seen, 1, count // 10),
            "last tenth": pace(seen, count * 9 // 10, count),
            "MB": figures["MB"],
        }
        bench.add("backlog", "drained", f"{count:,} jobs", found)


def pace(seen: list[tuple[float, int]], begin: int, end: int) -> float:
    """Return the jobs a second between two ids, as near to them as somebody looked, the start left out."""
    (began, first) = next(look for look in seen if look[1] > begin or look[1] == seen[-1][1])
    (ended, last) = next(look for look in seen if look[1] >= end)
    return (last - first) / (ended - began) if ended > began else 0.0


def handlers(bench: Bench) -> None:
    """Drain jobs whose handlers take time: waiting for 5 ms, 50 at a time; and burning 1 ms, in two processes."""
    waiting, burning = bench.size(50_000), bench.size(10_000)
    cases = (
        ("wait 5 ms, 50 at a time", ours(50, task="sleep"), waiting, 1),
        ("burn 1 ms, two processes", ours(1, task="burn"), burning, 2),
        ("burn 1 ms, two processes", ours(None, task="burn"), burning, 2),
        ("burn 1 ms, two processes", loop(burning=True), burning, 2),
    )
    for _ in bench.turns():
        for case, side, count, processes in cases:
            with bench.database() as url:
                run(side.produce(url, count))
                figures = drain(side, url, count, processes=processes)
            ideal = 50 / 0.005 if processes == 1 else 2 / 0.001
            kept = {"jobs/s": figures["jobs/s"], "of the ideal": figures["jobs/s"] / ideal}
            bench.add("handlers", case, side.name, kept)


def snapshot(bench: Bench) -> None:
    """Offer 800 jobs/s while a REPEATABLE READ transaction keeps every dead row visible to itself."""
    seconds, rate = max(2.0, 600.0 * bench.scale), 800
    with bench.database() as url, psycopg.connect(url) as holder, tempfile.TemporaryDirectory() as log:
        run(produce(url, 0))
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from graphile_worker._private_jobs")
        side = ours(module="watched", environment={"BENCH_LOG": log})
        offer = [sys.executable, str(PROGRAMS / "offer.py"), url, str(rate), str(seconds)]
        with started(side, url) as (running, let_go), Queue(url) as queue:
            let_go()
            offering = subprocess.Popen(offer, stdout=subprocess.PIPE, text=True)
            added = int(offering.communicate()[0])
            left = sum(stats.ready + stats.running for stats in queue.stats())
            time.sleep(1)
            stop(running[0])
        lines = [line for path in Path(log).iterdir() for line in path.read_text().splitlines()]
    claims = sorted(float(line.split()[1]) for line in lines if line.startswith("claim "))
    figures = {
        "of the offered": (added - left) / (rate * seconds),
        "claim p50 ms": claims[len(claims) // 2],
        "claim p95 ms": claims[len(claims) * 95 // 100],
        "left at the end": float(left),
    }
    bench.add("snapshot", f"{rate} jobs/s offered for {seconds:,.0f} s", "ours", figures)


PARTS = {
    "checks": checks.measure,
    "cliffs": cliffs.measure,
    "width": width,
    "backlog": backlog,
    "handlers": handlers,
    "snapshot": snapshot,
}

if __name__ == "__main__":
    main(str(__doc__), HERE / "results" / "scale.json", measure, parts=PARTS, rounds=3)
