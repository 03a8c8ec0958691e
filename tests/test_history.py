"""The history of runs: entered with the outcome, once each, forgotten in time, and nothing of it where it is off."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from command_line import graphile, in_process
from plain_sql import eventually

from graphile_worker_py import InvalidJobSpec, JobContext, Queue, RunSummary, Snooze, WorkerPool
from graphile_worker_py._database import Database
from graphile_worker_py.history import JobRun
from graphile_worker_py.worker import recorder

Pools = Callable[..., WorkerPool]
NEVER = 3600.0  # a poll interval no test lives to see
WEEK = timedelta(days=7)
ROWS = "select count(*) from graphile_worker._private_py_history"


def work(queue: Queue, **options: Any) -> RunSummary:
    return WorkerPool(queue, 1, history=WEEK, **options).run_once()


def count(db: psycopg.Connection) -> int:
    ((rows,),) = db.execute(ROWS).fetchall()
    return int(rows)


def short(runs: list[JobRun]) -> list[tuple[str, int, str]]:
    """Return task, attempt and outcome of runs, in the order they were entered."""
    return [(run.task_identifier, run.attempt, run.outcome) for run in reversed(runs)]


def test_a_snooze_is_no_failure(queue: Queue) -> None:
    @queue.task
    def later(payload: object) -> None:
        raise Snooze(delay=timedelta(hours=1))

    later.add_job()
    assert work(queue) == RunSummary(completed=0, retrying=0, failed=0)
    assert short(queue.history(outcome="snoozed")) == short(queue.history()) == [("later", 1, "snoozed")]


def test_without_the_table_a_job_can_be_completed_in_a_transaction(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("drop table graphile_worker._private_py_results, graphile_worker._private_py_history")

    @queue.task(keep_result=True)
    def work(payload: Any, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("create table effects ()")
            ctx.result = 1

    queue.add_job("work")
    assert queue.run_once() == RunSummary(1, 0, 0)
    assert db.execute("select count(*) from effects").fetchone() == (0,)


def test_every_run_is_entered_with_its_outcome(queue: Queue) -> None:
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: {}["no such key"])
    fine = queue.add_job("fine", priority=-1)
    bad = queue.add_job("bad", max_attempts=2)
    assert work(queue) == RunSummary(completed=1, retrying=1, failed=0)
    queue.reschedule_jobs([bad.id], run_at=timedelta(0))
    assert work(queue) == RunSummary(completed=0, retrying=0, failed=1)
    runs = queue.history()
    assert short(runs) == [("fine", 1, "completed"), ("bad", 1, "retrying"), ("bad", 2, "failed")]
    last, _, first = runs
    assert (first.job_id, first.error, first.host) == (fine.id, None, socket.gethostname())
    assert (last.job_id, (last.error or "").split("\n")[0]) == (bad.id, "KeyError: 'no such key'")
    assert first.pool_id.startswith("pool-")
    assert first.pool_id != last.pool_id
    for run in runs:
        assert timedelta(0) <= run.finished_at - run.claimed_at < timedelta(seconds=30)
        assert 0 <= run.duration < 30
    assert "no such key" not in repr(last)


def test_a_long_error_is_cut(queue: Queue) -> None:
    def bad(payload: object) -> None:
        raise ValueError("x" * 5000)

    queue.task("long")(bad)
    queue.add_job("long", max_attempts=1)
    work(queue)
    (run,) = queue.history()
    assert run.error == "ValueError: " + "x" * 1988


def test_nothing_is_entered_where_it_is_off(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("fine", keep_result=True)(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    queue.add_job("fine")
    queue.add_job("bad")
    queue.run_once(1)
    assert count(db) == 0


def test_the_recorder_has_no_part_in_it_where_nobody_asks(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder.Recorder, "finish", lambda *args: pytest.fail("a recorder"))
    monkeypatch.setattr(recorder.Recorder, "enter", lambda *args: pytest.fail("a recorder"))
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    queue.add_job("fine")
    queue.add_job("bad", max_attempts=1)
    assert queue.run_once(1) == RunSummary(completed=1, retrying=0, failed=1)


def test_what_a_transaction_of_the_handlers_completes_is_entered_too(queue: Queue) -> None:
    @queue.task
    def pay(payload: bool, ctx: JobContext) -> None:
        with ctx.transaction():
            pass
        if payload:
            raise ValueError("afterwards")

    @queue.task
    def fail(payload: Any, ctx: JobContext) -> None:
        with ctx.transaction():
            raise ValueError("before")

    pay.add_job(False, priority=1)
    pay.add_job(True, priority=2)
    fail.add_job(priority=3, max_attempts=1)
    assert work(queue) == RunSummary(completed=2, retrying=0, failed=1)
    assert sorted((run.task_identifier, run.outcome, run.error is None) for run in queue.history()) == [
        ("fail", "failed", False),
        ("pay", "completed", True),
        ("pay", "completed", True),
    ]


def test_runs_are_filtered_and_paged(queue: Queue) -> None:
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    jobs = []
    for name in ("fine", "bad", "fine", "fine"):
        jobs.append(queue.add_job(name))
        work(queue)  # one by one: what is written together has no order
    assert [run.job_id for run in queue.history()] == [job.id for job in reversed(jobs)]
    assert [run.job_id for run in queue.history(task="fine")] == [jobs[3].id, jobs[2].id, jobs[0].id]
    assert [run.job_id for run in queue.history(outcome="retrying")] == [jobs[1].id]
    assert [run.job_id for run in queue.history(job_id=jobs[2].id)] == [jobs[2].id]
    assert queue.history(job_id=jobs[2].id, task="bad") == []
    page = queue.history(limit=2)
    assert page + queue.history(limit=2, before=page[-1].id) == queue.history()
    assert queue.history(before=queue.history()[-1].id) == []


@pytest.mark.parametrize(
    "filters",
    [
        {"outcome": "done"},
        {"limit": 0},
        {"limit": 10_001},
        {"task": 7},
        {"job_id": "7"},
        {"before": None, "limit": "1"},
    ],
)
def test_filters_that_make_no_sense_are_refused(queue: Queue, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidJobSpec):
        queue.history(**filters)


@pytest.mark.parametrize("history", [timedelta(0), 7, timedelta.max])
def test_a_history_for_no_such_time_is_refused(queue: Queue, history: Any) -> None:
    with pytest.raises(InvalidJobSpec, match="history: expected"):
        WorkerPool(queue, history=history)


def forget(pool: WorkerPool) -> None:
    next(service for service in pool._claiming if service.name == "sweeper").wake()


def enter(db: psycopg.Connection, job_id: int, *, ago: str, keep_for: str) -> None:
    db.execute(
        "insert into graphile_worker._private_py_history"
        " (job_id, claimed_at, finished_at, expires_at, seconds, attempt, outcome, task, host, pool)"
        " select %s, at, at, at + %s::interval, 0, 1, 'completed', 't', 'h', 'p'"
        " from (select now() - %s::interval) as _ (at)",
        [job_id, keep_for, ago],
    )


def left(db: psycopg.Connection) -> list[int]:
    return [id for (id,) in db.execute("select job_id from graphile_worker._private_py_history order by 1").fetchall()]


def test_runs_are_forgotten_when_their_time_is_over(
    queue: Queue, db: psycopg.Connection, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "FORGET_AT_ONCE", 2)
    for number in range(7):
        enter(db, number, ago="8 days", keep_for="7 days")
    enter(db, 7, ago="2 days", keep_for="7 days")
    queue.task("fine")(lambda payload: None)
    forget(pools(1))  # of a pool that keeps none itself
    eventually(lambda: left(db) == [7])
    forget(pools(1, history=timedelta(days=3)))
    enter(db, 8, ago="1 hour", keep_for="7 days")
    pool = pools(1, history=timedelta(days=1))
    forget(pool)
    eventually(lambda: left(db) == [8])


def test_a_failure_whose_answer_got_lost_is_entered_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are a completion, and one by a transaction of the handler's: whatever was cut, each run is there once."""
    cut: list[str] = []
    run = Database.run
    enter_runs = recorder.Recorder.enter

    def run_and_cut(self: Database, name: str, *args: Any, **options: Any) -> Any:
        rows = run(self, name, *args, **options)
        if name == "finish_and_record_jobs" and name not in cut:
            cut.append(name)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return rows

    def enter_and_cut(self: recorder.Recorder, connection: psycopg.Connection, outcomes: Any, final: Any) -> None:
        enter_runs(self, connection, outcomes, final)
        kind = outcomes[0].kind.name
        if kind not in cut:
            cut.append(kind)
            connection.execute("commit")  # and its answer is lost
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(Database, "run", run_and_cut)
    monkeypatch.setattr(recorder.Recorder, "enter", enter_and_cut)
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)

    @queue.task
    def pay(payload: Any, ctx: JobContext) -> None:
        with ctx.transaction():
            pass

    for place, name in enumerate(["fine", "bad", "pay"]):
        queue.add_job(name, priority=place, max_attempts=1)
    assert work(queue) == RunSummary(completed=2, retrying=0, failed=1)
    assert sorted(cut) == ["DECIDED", "FAILED", "finish_and_record_jobs"]
    assert sorted(short(queue.history())) == [("bad", 1, "failed"), ("fine", 1, "completed"), ("pay", 1, "completed")]


def test_an_attempt_that_lost_its_job_is_not_entered(queue: Queue, pools: Pools) -> None:
    begun = threading.Semaphore(0)
    go_on = [threading.Event(), threading.Event()]

    @queue.task
    def task(payload: Any, ctx: JobContext) -> None:
        begun.release()
        go_on[ctx.job.attempts - 1].wait(30)

    task.add_job()
    pool = pools(2, poll_interval=NEVER, history=WEEK)
    assert begun.acquire(timeout=30)
    queue.force_unlock_workers([pool.id])
    pool.nudge()
    assert begun.acquire(timeout=30)
    go_on[0].set()
    eventually(lambda: len(pool.running()) == 1)
    go_on[1].set()
    eventually(queue.history)
    pool.stop()
    assert short(queue.history()) == [("task", 2, "completed")]


def test_without_the_table_a_pool_works_and_says_so_once(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    db.execute("drop table graphile_worker._private_py_results, graphile_worker._private_py_history")
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    for name in ("bad", "fine", "bad"):
        queue.add_job(name, max_attempts=1)
    assert work(queue) == RunSummary(completed=1, retrying=0, failed=2)
    said = [record.getMessage() for record in caplog.records if "neither results nor" in record.getMessage()]
    assert len(said) == 1


def test_the_command_line_keeps_a_history_and_shows_it(
    capsys: pytest.CaptureFixture[str], queue: Queue, folder: Any, migrated_url: str
) -> None:
    queue.add_job("note", "x")
    queue.add_job("fail", max_attempts=1)
    arguments = ("--database", migrated_url)
    ran = graphile("run", "jobs:queue", "--once", "-c", "1", "--history", "7d", *arguments, cwd=folder)
    assert "1 completed" in ran.stdout

    def shown(*options: str) -> list[list[str]]:
        done = in_process(capsys, "history", *options, *arguments)
        return [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]

    head, *rows = shown()
    assert head == ["run", "finished", "took", "job", "task", "attempt", "outcome", "host", "error"]
    assert [row[3:7] for row in rows] == [["2", "fail", "1", "failed"], ["1", "note", "1", "completed"]]
    assert [row[8] for row in rows] == ["ValueError: secret", "-"]
    assert shown("--outcome=completed")[1:] == shown("--before", rows[0][0])[1:] == rows[1:]
    assert shown("--job=2", "--limit=1")[1:] == rows[:1]
    assert shown("--task=none") == []
    said = json.loads(in_process(capsys, "history", "--json", "--limit=1", *arguments).stdout)
    assert (said["id"], said["outcome"], said["attempt"]) == (int(rows[0][0]), "failed", 1)


@pytest.mark.parametrize("text", ["", "0d", "7", "7 days", "-7d"])
def test_a_history_for_no_such_time_is_refused_on_the_command_line(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    done = in_process(capsys, "run", "jobs:queue", "--history", text)
    assert done.returncode == 2
    assert "history" in done.stderr


def test_without_the_table_the_command_says_what_to_do(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    db.execute("drop table graphile_worker._private_py_history")
    done = graphile("history", "--database", migrated_url)
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "run queue.migrate()" in done.stderr
