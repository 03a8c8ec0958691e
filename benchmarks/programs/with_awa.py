"""Awa, to be measured: `URL produce JOBS` or `URL work CONCURRENCY`."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from typing import Any

import gate
from awa import AsyncClient


@dataclass
class Noop:
    """A job that does nothing."""

    id: int


async def produce(url: str, count: int) -> None:
    """Install the schema and add jobs."""
    client = AsyncClient(url)
    await client.migrate()
    await client.install_queue_storage()  # else the first jobs go to the tables of older versions
    for start in range(0, count, 1000):
        await client.enqueue_many_copy([Noop(number) for number in range(start, min(count, start + 1000))])


async def work(url: str, concurrency: int) -> None:
    """Work until SIGTERM."""
    client = AsyncClient(url)

    @client.task(Noop, queue="default")
    async def noop(job: Any) -> None:
        pass

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await client.start([("default", concurrency)])
    await stopped.wait()
    await client.shutdown()


def main(url: str, what: str, count: int) -> None:
    """Produce or work."""
    if what == "work":
        gate.wait()
    asyncio.run((work if what == "work" else produce)(url, count))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
