"""A worker of a drill: `python -m drills.worker`, or `drills.worker:queue` for the command line.

What it is to do stands as JSON in the environment variable DRILL: its `name`, the `database` and the `ledger`, and
options of Queue and of WorkerPool.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from typing import Any

from drills.fleet import THREADS, UNFINISHED
from drills.ledger import Ledger
from graphile_worker_py import JobContext, JobLost, PoolStarted, Queue, WorkerPool

given = json.loads(os.environ["DRILL"])
queue = Queue(given["database"], **given.get("queue", {}))
ledger = Ledger(given["ledger"], given["name"])
queue.events.subscribe(PoolStarted, lambda event: ledger.pool_started(event.pool_id))
queue.events.subscribe(JobLost, lambda event: ledger.lost(event.job))


class Refused(Exception):
    """What a job fails with that is to fail."""


@queue.task
def work(payload: dict[str, Any], ctx: JobContext) -> None:
    """Take the time that `ms` says for each attempt (`on`: on that worker only); fail the first time if asked to."""
    attempt, before, failed = ledger.begin(payload["n"], ctx.job)
    times = payload.get("ms", [20])
    if payload.get("on", given["name"]) == given["name"]:
        # Not time.sleep, which libfaketime breaks (clock_nanosleep fails with EINVAL under its 0.9.10).
        threading.Event().wait(times[min(before, len(times) - 1)] / 1000)
    refused = payload.get("fail", False) and not failed
    ledger.end(attempt, "failed" if refused else "done")
    if refused:
        raise Refused(payload["n"])


def main() -> None:
    """Work until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    pool = WorkerPool(queue, THREADS, **given.get("pool", {}))
    if running := pool.run():
        pool.release(running)
        os._exit(UNFINISHED)
    queue.close()


if __name__ == "__main__":
    main()
