"""Install the schema, add jobs from a generator, and print what adding took: seconds, and megabytes at most."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from graphile_worker_py import JobSpec, Queue


def main() -> None:
    """Add jobs with payloads {"id": 0}, {"id": 1} and so on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("jobs", type=int)
    parser.add_argument("--task", default="noop")
    arguments = parser.parse_args()
    with Queue(arguments.url) as queue:
        queue.migrate()
        specs = (JobSpec(arguments.task, {"id": number}) for number in range(arguments.jobs))
        began = time.perf_counter()
        queue.add_jobs(specs, return_jobs=False)
        seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    print(seconds, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)  # type: ignore[index]


if __name__ == "__main__":
    main()
