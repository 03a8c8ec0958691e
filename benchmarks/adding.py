"""Add jobs: add_jobs beside Node's addJobs, and single add_job calls beside the bare SQL call: part of `make bench`.

Each measurement has an empty database. `million` adds that many from a generator, and its figure is memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import psycopg
from sides import about, database, installed, loaded, median, node, node_is_there

from graphile_worker_py import JobSpec, Queue
from graphile_worker_py.embedded import EmbeddedPostgres

CALL = "select * from graphile_worker.add_job(identifier => %s, payload => %s::json)"


def add_many(url: str, jobs: int) -> float:
    """Return jobs a second of one add_jobs call from a generator."""
    with Queue(url) as queue:
        queue.job(1)  # connected
        began = time.perf_counter()
        queue.add_jobs(JobSpec("noop", {"id": number}) for number in range(jobs))
        return jobs / (time.perf_counter() - began)


def add_many_in_node(url: str, jobs: int) -> float:
    """Return jobs a second of Node's addJobs, in as many calls as it likes best (1,000 jobs each)."""
    command = [node.binary(node.NEWEST), str(installed("adding.mjs")), str(jobs)]
    environment = node.environment(node.NEWEST, url)
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return jobs / float(done.stdout.strip().splitlines()[-1])


def add_a_million(url: str, jobs: int) -> float:
    """Return megabytes at most of a process that adds so many from a generator."""
    command = [sys.executable, __file__, url, "--side", "million", "--jobs", str(jobs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def add_singly(url: str, jobs: int, threads: int = 1) -> float:
    """Return calls a second of queue.add_job."""
    with Queue(url, max_size=threads) as queue:

        def work() -> None:
            for number in range(jobs // threads):
                queue.add_job("noop", {"id": number})

        return _timed(work, jobs, threads)


def call_singly(url: str, jobs: int, threads: int = 1) -> float:
    """Return calls a second of the SQL function through psycopg alone, a connection to a thread."""

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for number in range(jobs // threads):
                connection.execute(CALL, ["noop", json.dumps({"id": number})]).fetchone()

    return _timed(work, jobs, threads)


def _timed(work: Any, jobs: int, threads: int) -> float:
    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return jobs / (time.perf_counter() - began)


def main() -> None:
    """Measure in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=["million"])
    arguments = parser.parse_args()
    if arguments.side:
        with Queue(arguments.url) as queue:
            queue.add_jobs((JobSpec("noop", {"id": n}) for n in range(arguments.jobs)), return_jobs=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    single = max(1, arguments.jobs // 40)
    cases = {
        "add_jobs, ours": lambda url: add_many(url, arguments.jobs),
        "addJobs, Node": lambda url: add_many_in_node(url, arguments.jobs),
        "add_job, ours": lambda url: add_singly(url, single),
        "add_job, bare SQL": lambda url: call_singly(url, single),
        "add_job, ours, 8 threads": lambda url: add_singly(url, single, 8),
        "add_job, bare SQL, 8 threads": lambda url: call_singly(url, single, 8),
    }
    if not node_is_there():
        del cases["addJobs, Node"]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings={"fsync": "on"})).url
        template = stack.enter_context(loaded(url, lambda target: None))
        for _ in range(arguments.rounds):
            for name, case in cases.items():
                with database(url, template) as target:
                    results[name].append({"rate": case(target)})
        with database(url, template) as target:
            memory = add_a_million(target, 5 * arguments.jobs)
        print(about(url))
    for name, runs in results.items():
        print(f"{name:30}{median(runs, 'rate'):10,.0f} jobs/s")
    pairs = ("add_jobs, ours", "addJobs, Node"), ("add_job, ours", "add_job, bare SQL")
    for mine, other in (*pairs, ("add_job, ours, 8 threads", "add_job, ours")):
        if other not in results:
            continue
        print(f"{mine} / {other}: {median(results[mine], 'rate') / median(results[other], 'rate'):.2f}")
    print(f"{5 * arguments.jobs:,} from a generator: {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
