"""The producer of a drill: adds jobs at an even rate until SIGTERM, and rolls some adds back.

Twenty times a second it adds ten jobs that will be done, in one transaction: six plain ones, three of named queues, and
one with a key that replaces what the tick before had added under it. Two more are added and rolled back. What could not
be added stays so, there is no catching up: the load that is offered never depends on what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import psycopg

from drills.ledger import Ledger
from graphile_worker_py import GraphileWorkerError, JobSpec, Queue

TICKS = 20  # a second
PLAIN, QUEUED = 6, 3
RATE = TICKS * (PLAIN + QUEUED + 1)  # jobs done a second
QUEUES = 60
FAILING = 10  # in every so many ticks one job is to fail at first
LONGER = 150  # milliseconds that one job of each tick takes, so that some are in flight at any time
DUE_IN = 0.5  # seconds: what waits for that long is replaced before it is ready
UNKNOWN = (psycopg.Error, GraphileWorkerError)


class Producer:
    """Adds by a Queue; what it rolls back, on a connection of its own."""

    def __init__(self, database: str, *, ledger: Ledger, name: str) -> None:
        self._database = database
        self._queue = Queue(database, connect_timeout=2, max_size=2)
        self._own: psycopg.Connection[Any] | None = None
        self._ledger = ledger
        self._name = name
        self._tick = 0
        self._replaceable: int | None = None

    def tick(self) -> None:
        """Offer one tick's load."""
        self._tick += 1
        queues = [f"{self._name} {(self._tick * QUEUED + i) % QUEUES}" for i in range(QUEUED)]
        wanted: list[tuple[str | None, int | None, float]] = [(None, None, 0.0)] * PLAIN
        wanted += [(name, None, 0.0) for name in queues] + [(None, self._replaceable, 0.0), (None, None, DUE_IN)]
        numbers = self._ledger.intend(wanted + [(None, None, 0.0)] * 2)
        kept, undone = numbers[:-2], numbers[-2:]
        key, last = f"{self._name} {self._tick - 1}", f"{self._name} {self._tick}"
        keys = [None] * (PLAIN + QUEUED) + [key, last]
        specs = [
            _spec(n, queue_name=queue, job_key=key, due_in=due_in)
            for n, (queue, _, due_in), key in zip(kept, wanted, keys, strict=True)
        ]
        specs[1] = JobSpec(identifier="work", payload={"n": kept[1], "ms": [LONGER]})
        if self._tick % FAILING == 0:
            specs[0] = JobSpec(identifier="work", payload={"n": kept[0], "fail": True})
        self._ledger.settle(kept, self._added(specs))
        self._replaceable = kept[-1]
        self._ledger.settle(undone, self._rolled_back(undone))

    def finish(self) -> None:
        """Let what would be replaced next be done as it is: it is due by then."""
        self._queue.close()
        if self._own is not None:
            self._own.close()
        self._ledger.close()

    def _added(self, specs: Iterable[JobSpec]) -> str:
        try:
            self._queue.add_jobs(specs, return_jobs=False)
        except UNKNOWN:
            return "unknown"
        return "committed"

    def _rolled_back(self, numbers: list[int]) -> str:
        """Add and roll back; whatever happens on the way, nothing was committed."""
        try:
            if self._own is None or self._own.closed:
                self._own = psycopg.connect(self._database, connect_timeout=2)
            with self._own.transaction(force_rollback=True):
                self._queue.add_jobs([_spec(n) for n in numbers], connection=self._own, return_jobs=False)
        except UNKNOWN:
            if self._own is not None:
                self._own.close()
        return "rolled back"


def _spec(n: int, *, queue_name: str | None = None, job_key: str | None = None, due_in: float = 0.0) -> JobSpec:
    run_at = timedelta(seconds=due_in) if due_in else None
    return JobSpec(identifier="work", payload={"n": n}, queue_name=queue_name, job_key=job_key, run_at=run_at)


def main() -> int:
    """Tick until SIGTERM."""
    given = json.loads(os.environ["DRILL"])
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    producer = Producer(given["database"], ledger=Ledger(given["ledger"], given["name"]), name=given["name"])
    due = time.monotonic()
    while not ended.is_set():
        producer.tick()
        due = max(due + 1 / TICKS, time.monotonic())  # what was missed is not made up for
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
    producer.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
