"""The tasks that are measured, for `graphile-worker-py run jobs:queue`, the command that users run."""

from __future__ import annotations

import os
import time
from typing import Any

import gate

from graphile_worker_py import Queue

queue = Queue()


@queue.task
def noop(payload: Any) -> None:
    """Do nothing."""


@queue.task
def sleep(payload: Any) -> None:
    """Wait for 5 ms, as for a reply."""
    time.sleep(0.005)


@queue.task
def burn(payload: Any) -> None:
    """Use the processor for a millisecond, by the thread's own clock."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass


@queue.task
def stamp(payload: Any) -> None:
    """Append the time of the start, and the payload, to the file of BENCH_LOG."""
    with open(os.environ["BENCH_LOG"], "a") as log:
        log.write(f"{time.time()} {payload}\n")


gate.wait()
