"""Huey on its PostgreSQL storage, to be measured: `URL produce JOBS` or `URL work THREADS`."""

from __future__ import annotations

import logging
import sys

import gate
from huey import Huey
from huey.storage import PostgresStorage


def main(url: str, what: str, count: int) -> None:
    """Produce or work."""
    huey = Huey("bench", storage_class=PostgresStorage, dsn=url, results=False)

    @huey.task()
    def noop(id: int) -> None:
        pass

    if what == "produce":
        for number in range(count):
            noop(number)
        return
    logging.getLogger("huey").setLevel(logging.ERROR)
    gate.wait()
    huey.create_consumer(workers=count, worker_type="thread", periodic=False).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
