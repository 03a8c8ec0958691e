"""Add jobs: add_jobs beside Node's addJobs, and single add_job calls beside the bare SQL call through psycopg.

A million from a generator shows that memory stays flat, its figure is "MB". Eight threads share one Queue, whose pool
has as many connections; the bare calls have a connection to a thread.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import psycopg
from measuring import Bench, run
from sides import NODE, produce, produce_in_node

from graphile_worker_py import Queue

PARTS = ("adding", "adding one by one")
CALL = "select * from graphile_worker.add_job(identifier => %s, payload => %s::json)"


def measure(bench: Bench, *, with_node: bool) -> None:
    """Measure in turn, the million once."""
    for number in bench.turns(3):
        if bench.wanted("adding"):
            many(bench, 200_000, with_node=with_node)
            if not number:
                many(bench, 1_000_000, with_node=False)
        if bench.wanted("adding one by one"):
            singly(bench)


def many(bench: Bench, jobs: int, *, with_node: bool) -> None:
    """Add many jobs, as a process of each side, to a database of its own."""
    count = bench.size(jobs)
    for side, command in [("ours", produce), *([(NODE, produce_in_node)] if with_node else [])]:
        with bench.database() as url:
            seconds, *memory = map(float, run(command(url, count)).split())
        figures = {"jobs/s": count / seconds, **({"MB": memory[0]} if memory else {})}
        bench.add("adding", f"{count:,} jobs", side, figures)


def singly(bench: Bench) -> None:
    """Add jobs by single calls: from one thread and from eight, by add_job and by the bare statement."""
    count = bench.size(5_000)
    for threads in (1, 8):
        case = "one thread" if threads == 1 else f"{threads} threads"
        for side, measured in (("ours", add), ("bare SQL", call)):
            with bench.database() as url:
                with Queue(url) as queue:
                    queue.migrate()
                    queue.add_job("noop", {"id": -1})  # the task is known from here on
                bench.add("adding one by one", case, side, {"calls/s": measured(url, count, threads)})


def add(url: str, jobs: int, threads: int) -> float:
    """Return calls a second of queue.add_job."""
    with Queue(url, min_size=threads, max_size=threads) as queue:

        def work() -> None:
            for number in range(jobs // threads):
                queue.add_job("noop", {"id": number})

        queue.job(1)  # connected
        return timed(work, jobs, threads)


def call(url: str, jobs: int, threads: int) -> float:
    """Return calls a second of the SQL function through psycopg alone."""

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for number in range(jobs // threads):
                connection.execute(CALL, ["noop", json.dumps({"id": number})]).fetchone()

    return timed(work, jobs, threads)


def timed(work: Callable[[], None], jobs: int, threads: int) -> float:
    """Return jobs a second of so many threads that work."""
    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return jobs // threads * threads / (time.perf_counter() - began)
