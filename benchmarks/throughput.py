"""Drain no-op jobs: ours beside Node's worker and a bare loop of SQL, alternating in one run: `make bench`.

Measured straight after the bulk load, the hard case and the real one, and after VACUUM ANALYZE; a job is done when its
row is gone. Give a conninfo, or nothing for an embedded server (durable: fsync and synchronous_commit are on).
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from sides import Side, about, database, drain, loaded, loop, median, node_is_there, nodes, ours

from graphile_worker_py import JobSpec, Queue
from graphile_worker_py.embedded import EmbeddedPostgres

THREADS = 24


def load(url: str, jobs: int) -> None:
    """Add the jobs that everybody drains."""
    with Queue(url) as queue:
        queue.add_jobs(JobSpec("noop", {"id": number}) for number in range(jobs))


def measure(url: str, template: str, side: Side, *, processes: int, analysed: bool) -> dict[str, Any]:
    """Measure one side once, on a database of its own."""
    with database(url, template) as target:
        if analysed:
            with psycopg.connect(target, autocommit=True) as connection:
                connection.execute("vacuum (analyze) graphile_worker._private_jobs")
        return drain(side, target, processes=processes)


def table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print a line for each case: medians, and ours as a ratio to each."""
    heads = "case", "jobs/s", "ours is", "CPU us/job", "MB", "WAL B/job", "commits/job"
    print(("{:52}" + "{:>12}" * 6).format(*heads))
    for name, runs in results.items():
        case = name.partition(" | ")[0]
        mine = next(value for key, value in results.items() if key.startswith(f"{case} | ours"))
        ratio = median(mine, "rate") / median(runs, "rate")
        figures = [median(runs, figure) for figure in ("rate", "cpu_us", "memory_mb", "wal_bytes", "commits")]
        print(
            f"{name:52}{figures[0]:12,.0f}{ratio:11.2f}x{figures[1]:12.1f}{figures[2]:12.0f}{figures[3]:12.0f}"
            f"{figures[4]:12.4f}"
        )


def main() -> None:
    """Measure every side of every case, turn and turn about, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="Write all figures there as well.")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings={"fsync": "on"})).url
        template = stack.enter_context(loaded(url, lambda target: load(target, arguments.jobs)))
        few = stack.enter_context(loaded(url, lambda target: load(target, arguments.jobs // 10), "bench_template_few"))
        with_node = node_is_there()
        fast = [ours(THREADS), *([nodes(THREADS, tuned=True)] if with_node else []), loop()]
        slow = [ours(8), *([nodes(1, tuned=False)] if with_node else [])]
        for _ in range(arguments.rounds):
            for analysed in (False, True):
                for processes in (1, 2):
                    for side in fast:
                        case = f"{'analysed' if analysed else 'fresh'}, {processes} process{'es'[: 2 * processes - 2]}"
                        run = measure(url, template, side, processes=processes, analysed=analysed)
                        results.setdefault(f"{case} | {side.name}", []).append(run)
            for side in slow:
                run = measure(url, few, side, processes=1, analysed=False)
                results.setdefault(f"defaults | {side.name}", []).append(run)
        facts = about(url)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{arguments.jobs:,} no-op jobs (a tenth at the defaults), medians of {arguments.rounds} rounds")
    table(results)
    if arguments.json:
        arguments.json.write_text(json.dumps({"about": facts, "results": results}, indent=1))


if __name__ == "__main__":
    main()
