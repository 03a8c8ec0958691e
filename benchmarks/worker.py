"""Our worker, as a process to be measured: prints "go", then works until SIGTERM."""

from __future__ import annotations

import argparse
import time

from graphile_worker_py import Queue


def main() -> None:
    """Work on jobs of the tasks noop, sleep (5 ms) or burn (1 ms of the processor)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--work", choices=["noop", "sleep", "burn"], default="noop")
    arguments = parser.parse_args()
    queue = Queue(arguments.url)
    handlers = {"noop": lambda payload: None, "sleep": lambda payload: time.sleep(0.005), "burn": burn}
    queue.task("noop")(handlers[arguments.work])
    print("go", flush=True)
    queue.run_worker(arguments.concurrency)
    queue.close()


def burn(payload: object) -> None:
    """Use the processor for a millisecond, by the thread's own clock."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass


if __name__ == "__main__":
    main()
