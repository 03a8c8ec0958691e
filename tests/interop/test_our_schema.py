"""A schema we installed, as Node's worker finds it: like its own, to the letter, and good for all it does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from plain_sql import Connection, connect, eventually

from graphile_worker_py import Queue
from interop import dump, ledger, node
from interop.host import NodeWorker

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("schema ours, jobs and worker Node's")]

each_living = pytest.mark.parametrize("version", node.LIVING)


@pytest.fixture
def db(migrated_url: str) -> Any:
    with connect(migrated_url) as connection:
        yield connection


@pytest.fixture
def worker(version: str, migrated_url: str, node_worker: Callable[..., NodeWorker]) -> Any:
    with node_worker(version, migrated_url) as worker:
        yield worker


def jobs(db: Connection) -> list[dict[str, Any]]:
    return db.execute("select * from graphile_worker._private_jobs order by id").fetchall()


def told(worker: NodeWorker, count: int) -> list[Any]:
    return [worker.told() for _ in range(count)]


@pytest.mark.parametrize("version", node.VERSIONS)
def test_a_dump_differs_in_the_bodies_of_functions_only(
    version: str, database_url: str, migrated_url: str, node_worker: Callable[..., NodeWorker]
) -> None:
    with node_worker(version, database_url) as theirs:
        theirs.migrate()
    ours, nodes = dump.without_ours(dump.pieces(migrated_url)), dump.pieces(database_url)
    assert dump.different(dump.without_bodies(ours), dump.without_bodies(nodes)) == set()
    assert ledger.rows(database_url) == ledger.as_written(ledger.LATEST[version])


@pytest.mark.parametrize("version", [node.NEWEST])
def test_the_newest_starts_silently_and_changes_nothing(
    version: str, migrated_url: str, node_worker: Callable[..., NodeWorker]
) -> None:
    before, rows = dump.pieces(migrated_url), ledger.rows_with_times(migrated_url)
    with node_worker(version, migrated_url) as worker:
        worker.run({"greet": "tell(payload)"})
        worker.add_job("greet", "'Ada'")
        assert worker.told() == "Ada"
        worker.stop()
        assert worker.warnings == []
        assert worker.ended() is None
    assert dump.different(dump.pieces(migrated_url), before) == set()
    assert ledger.rows_with_times(migrated_url) == rows


@each_living
def test_all_that_a_job_can_be_given(worker: NodeWorker, db: Connection) -> None:
    when = datetime(2100, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)
    job = worker.add_job(
        "greet",
        "({to: 'Ada'})",
        queueName="letters",
        runAt=when.isoformat(),
        priority=-5,
        maxAttempts=3,
        jobKey="ada",
        flags=["slow", "costly"],
    )
    (row,) = db.execute(
        "select j.*, v.queue_name, v.task_identifier from graphile_worker._private_jobs j"
        " join graphile_worker.jobs v using (id)"
    ).fetchall()
    assert job["id"] == str(row["id"])
    stored = {name: row[name] for name in ("task_identifier", "payload", "queue_name", "run_at", "priority", "key")}
    assert stored == {
        "task_identifier": "greet",
        "payload": {"to": "Ada"},
        "queue_name": "letters",
        "run_at": when,
        "priority": -5,
        "key": "ada",
    }
    assert (row["max_attempts"], row["flags"]) == (3, {"slow": True, "costly": True})


@each_living
def test_jobs_run(worker: NodeWorker, db: Connection, tally: Callable[..., None]) -> None:
    worker.run({"greet": "tell([payload.n, helpers.job.task_identifier, helpers.job.attempts])"}, concurrentJobs=4)
    worker.add_jobs([{"identifier": "greet", "payload": f"({{n: {n}}})"} for n in range(50)])
    assert sorted(told(worker, 50)) == [[n, "greet", 1] for n in range(50)]
    eventually(lambda: not jobs(db))
    tally(jobs=50)


@each_living
def test_a_failure_is_kept_with_its_error_and_tried_again_later(worker: NodeWorker, db: Connection) -> None:
    worker.run({"fail": "(() => { throw new Error('no such address') })()"})
    worker.add_job("fail", maxAttempts=2)
    eventually(lambda: jobs(db)[0]["last_error"] == "no such address" and jobs(db)[0]["locked_by"] is None)
    (row,) = jobs(db)
    assert (row["attempts"], row["is_available"], row["run_at"] > row["created_at"]) == (1, True, True)
    db.execute("update graphile_worker._private_jobs set run_at = now()")
    eventually(lambda: jobs(db)[0]["attempts"] == 2 and jobs(db)[0]["locked_by"] is None)
    assert jobs(db)[0]["is_available"] is False


@each_living
def test_a_batch_keeps_what_failed(worker: NodeWorker, db: Connection) -> None:
    body = "payload.map(n => n % 2 ? Promise.reject(new Error(`odd ${n}`)) : n)"
    worker.run({"batch": body})
    worker.add_job("batch", "[1, 2, 3, 4]")
    eventually(lambda: jobs(db)[0]["last_error"] is not None and jobs(db)[0]["locked_by"] is None)
    (row,) = jobs(db)
    assert row["payload"] == [1, 3]
    assert "odd 1" in row["last_error"]
    assert "odd 3" in row["last_error"]


@each_living
def test_keys_replace_keep_the_time_merge_and_are_removed(worker: NodeWorker, db: Connection) -> None:
    first = worker.add_job("greet", "[1]", jobKey="k", runAt="2100-01-01T00:00:00Z")
    second = worker.add_job("greet", "[2]", jobKey="k", jobKeyMode="preserve_run_at", runAt="2200-01-01T00:00:00Z")
    assert (second["id"], second["revision"], second["payload"]) == (first["id"], 1, "[1,2]")
    assert second["run_at"] == first["run_at"]
    third = worker.add_job("other", "({n: 3})", jobKey="k", jobKeyMode="replace", runAt="2300-01-01T00:00:00Z")
    assert (third["id"], third["revision"], third["payload"]) == (first["id"], 2, '{"n":3}')
    assert third["run_at"] == "2300-01-01T00:00:00.000Z"
    fourth = worker.add_job("greet", "({n: 4})", jobKey="k", jobKeyMode="unsafe_dedupe")
    assert (fourth["id"], fourth["revision"], fourth["payload"]) == (first["id"], 3, '{"n":3}')
    (removed,) = db.execute("select * from graphile_worker.remove_job('k')").fetchall()
    assert str(removed["id"]) == first["id"]
    assert jobs(db) == []


@each_living
def test_a_named_queue_runs_in_order_one_at_a_time(
    worker: NodeWorker, db: Connection, tally: Callable[..., None]
) -> None:
    """Few jobs: Node looks into a named queue once in each poll interval only."""
    worker.add_jobs([{"identifier": "step", "payload": f"({n})", "queueName": "q"} for n in range(8)])
    pause = "new Promise(done => setTimeout(done, 5))"
    body = f"(tell(['start', payload]), {pause}.then(() => tell(['end', payload])))"
    worker.run({"step": body}, concurrentJobs=4, pollInterval=20)
    assert told(worker, 16) == [[what, n] for n in range(8) for what in ("start", "end")]
    eventually(lambda: not jobs(db))
    (queue,) = db.execute("select queue_name, locked_by from graphile_worker._private_job_queues").fetchall()
    assert queue == {"queue_name": "q", "locked_by": None}
    tally(jobs=8)


@each_living
def test_the_tools_of_administration(worker: NodeWorker, db: Connection) -> None:
    ids = [worker.add_job("idle", runAt="2100-01-01T00:00:00Z", queueName="q")["id"] for _ in range(4)]
    (completed,) = worker.call("completeJobs", [ids[0]])
    (failed,) = worker.call("permanentlyFailJobs", [ids[1]], "enough")
    (moved,) = worker.call("rescheduleJobs", [ids[2]], {"priority": 7, "maxAttempts": 9})
    db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w' where id = %s", [ids[3]])
    worker.call("forceUnlockWorkers", ["w"])
    worker.call("cleanup", {"tasks": ["DELETE_PERMAFAILED_JOBS", "GC_JOB_QUEUES", "GC_TASK_IDENTIFIERS"]})
    assert [completed["id"], failed["id"], moved["id"]] == ids[:3]
    assert (failed["last_error"], failed["attempts"], moved["priority"], moved["max_attempts"]) == ("enough", 25, 7, 9)
    assert [(str(row["id"]), row["locked_by"]) for row in jobs(db)] == [(ids[2], None), (ids[3], None)]


@each_living
def test_our_own_jobs_run_on_node_and_nodes_on_ours(
    version: str, worker: NodeWorker, migrated_url: str, tally: Callable[..., None]
) -> None:
    """One schema, and each side works on what the other added."""
    worker.run({"node": "helpers.addJob('python', {n: payload.n + 1}).then(() => tell(payload.n))"})
    with Queue(migrated_url) as queue:
        got: list[int] = []
        queue.task("python")(lambda payload: got.append(payload["n"]))
        for n in range(20):
            queue.add_job("node", {"n": n})
        assert sorted(told(worker, 20)) == list(range(20))
        worker.stop()
        assert queue.run_once().completed == 20
        assert sorted(got) == list(range(1, 21))
    tally(jobs=40)
