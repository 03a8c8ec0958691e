"""A schema that Node's worker installed: all of ours works on it, and nothing of it is changed.

0.17.3 leaves its ledger at 19 and 0.18.0 at 20, and we work on either as it is; that of 0.16.6 stops at 18 and is
upgraded by us first. Every test ends with a comparison of dumps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from command_line import DEADLINE, graphile, with_jobs
from plain_sql import Connection, connect

from graphile_worker_py import Job, JobSpec, Queue, WorkerPool
from interop import dump, ledger, node
from interop.host import NodeWorker

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("schema Node's, jobs and worker ours")]

each_version = pytest.mark.parametrize("version", node.VERSIONS)
LATER = datetime(2100, 1, 1, tzinfo=timezone.utc)


def state(url: str) -> tuple[dump.Dump, list[tuple[Any, ...]]]:
    return dump.without_ours(dump.pieces(url)), ledger.rows_with_times(url)


@pytest.fixture
def url(version: str, database_url: str, node_worker: Callable[..., NodeWorker]) -> Iterator[str]:
    """Return the conninfo of a database with a schema by Node; see in the end that it is as it was."""
    with node_worker(version, database_url) as theirs:
        theirs.migrate()
    if version == node.REFUSED:
        with Queue(database_url) as queue:
            queue.migrate()
    before = state(database_url)
    yield database_url
    after = state(database_url)
    assert dump.different(after[0], before[0]) == set()
    assert after[1] == before[1]


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    with Queue(url) as queue:
        yield queue


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    with connect(url) as connection:
        yield connection


@each_version
def test_an_upgrade_adds_what_is_missing_and_no_more(
    version: str, database_url: str, node_worker: Callable[..., NodeWorker]
) -> None:
    with node_worker(version, database_url) as theirs:
        theirs.migrate()
    before, rows = state(database_url)
    missing = list(range(ledger.LATEST[version] + 1, 21))
    with Queue(database_url) as queue:
        assert queue.migrate() == missing
        assert queue.migrate() == []
    after, new_rows = state(database_url)
    replaced = {"FUNCTION add_job", "FUNCTION add_jobs"} if missing else set()
    assert {name.split("(")[0] for name in dump.different(after, before)} == replaced
    assert dump.different(dump.without_bodies(after), dump.without_bodies(before)) == set()
    assert "TABLE _private_py_migrations" in dump.pieces(database_url)  # what is ours came beside it
    assert new_rows[: len(rows)] == rows
    assert ledger.rows(database_url) == ledger.as_written(20)


@each_version
def test_jobs_of_all_kinds_are_added_and_run(queue: Queue, tally: Callable[..., None]) -> None:
    got: list[Any] = []
    queue.task("greet")(got.append)
    full = {"queue_name": "q", "priority": -5, "max_attempts": 3, "job_key": "k", "flags": ["costly"]}
    job = queue.add_job("greet", {"n": 0}, run_at=LATER, **full)
    assert (job.run_at, job.priority, job.max_attempts, job.key) == (LATER, -5, 3, "k")
    assert queue.job(job.id) == job
    many = queue.add_jobs(JobSpec("greet", {"n": n}) for n in range(1, 200))
    assert [added.payload for added in many] == [{"n": n} for n in range(1, 200)]
    assert queue.run_once(4).completed == 199
    queue.reschedule_jobs([job.id], run_at=timedelta(0))
    assert queue.run_once(forbidden_flags=["costly"]).completed == 0
    assert queue.run_once().completed == 1
    assert sorted(payload["n"] for payload in got) == list(range(200))
    assert not queue.jobs()
    tally(jobs=200)


@each_version
def test_a_pool_is_woken_by_jobs(queue: Queue, tally: Callable[..., None]) -> None:
    done = threading.Semaphore(0)

    @queue.task
    def greet(payload: object) -> None:
        done.release()

    with WorkerPool(queue, 2, poll_interval=DEADLINE * 2):  # so that it can only have been a notification
        for _ in range(10):
            greet.add_job()
            assert done.acquire(timeout=DEADLINE)
    tally(jobs=10)


@each_version
def test_failures_are_kept_and_tried_again(queue: Queue, db: Connection) -> None:
    @queue.task(max_attempts=2)
    def fail(payload: object) -> None:
        raise ValueError("no such address")

    job = fail.add_job()
    assert queue.run_once().retrying == 1
    row = queue.job(job.id)
    assert (row.attempts, row.locked_by, "no such address" in row.last_error) == (1, None, True)
    assert row.run_at > job.run_at
    db.execute("update graphile_worker._private_jobs set run_at = now()")
    assert queue.run_once().failed == 1
    assert queue.jobs(state="failed").items[0].id == job.id


@each_version
def test_a_batch_keeps_what_failed(queue: Queue) -> None:
    @queue.task
    def batch(payload: list[int]) -> list[Exception | None]:
        return [ValueError(f"odd {n}") if n % 2 else None for n in payload]

    job = batch.add_job([1, 2, 3, 4])
    assert queue.run_once().retrying == 1
    row = queue.job(job.id)
    assert row.payload == [1, 3]
    assert "odd 3" in row.last_error


@each_version
def test_keys_replace_keep_the_time_merge_and_are_removed(queue: Queue) -> None:
    first = queue.add_job("greet", [1], job_key="k", run_at=LATER)
    second = queue.add_job("greet", [2], job_key="k", job_key_mode="preserve_run_at", run_at=timedelta(0))
    assert (second.id, second.revision, second.run_at, second.payload) == (first.id, 1, LATER, [1, 2])
    third = queue.add_job("other", {"n": 3}, job_key="k", run_at=LATER + timedelta(1))
    assert (third.id, third.task_identifier, third.run_at) == (first.id, "other", LATER + timedelta(1))
    fourth = queue.add_job("greet", {"n": 4}, job_key="k", job_key_mode="unsafe_dedupe")
    assert (fourth.id, fourth.revision, fourth.payload) == (first.id, 3, {"n": 3})
    assert queue.remove_job("k").id == first.id
    assert queue.remove_job("k") is None
    twice = queue.add_jobs([JobSpec("greet", [1], job_key="k"), JobSpec("greet", [2], job_key="k")])
    assert [job.payload for job in twice] == [[1], [1, 2]]


@each_version
def test_a_named_queue_runs_in_order_one_at_a_time(queue: Queue, tally: Callable[..., None]) -> None:
    seen: list[tuple[str, int]] = []

    @queue.task
    def step(payload: int) -> None:
        seen.append(("start", payload))
        time.sleep(0.001)  # so that a second one could come in between
        seen.append(("end", payload))

    queue.add_jobs(JobSpec("step", n, queue_name=f"q{n % 2}") for n in range(100))
    assert queue.run_once(4).completed == 100
    for parity in (0, 1):
        own = [entry for entry in seen if entry[1] % 2 == parity]
        assert own == [(what, n) for n in range(parity, 100, 2) for what in ("start", "end")]
    tally(jobs=100)


@each_version
def test_administration(queue: Queue, db: Connection) -> None:
    jobs = [queue.add_job("idle", run_at=LATER, queue_name="q") for _ in range(4)]
    ids = [job.id for job in jobs]
    assert [job.id for job in queue.complete_jobs(ids[:1])] == ids[:1]
    assert [job.last_error for job in queue.permanently_fail_jobs(ids[1:2], "enough")] == ["enough"]
    assert [job.priority for job in queue.reschedule_jobs(ids[2:3], priority=7)] == [7]
    db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w' where id = %s", [ids[3]])
    queue.force_unlock_workers(["w"])
    (stats,) = queue.stats()
    assert (stats.scheduled, stats.running, stats.failed) == (2, 0, 1)
    assert queue.cleanup(["DELETE_PERMAFAILED_JOBS"]) == {"DELETE_PERMAFAILED_JOBS": 1}
    assert [item.id for item in queue.jobs()] == ids[2:]


@each_version
def test_the_command_line(url: str, queue: Queue, tmp_path: Path) -> None:
    """Of its commands all but migrate, whose work is test_an_upgrade_adds_what_is_missing_and_no_more."""
    folder = with_jobs(tmp_path)
    added = graphile("add", "note", '{"to": "Ada"}', "--database", url)
    assert (added.returncode, added.stderr) == (0, "")
    ran = graphile("run", "jobs:queue", "--once", "--database", url, cwd=folder)
    assert ran.returncode == 0, ran
    assert "note {'to': 'Ada'}" in ran.stdout
    assert not queue.jobs()


@each_version
@pytest.mark.direction("schema and jobs Node's, worker ours")
def test_jobs_that_node_added(
    version: str, url: str, queue: Queue, node_worker: Callable[..., NodeWorker], tally: Callable[..., None]
) -> None:
    """By its SQL functions where that version is refused; a pool of ours is woken at once and runs them."""
    got: list[Job] = []
    done = threading.Semaphore(0)

    @queue.task
    def greet(payload: dict[str, int], ctx: Any) -> None:
        got.append(ctx.job)
        done.release()

    with WorkerPool(queue, 4, poll_interval=DEADLINE * 2), connect(url) as sql_caller:
        if version == node.REFUSED:
            for n in range(20):
                sql_caller.execute("select graphile_worker.add_job('greet', json_build_object('n', %s::int))", [n])
        else:
            with node_worker(version, url) as theirs:
                for n in range(10):
                    theirs.add_job("greet", f"({{n: {n}}})", priority=n, queueName="q", jobKey=f"k{n}")
                theirs.add_jobs([{"identifier": "greet", "payload": f"({{n: {n}}})"} for n in range(10, 20)])
        for _ in range(20):
            assert done.acquire(timeout=DEADLINE)
    assert sorted(job.payload["n"] for job in got) == list(range(20))
    if version != node.REFUSED:
        assert {(job.key, job.priority) for job in got if job.key} == {(f"k{n}", n) for n in range(10)}
    assert not queue.jobs()
    tally(jobs=20)
