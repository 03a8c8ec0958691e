"""What is deployed: a queue on the database of DATABASE_URL, and a task."""

from __future__ import annotations

from graphile_worker_py import Queue

queue = Queue()


@queue.task
def greet(payload: dict[str, str]) -> None:
    """Say hello."""
    print("hello", payload["name"], flush=True)
