"""What `flask worker run` works on, found there as anybody's queue is; asked in its application context."""

from __future__ import annotations

from flask import current_app

from graphile_worker_py.contrib.flask.command_line import NAME
from graphile_worker_py.queue import Queue


def __getattr__(name: str) -> Queue:
    """Return the queue of the current application, anew each time: a process may have several applications."""
    if name != "queue":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    queue: Queue = current_app.extensions[NAME].queue
    return queue
