"""Install the schema, add jobs from a generator, and print "seconds megabytes": what adding took, and the most memory."""

from __future__ import annotations

import argparse
import resource
import time

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
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
