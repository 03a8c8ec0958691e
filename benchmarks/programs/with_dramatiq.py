"""Dramatiq on dramatiq-pg, to be measured: `URL produce JOBS` or `URL work THREADS`."""

from __future__ import annotations

import signal
import sys

import dramatiq
import gate
import psycopg2
from dramatiq.middleware import Prometheus, default_middleware
from dramatiq_pg import PostgresBroker
from dramatiq_pg.schema import generate_init_sql
from dramatiq_pg.utils import make_pool


def main(url: str, what: str, count: int) -> None:
    """Produce or work."""
    if what == "produce":
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(generate_init_sql())
    # Prometheus wants a process of its own, which the command `dramatiq` starts.
    middleware = [kind() for kind in default_middleware if kind is not Prometheus]
    dramatiq.set_broker(PostgresBroker(pool=make_pool(url, maxconn=count + 4), results=False, middleware=middleware))

    @dramatiq.actor
    def noop(id: int) -> None:
        pass

    if what == "produce":
        for number in range(count):
            noop.send(number)
        return
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_threads=count)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    gate.wait()
    worker.start()
    signal.pause()
    worker.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
