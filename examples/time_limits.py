"""Exports that may take a second each: one that is longer goes on in another job, one that nobody wants is cancelled.

python examples/time_limits.py    on the database of DATABASE_URL, in the schema graphile_worker_examples
"""

from __future__ import annotations

import threading
from typing import Any

from graphile_worker_py import JobContext, JobTimeout, Queue, WorkerPool

queue = Queue(schema="graphile_worker_examples")
begun = threading.Event()
exported: list[int] = []


@queue.task(timeout=1)
def export(payload: dict[str, Any], ctx: JobContext) -> None:
    """Export rows until all are there; when the time is over, let another job go on from here."""
    for row in range(payload["from"], payload["to"]):
        try:
            ctx.check_cancelled()
        except JobTimeout:
            ctx.add_job("export", {**payload, "from": row})
            print(f"the time is over at row {row}: another job goes on")
            return
        ctx.cancelled.wait(0.02)  # stands for a row's work, and ends at once when the job is to end
        exported.append(row)
        begun.set()


def main() -> None:
    """Export 80 rows, and begin an export of a million that is then cancelled."""
    queue.migrate()
    queue.add_job("export", {"from": 0, "to": 80})
    queue.run_once(concurrency=1)
    print(f"exported {len(set(exported))} rows")

    begun.clear()
    with WorkerPool(queue, concurrency=1):
        job = queue.add_job("export", {"from": 0, "to": 1_000_000})
        queue.set_timeout(job.id, 3600)  # this one may take an hour
        begun.wait(timeout=10)
        print(f"cancelled while it was {queue.cancel(job.id, 'not needed any more').value}")
    cancelled = queue.job(job.id)
    if cancelled is not None and cancelled.last_error is not None:
        print(cancelled.last_error.splitlines()[0].rpartition("errors.")[2])
    queue.close()


if __name__ == "__main__":
    main()
