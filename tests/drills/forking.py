"""A program that uses its queue, then forks again and again; parent and children go on using it.

Ends with 1 if a child failed, or had a session that was its parent's.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable

from drills.ledger import Ledger
from graphile_worker_py import Queue

AT_A_TIME = 10  # as many children, as a preloading server has workers

given = json.loads(os.environ["DRILL"])
queue = Queue(given["database"], max_size=2)


def session() -> int:
    """Return the server's process behind a connection of the queue."""
    with queue.database.connection() as connection:
        return connection.info.backend_pid


def child(number: int, of_parent: int) -> None:
    """Add a job, on a session that is not the parent's."""
    queue.add_job("work", {"n": number})
    if session() == of_parent:
        os._exit(1)


def by_fork(number: int, of_parent: int) -> Callable[[], int]:
    """Fork, and return how to wait for the child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(number, of_parent)
            code = 0
        finally:
            os._exit(code)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def by_multiprocessing(number: int, of_parent: int) -> Callable[[], int]:
    """Fork as multiprocessing does, with the ends of a process as they are in Python."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(number, of_parent))
    process.start()

    def wait() -> int:
        process.join()
        return int(process.exitcode or 0)

    return wait


def main() -> int:
    """Fork so many children, some at a time, and add a job of the parent's after each."""
    ledger, failed = Ledger(given["ledger"], given["name"]), 0
    ways = (by_fork, by_multiprocessing)
    for _ in range(0, given["children"], AT_A_TIME):
        numbers = ledger.intend([(None, None, 0.0)] * AT_A_TIME)
        mine = ledger.intend([(None, None, 0.0)] * AT_A_TIME)
        of_parent = session()
        children = [ways[number % 2](number, of_parent) for number in numbers]
        for number in mine:
            queue.add_job("work", {"n": number})
        ledger.settle(mine, "committed")
        failed += sum(wait() != 0 for wait in children)
        ledger.settle(numbers, "unknown" if failed else "committed")
    queue.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
