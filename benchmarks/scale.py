"""Where others fall off a cliff: `make bench-scale`. Each case is drained by our worker at its defaults, 24 threads.

clean is what the others are compared with. Everything "ahead" comes first in the order of the jobs and cannot be
claimed: it stays. After each run the invariants are checked: nothing left that should be gone, nothing gone that should
be there, nothing locked.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import psycopg
from sides import JOBS, about, database, drain, loaded, median, ours

from graphile_worker_py import JobSpec, Queue
from graphile_worker_py.embedded import EmbeddedPostgres

QUEUES = "graphile_worker._private_job_queues"
THREADS = 24


@attrs.frozen
class Case:
    """A name, how to fill the tables, and how many rows are to stay."""

    name: str
    load: Callable[[Queue, psycopg.Connection], object]
    left: int = 0


def add(queue: Queue, jobs: int, *, task: str = "noop", queues: int = 0) -> None:
    """Add jobs, spread over so many named queues."""
    names = [f"queue {number}" for number in range(queues)]
    queue.add_jobs(
        (JobSpec(task, {"id": n}, queue_name=names[n % queues] if queues else None) for n in range(jobs)),
        return_jobs=False,
    )


def many(db: psycopg.Connection, jobs: int, columns: str, values: str) -> None:
    """Insert jobs of the first task by SQL: a million through the client would take a minute."""
    db.execute(f"insert into {JOBS} (task_id, {columns}) select 1, {values} from generate_series(1, {jobs})")


def cases(scale: float) -> list[Case]:
    """Return all cases, with their sizes multiplied by scale."""
    ready, wall, million = int(50_000 * scale), int(100_000 * scale), int(1_000_000 * scale)

    def behind(
        ahead: Callable[[Queue, psycopg.Connection], object],
    ) -> Callable[[Queue, psycopg.Connection], object]:
        def load(queue: Queue, db: psycopg.Connection) -> None:
            queue.add_job("noop", run_at=None)  # makes the task
            db.execute(f"delete from {JOBS}")
            ahead(queue, db)
            add(queue, ready)

        return load

    def locked(queues: int) -> Callable[[Queue, psycopg.Connection], object]:
        def load(queue: Queue, db: psycopg.Connection) -> None:
            add(queue, wall, queues=queues)
            db.execute(f"update {QUEUES} set locked_at = now(), locked_by = 'somebody'")

        return load

    def later(queue: Queue, db: psycopg.Connection) -> None:
        many(db, million, "priority, run_at", "-1, now() + interval '1 day'")

    return [
        Case("clean: 50,000 jobs", behind(lambda queue, db: None)),
        Case("one queue: 20,000", lambda queue, db: add(queue, int(20_000 * scale), queues=1)),
        Case("1,000 queues: 20,000", lambda queue, db: add(queue, int(20_000 * scale), queues=1000)),
        Case("ahead: 100,000 of 2 locked queues", behind(locked(2)), wall),
        Case("ahead: 100,000 of 1,000 locked queues", behind(locked(1000)), wall),
        Case("ahead: 1,000,000 of the future", behind(later), million),
        Case("ahead: 100,000 of an unknown task", behind(lambda q, db: add(q, wall, task="other")), wall),
        Case("ahead: 1,000,000 dead", behind(lambda q, db: many(db, million, "attempts", "25")), million),
        Case("ahead: 100,000 queues, a job each", behind(lambda q, db: add(q, wall, queues=wall))),
        Case("backlog of 1,000,000", behind(lambda q, db: many(db, million, "payload", "'{}'"))),
    ]


def run(url: str, case: Case) -> dict[str, Any]:
    """Measure a case once."""

    def load(target: str) -> None:
        with Queue(target) as queue, psycopg.connect(target, autocommit=True) as db:
            case.load(queue, db)

    with loaded(url, load) as template, database(url, template) as target:
        result = drain(ours(THREADS), target, left=case.left)
        with psycopg.connect(target) as db:
            (here,) = db.execute(f"select count(*) from {JOBS}").fetchone() or (0,)
            (held,) = db.execute(f"select count(*) from {JOBS} where locked_at is not null").fetchone() or (0,)
        if (here, held) != (case.left, 0):
            raise SystemExit(f"{case.name}: {here} rows are there, {held} of them locked; expected {case.left} and 0")
        return {"case": case.name, **result}


def held_snapshot(url: str, *, seconds: float, offered: int) -> dict[str, Any]:
    """Offer jobs at a steady rate while a snapshot keeps every dead row; return what was achieved."""
    with loaded(url, lambda target: None) as template, database(url, template) as target, ExitStack() as stack:
        holder = stack.enter_context(psycopg.connect(target))
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select 1 from pg_class limit 1")
        queue = stack.enter_context(Queue(target))
        done = 0
        claims: list[float] = []
        queue.task("noop")(lambda payload: None)
        database_ = queue.database
        run_by_index = database_.run_by_index

        def timed(name: str, params: Any) -> Any:
            rows = run_by_index(name, params)
            claims.append(rows[0][-3] + rows[0][-2])  # seconds and queue_seconds
            return rows

        database_.run_by_index = timed  # type: ignore[method-assign]
        from graphile_worker_py import JobCompleted, WorkerPool

        def count(event: JobCompleted) -> None:
            nonlocal done
            done += 1

        queue.events.subscribe(JobCompleted, count)
        stop = threading.Event()
        added = 0

        def offer() -> None:
            nonlocal added
            began = time.perf_counter()
            with Queue(target) as producer:
                while not stop.is_set():
                    due = int((time.perf_counter() - began) * offered) - added
                    if due > 0:
                        producer.add_jobs([JobSpec("noop", {"id": 1})] * due)
                        added += due
                    time.sleep(0.005)

        with WorkerPool(queue, THREADS):
            thread = threading.Thread(target=offer)
            thread.start()
            time.sleep(seconds)
            stop.set()
            thread.join()
            achieved = done / added
            time.sleep(1)
        claims.sort()
        p95 = claims[len(claims) * 95 // 100] * 1000
        return {"offered": offered, "seconds": seconds, "achieved": achieved, "claim_p95_ms": p95, "left": added - done}


def main() -> None:
    """Measure every case in turn, and print medians and their ratio to the clean one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="Of all sizes.")
    parser.add_argument("--only", default="", help="Cases whose name holds this.")
    parser.add_argument("--snapshot", type=float, default=600.0, metavar="S", help="Seconds under a held snapshot.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings={"fsync": "on"})).url
        print(about(url))
        for _ in range(arguments.rounds):
            for number, case in enumerate(cases(arguments.scale)):
                if not number or arguments.only in case.name:
                    results.setdefault(case.name, []).append(run(url, case))
        clean = next(iter(results.values()))
        for name, runs in results.items():
            ratio = median(runs, "rate") / median(clean, "rate")
            print(f"{name:42}{median(runs, 'rate'):10,.0f} jobs/s{ratio:7.2f}x{median(runs, 'memory_mb'):8.0f} MB")
        if arguments.snapshot:
            held = held_snapshot(url, seconds=arguments.snapshot, offered=800)
            print("held snapshot:", held)
            results["held snapshot"] = [held]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
