"""Do the promises hold at the rates that are measured? A round of its own, for remembering every run takes time.

Each job is run once, none is left out; the jobs of one named queue run one after the other, in the order of priority,
run_at and id, in two processes too; and a single process claims jobs without a queue in that order. Anything else ends
the program.
"""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import groupby, pairwise
from pathlib import Path

import attrs
from measuring import Bench, drain
from sides import ours

from graphile_worker_py import JobSpec, Queue

PART = "checks"


@attrs.frozen(order=False)
class Run:
    """One run of a job, as programs/watched.py wrote it down."""

    id: int
    queue: str
    began: float
    ended: float
    locked_at: float
    place: tuple[int, float, int]

    @classmethod
    def of(cls, line: str) -> Run:
        """Return what a line says."""
        _, id, queue, began, ended, locked_at, priority, run_at = line.split()
        place = int(priority), float(run_at), int(id)
        return cls(int(id), queue, float(began), float(ended), float(locked_at), place)


def measure(bench: Bench) -> None:
    """Check jobs without a queue, in named queues, and both, in one process and in two."""
    for case, queues, processes in (
        ("no queues, one process", 0, 1),
        ("no queues, two processes", 0, 2),
        ("100 queues, one process", 100, 1),
        ("half in 100 queues, two processes", 200, 2),
    ):
        one(bench, case, queues=queues, processes=processes)


def one(bench: Bench, case: str, *, queues: int, processes: int) -> None:
    """Check one case; end the program if a promise was broken."""
    count = bench.size(50_000)
    with bench.database() as url, tempfile.TemporaryDirectory() as folder:
        with Queue(url) as queue:
            queue.migrate()
            ids = {job.id for job in queue.add_jobs(specs(count, queues))}
        side = ours(module="watched", environment={"BENCH_LOG": folder})
        drain(side, url, count, processes=processes)
        lines = [line for path in Path(folder).iterdir() for line in path.read_text().splitlines()]
    runs = [Run.of(line) for line in lines if line.startswith("run ")]
    broken = {
        "jobs": float(len(ids)),
        "never run": float(len(ids - {run.id for run in runs})),
        "run twice": float(len(runs) - len({run.id for run in runs})),
        "at a time in a queue": float(sum(overlaps(of_queue) for of_queue in by_queue(runs))),
        "out of order in a queue": float(sum(disorder(of_queue) for of_queue in by_queue(runs))),
    }
    if not queues and processes == 1:
        broken["claimed out of order"] = float(claim_disorder(runs))
    bench.add(PART, case, "ours", broken)
    if any(list(broken.values())[1:]):
        raise SystemExit(f"a promise was broken: {case}: {broken}")


def specs(count: int, queues: int) -> Iterator[JobSpec]:
    """Return jobs of three priorities, due in the last minutes, in queues, of which those past a hundred are none."""
    chance = random.Random(count)  # noqa: S311 - the same jobs each time
    now = datetime.now(timezone.utc)
    for _ in range(count):
        number = chance.randrange(queues) if queues else 100
        name = f"queue-{number}" if number < 100 else None
        due, priority = now - timedelta(seconds=chance.randrange(600)), chance.randrange(3)
        yield JobSpec("record", {"queue": name}, queue_name=name, run_at=due, priority=priority)


def by_queue(runs: list[Run]) -> Iterator[list[Run]]:
    """Yield the runs of each named queue, in the order in which they began."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.began):
        if run.queue != "-":
            found[run.queue].append(run)
    yield from found.values()


def overlaps(runs: list[Run]) -> int:
    """Return how many began before the one before had ended."""
    return sum(after.began < before.ended for before, after in pairwise(runs))


def disorder(runs: list[Run]) -> int:
    """Return how many began after one that comes later."""
    return sum(after.place < before.place for before, after in pairwise(runs))


def claim_disorder(runs: list[Run]) -> int:
    """Return how many claims held a job that comes before one of the claim before."""
    in_claims = sorted(runs, key=lambda run: run.locked_at)
    places = [[run.place for run in claim] for _, claim in groupby(in_claims, key=lambda run: run.locked_at)]
    return sum(min(after) < max(before) for before, after in pairwise(places))
