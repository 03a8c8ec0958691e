"""Calls to a service that allows each customer two calls at a time, and us ten a second.

graphile-worker-py migrate
python app.py                       adds calls for some customers, and makes them with two worker pools
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from graphile_worker_py import JobCompleted, JobSpec, Limit, Queue, Rate, WorkerPool

AT_A_TIME = 2  # for each customer
CALLS, PERIOD = 10, timedelta(seconds=1)  # for all together

queue = Queue()


class TooMany(Exception):
    """The service refuses what a customer has too many of."""


class Service:
    """Stands in for somebody else's service."""

    def __init__(self) -> None:
        self.refused = 0
        self.answered = 0
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()

    def call(self, customer: str) -> None:
        """Answer after a moment; raise TooMany if that is one call too many."""
        with self._lock:
            if self._under_way[customer] == AT_A_TIME:
                self.refused += 1
                raise TooMany(customer)
            self._under_way[customer] += 1
        time.sleep(0.05)
        with self._lock:
            self._under_way[customer] -= 1
            self.answered += 1


service = Service()


@queue.task(
    limit=Limit(AT_A_TIME, key=lambda payload: payload["customer"]),
    rate=Rate(CALLS, per=PERIOD, key="service"),
)
def call_service(payload: dict[str, Any]) -> None:
    """Make one call. There is no need to look out for others: the queue does."""
    service.call(payload["customer"])


def main(calls: int = 30) -> float:
    """Make so many calls for three customers with two pools, and return how many seconds that took."""
    done = threading.Semaphore(0)
    with ExitStack() as stack:
        stack.callback(queue.events.subscribe(JobCompleted, lambda event: done.release()))
        queue.add_jobs(JobSpec("call_service", {"customer": "abc"[number % 3]}) for number in range(calls))
        began = time.monotonic()
        for _ in range(2):
            stack.enter_context(WorkerPool(queue, 8))
        for _ in range(calls):
            done.acquire()
        return time.monotonic() - began


if __name__ == "__main__":
    seconds = main()
    print(f"{service.answered} calls in {seconds:.1f} s, refused: {service.refused}")
