"""A worker pool of ours in a process of its own, whose handlers record what they do as fleet.py says.

The argument is JSON: name, conninfo, the identifiers to hold, and options of WorkerPool. Prints the pool's id once it
works; stops on SIGTERM.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from psycopg_pool import ConnectionPool

from graphile_worker_py import JobContext, PoolStarted, Queue, WorkerPool

Handler = Callable[[Any, JobContext], Any]


class Refused(Exception):
    """What a job fails with that is to fail."""


def recorder(name: str, connections: ConnectionPool) -> Handler:
    """Return the handler that RECORD in fleet.py is in JavaScript."""

    def record(payload: Any, ctx: JobContext) -> Any:
        items = payload if isinstance(payload, list) else [payload]
        numbers, failing = [item["n"] for item in items], [item["n"] for item in items if item["fail"]]
        with connections.connection() as connection:
            query = "select public.begin_attempt(%s, %s, %s::integer[], %s::integer[])"
            (refused,) = connection.execute(query, [name, ctx.job.id, numbers, failing]).fetchone() or ([],)
            connection.execute("select public.end_attempt(%s, %s)", [name, ctx.job.id])
        if refused and not isinstance(payload, list):
            raise Refused(refused)
        return [Refused(n) if n in refused else n for n in numbers] if isinstance(payload, list) else None

    return record


def holder(name: str, connections: ConnectionPool) -> Handler:
    """Return the handler that HOLD in fleet.py is in JavaScript."""

    def hold(payload: Any, ctx: JobContext) -> None:
        with connections.connection() as connection:
            connection.execute("select public.begin_attempt(%s, %s, %s, '{}')", [name, ctx.job.id, [payload["n"]]])
            connection.execute("select public.pass_the_gate()")
            connection.execute("select public.end_attempt(%s, %s)", [name, ctx.job.id])

    return hold


def main(name: str, database: str, holds: list[str], **options: Any) -> None:
    """Work until SIGTERM."""
    logging.basicConfig(level=logging.ERROR)  # failures are expected, and warned of
    size = options["concurrency"]
    with (
        Queue(database) as queue,
        ConnectionPool(database, min_size=1, max_size=size, open=True, kwargs={"autocommit": True}) as connections,
    ):
        queue.task("record")(recorder(name, connections))
        for identifier in holds:
            queue.task(identifier)(holder(name, connections))
        queue.events.subscribe(PoolStarted, lambda event: print(event.pool_id, flush=True))
        WorkerPool(queue, **options).run()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
