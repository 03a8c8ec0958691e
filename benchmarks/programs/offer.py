"""Add no-op jobs at a steady rate for some seconds, and print how many were added."""

from __future__ import annotations

import sys
import time

from graphile_worker_py import JobSpec, Queue


def main(url: str, rate: float, seconds: float) -> None:
    """Every 5 ms, add as many as are due by then."""
    added = 0
    with Queue(url) as queue:
        began = time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            if due := int(passed * rate) - added:
                queue.add_jobs([JobSpec("noop", {"id": added + number}) for number in range(due)], return_jobs=False)
                added += due
            time.sleep(0.005)
    print(added)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
