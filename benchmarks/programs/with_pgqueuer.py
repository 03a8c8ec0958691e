"""PgQueuer, to be measured: `URL produce JOBS` or `URL work BATCH`."""

from __future__ import annotations

import asyncio
import signal
import sys

import gate
import psycopg
from pgqueuer import PgQueuer, PsycopgDriver, Queries
from pgqueuer.models import Job


async def produce(url: str, count: int) -> None:
    """Install the schema and add jobs."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        queries = Queries(PsycopgDriver(connection))
        await queries.install()
        for start in range(0, count, 1000):
            numbers = range(start, min(count, start + 1000))
            payloads = [b'{"id": %d}' % number for number in numbers]
            await queries.enqueue(["noop"] * len(numbers), payloads, [0] * len(numbers))


async def work(url: str, batch: int) -> None:
    """Work until SIGTERM."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        app = PgQueuer(PsycopgDriver(connection))

        @app.entrypoint("noop")
        async def noop(job: Job) -> None:
            pass

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.shutdown.set)
        await app.run(batch_size=batch)


def main(url: str, what: str, count: int) -> None:
    """Produce or work."""
    if what == "work":
        gate.wait()
        asyncio.run(work(url, count))
    else:
        asyncio.run(produce(url, count))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
