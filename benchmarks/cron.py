"""Measure cron: many items due in one minute, and a start that has four weeks to make up for.

The clock is moved by hand, so nothing is waited for; the database is real. Give a conninfo as the argument, or nothing
for an embedded server.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from graphile_worker_py import CronItem, Queue
from graphile_worker_py.cron.scheduler import Scheduler
from graphile_worker_py.embedded import EmbeddedPostgres

NOON = datetime(2024, 7, 1, 12, tzinfo=timezone.utc)
NAME = "bench_cron"


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        """Return the time it was set to."""
        return self.moment


def fresh(url: str) -> Queue:
    """Return a queue on a new database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(NAME)))
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(NAME)))
    queue = Queue(make_conninfo(url, dbname=NAME))
    queue.migrate()
    return queue


def minutes(url: str, count: int, rounds: int) -> tuple[list[float], float]:
    """Return the seconds each of some minutes took in which all items are due, and how many MB were added meanwhile."""
    items = [CronItem("* * * * *", "noop", {"n": number}, identifier=f"item-{number}") for number in range(count)]
    clock = Hand()
    with fresh(url) as queue:
        scheduler = Scheduler(queue, lambda: items, clock=clock)
        scheduler.step()
        before = memory()
        took = []
        for _ in range(rounds):
            clock.moment += timedelta(minutes=1)
            began = time.perf_counter()
            scheduler.step()
            took.append(time.perf_counter() - began)
        check(queue, (rounds + 1) * count)
    return took, memory() - before


def start(url: str, pattern: str, runs: int) -> float:
    """Return the seconds a start took with a hundred items that were known for longer than the four weeks they fill."""
    items = [
        CronItem(pattern.format(number % 60, number % 24), "noop", identifier=f"i{number}", backfill=timedelta(weeks=4))
        for number in range(100)
    ]
    with fresh(url) as queue:
        with queue.database.connection() as connection:
            connection.cursor().executemany(
                "insert into graphile_worker._private_known_crontabs values (%s, %s, null)",
                [(item.identifier, NOON - timedelta(weeks=9)) for item in items],
            )
        began = time.perf_counter()
        Scheduler(queue, lambda: items, clock=Hand()).step()
        took = time.perf_counter() - began
        check(queue, 100 * runs, slack=200)
    return took


def memory() -> float:
    """Return the most memory this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check(queue: Queue, jobs: int, *, slack: int = 0) -> None:
    """End the program unless so many jobs are there."""
    found = sum(stats.ready for stats in queue.stats())
    if abs(found - jobs) > slack:
        raise SystemExit(f"expected {jobs} jobs, found {found}")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings={"fsync": "on"})).url
        took, more = minutes(url, arguments.items, arguments.rounds)
        print(f"{arguments.items} items due in one minute: median {statistics.median(took):.2f} s, ", end="")
        print(f"worst {max(took):.2f} s of {arguments.rounds}; {more:.0f} MB more memory at the end")
        for name, pattern, runs in (("daily", "{} {} * * *", 28), ("hourly", "{} * * * *", 28 * 24)):
            seconds = start(url, pattern, runs)
            print(f"start with 100 {name} items and four weeks to make up for ({100 * runs} jobs): {seconds:.2f} s")


if __name__ == "__main__":
    main()
