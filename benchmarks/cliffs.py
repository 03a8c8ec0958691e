"""Where queues fall off a cliff, drained by our worker: what named queues cost, and what stands ahead of ready jobs.

Everything "ahead" comes first in the order of jobs and cannot be claimed: it stays. Before the figures of a run count,
the tables are looked at: nothing left that should be gone, nothing gone that should be there, nothing locked.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import psycopg
from measuring import JOBS, Bench, drain
from sides import ours

from graphile_worker_py import JobSpec, Queue

PART = "cliffs"
QUEUES = "graphile_worker._private_job_queues"

Load = Callable[[Queue, psycopg.Connection], object]


@attrs.frozen
class Case:
    """A name, how many jobs are to be done, how to add them, and how to fill the tables before; how many rows stay."""

    name: str
    ready: int
    load: Load
    ahead: Load | None = None
    stay: int = 0


def add(queue: Queue, jobs: int, *, task: str = "noop", queues: int = 0) -> None:
    """Add jobs, spread over so many named queues."""
    names = [f"queue {number}" for number in range(queues)]
    specs = (JobSpec(task, {"id": n}, queue_name=names[n % queues] if queues else None) for n in range(jobs))
    queue.add_jobs(specs, return_jobs=False)


def fill(db: psycopg.Connection, jobs: int, columns: str, values: str) -> None:
    """Insert jobs of the task noop by SQL: a million through a client would take half a minute."""
    tasks = "select id from graphile_worker._private_tasks where identifier = 'noop'"
    db.execute(
        f"insert into {JOBS} (task_id, payload, {columns})"
        f" select ({tasks}), json_build_object('id', n), {values} from generate_series(1, {jobs}) as n"
    )


def cases(bench: Bench) -> list[Case]:
    """Return all cases, the one that the others are compared with first."""
    size = bench.size
    ready, few, wall, million = size(50_000), size(20_000), size(100_000), size(1_000_000)

    def clean(queue: Queue, db: psycopg.Connection) -> None:
        add(queue, ready)

    def locked(queues: int) -> Load:
        def load(queue: Queue, db: psycopg.Connection) -> None:
            add(queue, wall, queues=queues)
            db.execute(f"update {QUEUES} set locked_at = now(), locked_by = 'somebody'")

        return load

    return [
        Case("nothing ahead", ready, clean),
        Case("all in one named queue", few, lambda queue, db: add(queue, few, queues=1)),
        Case("in 1,000 named queues", few, lambda queue, db: add(queue, few, queues=1000)),
        Case("in as many named queues as jobs", wall, lambda queue, db: add(queue, wall, queues=wall)),
        Case("ahead: jobs of 2 locked queues", ready, clean, locked(2), wall),
        Case("ahead: jobs of 1,000 locked queues", ready, clean, locked(1000), wall),
        Case(
            "ahead: jobs of the future, at a better priority",
            ready,
            clean,
            lambda queue, db: fill(db, million, "priority, run_at", "-1, now() + interval '1 day'"),
            million,
        ),
        Case("ahead: jobs of an unknown task", ready, clean, lambda queue, db: add(queue, wall, task="other"), wall),
        Case(
            "ahead: jobs that failed for good",
            ready,
            clean,
            lambda queue, db: fill(db, million, "attempts", "25"),
            million,
        ),
    ]


def measure(bench: Bench) -> None:
    """Measure case after case, turn and turn about."""
    for _ in bench.turns():
        for case in cases(bench):
            one(bench, case)


def one(bench: Bench, case: Case) -> None:
    """Measure a case once."""
    with bench.database() as url:
        with Queue(url) as queue, psycopg.connect(url, autocommit=True) as db:
            queue.migrate()
            db.execute(f"delete from {JOBS} where id = %s", [queue.add_job("noop").id])  # makes the task
            if case.ahead:
                case.ahead(queue, db)
            (last,) = db.execute(f"select coalesce(max(id), 0) from {JOBS}").fetchone() or (0,)
            case.load(queue, db)
        figures = drain(ours(), url, case.ready, first=last + 1)
        with psycopg.connect(url) as db:
            (here,) = db.execute(f"select count(*) from {JOBS}").fetchone() or (0,)
            (held,) = db.execute(f"select count(*) from {JOBS} where locked_at is not null").fetchone() or (0,)
    if (here, held) != (case.stay, 0):
        raise SystemExit(f"{case.name}: {here} rows are there, {held} of them locked; expected {case.stay} and 0")
    figures.pop("deadlocks")
    name = f"{case.name} ({case.ready:,}" + (f", {case.stay:,} ahead)" if case.stay else ")")
    bench.add(PART, "drained", name, figures)
