"""Chancy, to be measured: `URL produce JOBS` or `URL work CONCURRENCY`."""

from __future__ import annotations

import asyncio
import logging
import sys

import gate
from chancy import Chancy, Queue, Worker, job


@job()
async def noop(*, id: int) -> None:
    """Do nothing."""


async def produce(url: str, count: int) -> None:
    """Install the schema and add jobs, in one queue."""
    async with Chancy(url) as chancy:
        await chancy.migrate()
        for start in range(0, count, 1000):
            numbers = range(start, min(count, start + 1000))
            async for _ in chancy.push_many([noop.job.with_kwargs(id=number) for number in numbers]):
                pass


async def work(url: str, concurrency: int) -> None:
    """Work until SIGTERM."""
    async with Chancy(url, log=logging.getLogger("quiet")) as chancy:
        queue = Queue("default", concurrency=concurrency, executor=Chancy.Executor.Async, eager_polling=True)
        await chancy.declare(queue, upsert=True)
        async with Worker(chancy) as worker:
            await worker.wait_for_shutdown()


def main(url: str, what: str, count: int) -> None:
    """Produce or work."""
    if what == "work":
        gate.wait()
    asyncio.run((work if what == "work" else produce)(url, count))


if __name__ == "__main__":
    from with_chancy import main as importable  # a handler is named by its module, which must not be __main__

    importable(sys.argv[1], sys.argv[2], int(sys.argv[3]))
