"""Reproduce four defects of Node's worker, at its pinned versions, beside ours, in one run, and print one table.

    1. Named queues crawl: the next claim races the release of the queue, loses, and waits for the next poll.
    2. A job that ends after SIGTERM is logged as completed, but its row stays locked, to be run again in four hours.
    3. runOnce leaves jobs of a named queue behind, for the same reason as the first.
    4. An executable that does not read its input ends the whole worker.

Every measurement has a database and a process of its own, a schema installed by the worker it is about, and that
worker's default settings but for the concurrency. Give a conninfo as the argument, or nothing for an embedded server.
It takes about three minutes, most of them spent in the first defect.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sides import HERE, installed, node

from graphile_worker_py import Queue, WorkerPool
from graphile_worker_py.embedded import EmbeddedPostgres

OURS = "ours"
SIDES = (*node.VERSIONS, OURS)
ROUNDS = 5  # of the second defect
DEADLINE = 150


class Trial:
    """One side, on a database of its own."""

    def __init__(self, server: str, side: str) -> None:
        self.side = side
        name = sql.Identifier("bench_defects")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
            connection.execute(sql.SQL("create database {}").format(name))
        self.url = make_conninfo(server, dbname="bench_defects")
        self.run("install")

    def start(self, what: str, concurrency: int = 1, jobs: int = 0) -> subprocess.Popen[str]:
        """Start a process that does what is asked, on this side."""
        numbers = [str(concurrency), str(jobs)]
        if self.side == OURS:
            return self._process([sys.executable, str(HERE / "node_defects.py"), self.url, "--do", what, *numbers])
        return self._process([node.binary(self.side), str(installed("node_defects.mjs")), what, *numbers])

    def run(self, what: str, concurrency: int = 1, jobs: int = 0) -> str:
        """Run such a process to its end and return what it printed."""
        process = self.start(what, concurrency, jobs)
        output, _ = process.communicate(timeout=DEADLINE)
        if process.returncode:
            raise SystemExit(f"{self.side}: {what} ended with {process.returncode}")
        return output

    def run_folder(self, folder: Path) -> int:
        """Run the executables in tasks/ of a folder once, by either command, and return its exit code."""
        ours = [sys.executable, "-m", "graphile_worker_py", "run", "--tasks", "tasks", "--once", "--database", self.url]
        process = self._process(ours if self.side == OURS else [*node.cli(self.side), "--once"], folder)
        process.communicate(timeout=DEADLINE)
        return process.returncode

    def add(self, count: int, payload: str = "{}", queue_name: str | None = None, task: str = "noop") -> None:
        """Add jobs with the SQL function, which is alike on all sides."""
        add = "select graphile_worker.add_job(%s, %s::json, %s) from generate_series(1, %s)"
        self.execute(add, task, payload, queue_name, count)

    def left(self) -> tuple[int, int]:
        """Return how many jobs there are, and how many of them are locked."""
        ((jobs, locked),) = self.execute("select count(*), count(locked_at) from graphile_worker.jobs")
        return jobs, locked

    def execute(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement on this trial's database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def _process(self, command: list[str], folder: Path | None = None) -> subprocess.Popen[str]:
        environment = None if self.side == OURS else node.environment(self.side, self.url)
        return subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )


def crawl(trial: Trial, concurrency: int) -> str:
    """Measure 30 jobs of one named queue that do nothing."""
    trial.add(30, queue_name="one")
    lines = trial.run("queue", concurrency, 30).splitlines()
    return f"{float(lines[-1]):.3f} s"


def lost_completions(trial: Trial) -> str:
    """Stop a worker while a job runs, and look at the row when the job and the worker have ended."""
    for _ in range(ROUNDS):
        trial.add(1)
        process = trial.start("stop")
        while "started" not in (process.stdout.readline() if process.stdout else ""):
            pass
        process.terminate()
        process.communicate(timeout=DEADLINE)
    return f"{trial.left()[1]} of {ROUNDS} still locked"


def left_behind(trial: Trial) -> str:
    """Run once what is ready, and count what still is."""
    trial.add(20, queue_name="one")
    trial.run("once", 1, 20)
    return f"{trial.left()[0]} of 20 left"


def crashes(trial: Trial) -> str:
    """Run three jobs of a program that does not read its megabyte of input."""
    trial.add(3, payload=f'"{"x" * 1_000_000}"', task="idle")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "tasks", "idle")
        program.parent.mkdir(mode=0o755)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        code = trial.run_folder(Path(folder))
    jobs, locked = trial.left()
    return f"exit {code}, {3 - jobs} done, {locked} locked"


DEFECTS: tuple[tuple[str, Callable[[Trial], str]], ...] = (
    ("30 jobs, one named queue, concurrency 1", lambda trial: crawl(trial, 1)),
    ("30 jobs, one named queue, concurrency 5", lambda trial: crawl(trial, 5)),
    ("jobs that end after SIGTERM", lost_completions),
    ("20 jobs, one named queue, run once", left_behind),
    ("3 executables that read nothing", crashes),
)


def do(url: str, what: str, concurrency: int, jobs: int) -> None:
    """Be the process on our side; node_defects.mjs does the same on the other."""
    starts: list[float] = []
    all_started = threading.Event()
    with Queue(url) as queue:

        @queue.task
        def noop(payload: object) -> None:
            starts.append(time.perf_counter())
            if len(starts) == jobs:
                all_started.set()
            if what == "stop":
                print("started", flush=True)
                time.sleep(0.5)

        if what == "install":
            queue.migrate()
        elif what == "stop":
            queue.run_worker(concurrency)
        elif what == "once":
            queue.run_once(concurrency)
        else:
            with WorkerPool(queue, concurrency):
                all_started.wait(DEADLINE)
            print(starts[-1] - starts[0])


def main() -> None:
    """Measure all defects on all sides, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--do", nargs=3, metavar=("WHAT", "CONCURRENCY", "JOBS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        what, concurrency, jobs = arguments.do
        do(arguments.url, what, int(concurrency), int(jobs))
        return
    print("".join(f"{text:>{width}}" for text, width in zip(("", *SIDES), (40, 27, 27, 27, 27), strict=True)))
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres()).url
        for name, measure in DEFECTS:
            print(f"{name:40}", end="", flush=True)
            for side in SIDES:
                print(f"{measure(Trial(url, side)):>27}", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
