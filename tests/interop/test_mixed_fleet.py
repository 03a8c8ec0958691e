"""Two pools of Node's and two of ours on one schema: each job once, named queues in order, one of ours killed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
from plain_sql import Connection, connect, eventually

from graphile_worker_py import Queue
from interop import node
from interop.fleet import (
    OPEN,
    RECORDER,
    SHUT,
    Attempt,
    Producers,
    PythonPool,
    Request,
    Retries,
    attempts,
    by_number,
    overlaps,
    overtakings,
    requests,
    run_node,
)
from interop.host import NodeWorker

JOBS = int(os.environ.get("MIXED_JOBS", "1500"))
SECONDS = 60 + JOBS / 50

pytestmark = [
    pytest.mark.usefixtures("packages"),
    pytest.mark.direction("two pools of each on one schema"),
    pytest.mark.timeout(60 + 2 * SECONDS),
]

HEARTBEAT, DEAD_AFTER = 0.5, 5.0
LATE = 10.0  # seconds, for a machine that is busy
OURS = {"concurrency": 4, "poll_interval": 0.1, "heartbeat": HEARTBEAT, "dead_after": DEAD_AFTER}
BY_NODE = {  # 0.17.3 cannot claim several at a time without running those of one named queue side by side
    node.OLDER: {"concurrency": 4},
    node.NEWEST: {"preset": {"worker": {"concurrentJobs": 4, "localQueue": {"size": 8}}}},
}
NAMES = [f"node {version}" for version in node.LIVING] + ["python a", "python b"]


@pytest.fixture
def nodes(migrated_url: str, node_worker: Callable[..., NodeWorker]) -> Iterator[list[NodeWorker]]:
    with ExitStack() as stack:
        yield [stack.enter_context(node_worker(version, migrated_url)) for version in node.LIVING]


@pytest.fixture
def plain(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url) as connection:
        connection.execute(RECORDER)
        yield connection


@pytest.fixture
def schema_of_node(database_url: str, node_worker: Callable[..., NodeWorker]) -> str:
    """Return the conninfo of a database whose schema Node installed; our own objects and the record are beside it."""
    with node_worker(node.NEWEST, database_url) as worker, Queue(database_url) as queue:
        worker.migrate()
        assert queue.migrate() == []
    with connect(database_url) as db:
        db.execute(RECORDER)
    return database_url


def start_node(nodes: Sequence[NodeWorker]) -> None:
    for worker, version in zip(nodes, node.LIVING, strict=True):
        name = f"node {version}"
        run_node(worker, name, holds=[f"hold {name}"], **BY_NODE[version])


def assert_each_once(wanted: Sequence[Request], made: Sequence[Attempt], *, hit: frozenset[int] = frozenset()) -> None:
    """Check what was done: each item succeeded once, and failed once before if it was to; under a key the last counts.

    Of jobs that the killed pool held, those in `hit`, an attempt may be repeated.
    """
    found = by_number(made)
    last = {request.key: request for request in wanted if request.key and not request.batch}
    for request in wanted:
        replaced = last.get(request.key, request) is not request
        for number, fails in request.items.items():
            tries = found.pop(number, [])
            done, failed = (sum(a.ended is not None and a.failed is wrong for a in tries) for wrong in (False, True))
            if any(attempt.job in hit for attempt in tries):
                assert done >= 1, tries
            elif replaced:
                assert done <= 1, tries
            else:
                assert (done, failed, len(tries)) == (1, int(fails), 1 + int(fails)), (request, tries)
    assert not found


def test_every_job_once_and_named_queues_in_order(
    migrated_url: str,
    plain: Connection,
    queue: Queue,
    nodes: list[NodeWorker],
    tally: Callable[..., None],
) -> None:
    wanted = requests(JOBS)
    producers, retries = Producers(migrated_url, queue, nodes), Retries(plain)
    with PythonPool("python a", migrated_url, **OURS), PythonPool("python b", migrated_url, **OURS):
        start_node(nodes)
        producers.add(wanted)
        retries.until_all_is_done(seconds=SECONDS)
        for worker in nodes:
            worker.stop()
    made = attempts(plain)
    assert_each_once(wanted, made)
    assert list(overlaps(made)) == []
    assert list(overtakings(made, producers.added, retries.due)) == []
    shares = Counter(attempt.pool for attempt in made)
    assert sorted(shares) == sorted(NAMES)
    tally(jobs=JOBS, **{f"attempts_by_{name}": shares[name] for name in NAMES})


def test_the_jobs_of_a_killed_pool_come_back_and_no_other_is_touched(
    schema_of_node: str, node_worker: Callable[..., NodeWorker], tally: Callable[..., None]
) -> None:
    """Each pool holds a job of a named queue all the while, with another waiting behind it."""
    wanted = requests(JOBS // 3, keyed=False)
    with ExitStack() as stack:
        db, queue = stack.enter_context(connect(schema_of_node)), stack.enter_context(Queue(schema_of_node))
        nodes = [stack.enter_context(node_worker(version, schema_of_node)) for version in node.LIVING]
        db.execute(SHUT)
        held = {name: queue.add_job(f"hold {name}", {"n": -n}, queue_name=name).id for n, name in enumerate(NAMES, 1)}
        victim = stack.enter_context(PythonPool("python a", schema_of_node, holds=["hold python a"], **OURS))
        eventually(lambda: begun(db) == {held["python a"]})
        stack.enter_context(PythonPool("python b", schema_of_node, holds=["hold python a", "hold python b"], **OURS))
        start_node(nodes)
        stack.callback(db.execute, OPEN)
        eventually(lambda: begun(db) == set(held.values()))
        behind = [queue.add_job("record", {"n": -9, "fail": False}, queue_name=name).id for name in NAMES]
        living = {name: job for name, job in held.items() if name != "python a"}
        untouched = locks(db, living)
        producers, retries = Producers(schema_of_node, queue, nodes), Retries(db)
        producers.add(wanted[::2])
        adding = threading.Thread(target=producers.add, args=[wanted[1::2]])
        with db.transaction():  # in which nobody gets on with a job, so that the victim is caught with several
            db.execute("lock table public.attempts in share mode")
            adding.start()
            eventually(lambda: len(held_by(db, victim)) > 1)
            victim.kill()
        eventually(lambda: not at_work(db, victim))
        killed_at = now(db)
        hit = held_by(db, victim)
        assert hit > {held["python a"]}
        eventually(lambda: not held_by(db, victim), seconds=DEAD_AFTER + 2 * HEARTBEAT + LATE, every=0.05)
        took = (now(db) - killed_at).total_seconds()
        adding.join()
        eventually(lambda: not begun(db).isdisjoint(behind))  # in the queue of the dead, but in no other
        assert begun(db) & {*behind} == {behind[NAMES.index("python a")]}
        assert locks(db, living) == untouched
        assert queue.job(held["python a"]).last_error.startswith(f"worker vanished: {victim.id}")

        db.execute(OPEN)
        retries.until_all_is_done(seconds=SECONDS)
        for worker in nodes:
            worker.stop()
        made = attempts(db)
        assert_each_once(wanted, [a for a in made if a.number > 0], hit=hit)
        assert list(overlaps(made, killed_at=killed_at)) == []
        assert list(overtakings(made, producers.added, retries.due)) == []
    tally(jobs=len(wanted), jobs_hit=len(hit), seconds_until_back=round(took))


def begun(db: Connection) -> set[int]:
    """Return the ids of the jobs behind negative numbers that were begun."""
    return {row["job"] for row in db.execute("select job from public.attempts where number < 0").fetchall()}


def locks(db: Connection, jobs: dict[str, int]) -> list[dict[str, Any]]:
    query = "select id, attempts, locked_by, locked_at, last_error from graphile_worker.jobs where id = any (%s)"
    return db.execute(f"{query} order by id", [list(jobs.values())]).fetchall()


def held_by(db: Connection, pool: PythonPool) -> frozenset[int]:
    query = "select id from graphile_worker._private_jobs where locked_by = %s"
    return frozenset(row["id"] for row in db.execute(query, [pool.id]).fetchall())


def at_work(db: Connection, pool: PythonPool) -> bool:
    """Return whether the database still works for a pool; what waits at the gate does not count."""
    query = "select wait_event from pg_stat_activity where application_name = %s and state = 'active'"
    return any(row["wait_event"] != "advisory" for row in db.execute(query, [pool.name]).fetchall())


def now(db: Connection) -> datetime:
    return db.execute("select clock_timestamp() as at").fetchone()["at"]
