"""Results of tasks that keep them, and waiting for a job to be over, from any number of threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from plain_sql import eventually
from tcp_proxy import TcpProxy

from graphile_worker_py import (
    InvalidJobSpec,
    Job,
    JobCompleted,
    JobContext,
    JobFailedForGood,
    JobSpec,
    NotSupported,
    Queue,
    ResultMissing,
    RunSummary,
    WorkerPool,
    results,
)
from graphile_worker_py.worker.recorder import Recorder

Pools = Callable[..., WorkerPool]
NEVER = 3600.0  # a poll interval no test lives to see
LONG = 30.0  # seconds, within which everything here happens
KEPT = "select job_id, result::text from graphile_worker._private_py_results order by job_id"
OURS = "select count(*) from pg_stat_activity where datname = current_database() and query like "
LISTENING = OURS + """'listen "graphile_worker_py:over"'"""


@contextmanager
def waiting(queue: Queue, job: Job | int, timeout: float | None = LONG) -> Iterator[Callable[[], Any]]:
    """Wait for a job in a thread; yield what returns the result, or raises."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(queue.wait_for, job, timeout)
        yield lambda: future.result(LONG)


def count(db: psycopg.Connection, statement: str) -> int:
    ((number,),) = db.execute(statement).fetchall()
    return int(number)


def only_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who waits listen at once, and then look again when something is heard: the next look is an hour away."""
    monkeypatch.setattr(results, "LISTEN_AFTER", 0.0)
    monkeypatch.setattr(results, "LONGEST_PAUSE", NEVER)
    monkeypatch.setattr(results, "SHORTEST_PAUSE", NEVER)


def tickets(queue: Queue) -> int:
    return len(queue._waiters._tickets)


@pytest.mark.parametrize(
    ("returned", "kept"),
    [
        ({"a": [1, 2.5, None, "ä"]}, {"a": [1, 2.5, None, "ä"]}),
        (None, None),
        (False, False),
        ("", ""),
        ((1, 2), [1, 2]),
        (datetime(2030, 1, 2, tzinfo=timezone.utc), "2030-01-02T00:00:00+00:00"),
    ],
)
def test_a_result_is_there_when_the_job_is_done(queue: Queue, returned: object, kept: object) -> None:
    job = queue.task("work", keep_result=True)(lambda payload: returned).add_job()
    assert queue.run_once(1) == RunSummary(completed=1, retrying=0, failed=0)
    assert queue.job(job.id) is None
    assert queue.wait_for(job, 0) == kept
    assert queue.wait_for(job.id, 0) == kept


def test_nothing_is_kept_unless_the_task_says_so(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("kept", keep_result=timedelta(hours=1))(lambda payload: "here")
    queue.task("not_kept", keep_result=False)(lambda payload: "not here")
    jobs = [queue.add_job(name) for name in ("kept", "not_kept")]
    queue.run_once(1)
    assert db.execute(KEPT).fetchall() == [(jobs[0].id, '"here"')]
    assert [queue.wait_for(job, 0) for job in jobs] == ["here", None]


def test_results_of_a_batch_are_those_of_its_items(queue: Queue) -> None:
    @queue.task(keep_result=True)
    def double(payload: list[int], ctx: JobContext) -> list[Any]:
        return [*ctx.map(lambda item: 2 * item, payload[1:]), "last"]

    job = double.add_job([1, 2, 3])
    queue.run_once(1)
    assert queue.wait_for(job, 0) == [4, 6, "last"]


def test_a_future_gives_its_own_result(queue: Queue) -> None:
    queue.task("work", keep_result=True)(lambda payload, ctx: ctx.submit(lambda: 7))
    job = queue.add_job("work")
    queue.run_once(1)
    assert queue.wait_for(job, 0) == 7


def test_a_result_that_json_cannot_carry_fails_the_job_and_says_where(queue: Queue) -> None:
    queue.task("work", keep_result=True)(lambda payload: {"a": [float("nan")]})
    job = queue.add_job("work", max_attempts=1)
    assert queue.run_once(1).failed == 1
    with pytest.raises(
        JobFailedForGood, match=r"returned what cannot be kept as JSON: result\.a\[0\]: nan is not JSON"
    ):
        queue.wait_for(job, 0)


def test_a_failure_is_raised_when_it_is_for_good(queue: Queue) -> None:
    queue.task("work", keep_result=True)(lambda payload: 1 / 0)
    job = queue.add_job("work", max_attempts=2)
    assert queue.run_once(1).retrying == 1
    with pytest.raises(TimeoutError, match=f"job {job.id} was not over after 0.1 s"):
        queue.wait_for(job, 0.1)
    queue.reschedule_jobs([job.id], run_at=timedelta(0))
    assert queue.run_once(1).failed == 1
    with pytest.raises(JobFailedForGood) as caught:
        queue.wait_for(job, 0)
    assert str(caught.value) == f"job {job.id} (work) has failed for good: ZeroDivisionError: division by zero"
    assert (caught.value.job_id, caught.value.task_identifier) == (job.id, "work")
    assert "Traceback" in str(caught.value.last_error)


def test_of_a_job_without_a_result_only_its_end_is_known(queue: Queue) -> None:
    queue.task("plain")(lambda payload: "lost")
    queue.task("keeps", keep_result=True)(lambda payload: "kept")
    plain, keeps = queue.add_job("plain", job_key="p"), queue.add_job("keeps", job_key="k")
    assert queue.remove_job("p")
    assert queue.remove_job("k")
    assert queue.wait_for(plain, 0) is None
    assert queue.wait_for(keeps.id, 0) is None
    with pytest.raises(ResultMissing, match=f"job {keeps.id} is gone and has left no result"):
        queue.wait_for(keeps, 0)


def test_a_result_expires(queue: Queue, db: psycopg.Connection, pools: Pools) -> None:
    queue.task("soon", keep_result=timedelta(hours=1))(lambda payload: 1)
    queue.task("later", keep_result=timedelta(hours=3))(lambda payload: 2)
    soon, later = queue.add_job("soon"), queue.add_job("later")
    queue.run_once(1)
    db.execute("update graphile_worker._private_py_results set expires_at = expires_at - interval '2 hours'")
    with pytest.raises(ResultMissing):
        queue.wait_for(soon, 0)
    assert queue.wait_for(later, 0) == 2
    pool = pools(1)
    next(service for service in pool._claiming if service.name == "sweeper").wake()
    eventually(lambda: db.execute(KEPT).fetchall() == [(later.id, "2")])


@pytest.mark.parametrize("keep_result", [timedelta(0), timedelta(days=-1), timedelta.max, 3600, "1h"])
def test_what_is_no_retention_is_refused(queue: Queue, keep_result: Any) -> None:
    with pytest.raises(InvalidJobSpec, match="keep_result: expected True, or a timedelta"):
        queue.task("work", keep_result=keep_result)(lambda payload: None)


@pytest.mark.parametrize(("job", "timeout"), [("7", 1), (None, 1), (7, -1), (7, float("nan")), (7, "1")])
def test_what_cannot_be_waited_for_is_refused(queue: Queue, job: Any, timeout: Any) -> None:
    with pytest.raises(InvalidJobSpec):
        queue.wait_for(job, timeout)


def test_a_result_wakes_who_waits_for_it(
    queue: Queue, db: psycopg.Connection, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    queue.task("work", keep_result=True)(lambda payload: go_on.wait(LONG))
    job = queue.add_job("work")
    pools(1)
    only_listening(monkeypatch)
    with waiting(queue, job) as result:
        eventually(lambda: count(db, LISTENING) == 1)
        go_on.set()
        assert result() is True
    eventually(lambda: count(db, LISTENING) == 0)


def test_a_failure_of_a_task_with_results_wakes_too(
    queue: Queue, db: psycopg.Connection, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    queue.task("work", keep_result=True)(lambda payload: go_on.wait(LONG) and 1 / 0)
    job = queue.add_job("work", max_attempts=1)
    pools(1)
    only_listening(monkeypatch)
    with waiting(queue, job) as result:
        eventually(lambda: count(db, LISTENING) == 1)
        go_on.set()
        with pytest.raises(JobFailedForGood):
            result()


def test_the_end_of_a_job_without_a_result_is_found_by_looking(queue: Queue, db: psycopg.Connection) -> None:
    job = queue.add_job("work")
    with waiting(queue, job, None) as result:
        eventually(lambda: count(db, LISTENING) == 1)
        queue.complete_jobs([job.id])
        assert result() is None


def test_many_threads_wait_with_one_connection_that_listens(queue: Queue, db: psycopg.Connection, pools: Pools) -> None:
    go_on = threading.Event()
    queue.task("work", keep_result=True)(lambda payload: go_on.wait(LONG) and payload)
    jobs = [queue.add_job("work", number) for number in range(20)]
    begun = db.execute("select now()").fetchone()
    with ThreadPoolExecutor(20) as executor:
        futures = [executor.submit(queue.wait_for, job, LONG) for job in jobs]
        eventually(lambda: tickets(queue) == 20 and count(db, LISTENING) == 1)
        assert begun is not None
        assert [future.done() for future in futures] == [False] * 20
        pools(4)
        go_on.set()
        assert [future.result(LONG) for future in futures] == list(range(20))
    assert tickets(queue) == 0
    eventually(lambda: count(db, LISTENING) == 0)


def test_who_leads_hands_over_when_its_time_is_over(
    queue: Queue, db: psycopg.Connection, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    queue.task("work", keep_result=True)(lambda payload: go_on.wait(LONG))
    job = queue.add_job("work")
    pools(1)
    only_listening(monkeypatch)
    with waiting(queue, job, 0.5) as first:
        eventually(lambda: queue._waiters._led)
        with waiting(queue, job) as second:
            with pytest.raises(TimeoutError):
                first()
            eventually(lambda: queue._waiters._led and tickets(queue) == 1)
            go_on.set()
            assert second() is True
    eventually(lambda: count(db, LISTENING) == 0)


def test_an_outage_is_waited_out(queue: Queue, proxied_url: str, proxy: TcpProxy, db: psycopg.Connection) -> None:
    queue.task("work", keep_result=True)(lambda payload: "after all")
    with Queue(proxied_url, connect_timeout=0.5) as remote:
        job = remote.add_job("work")
        with waiting(remote, job) as result:
            eventually(lambda: count(db, LISTENING) == 1)
            proxy.refuse()
            proxy.reset()
            eventually(lambda: count(db, LISTENING) == 0)
            queue.run_once(1)
            proxy.accept()
            assert result() == "after all"


def test_a_database_that_is_away_from_the_start_is_told_at_once(proxied_url: str, proxy: TcpProxy) -> None:
    proxy.refuse()
    with Queue(proxied_url, connect_timeout=0.5) as remote, pytest.raises(psycopg.OperationalError):
        remote.wait_for(7)


def test_poll_only_waits_without_listening(migrated_url: str, queue: Queue, db: psycopg.Connection) -> None:
    with Queue(migrated_url, listen=False) as poll_only:
        job = poll_only.add_job("work")
        with waiting(poll_only, job) as result:
            eventually(lambda: poll_only._waiters._ear and poll_only._waiters._ear._opens_at == math.inf)
            queue.complete_jobs([job.id])
            assert result() is None
        assert count(db, LISTENING) == 0


def test_without_the_table_jobs_run_and_nobody_can_wait(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    db.execute("drop table graphile_worker._private_py_results, graphile_worker._private_py_history")
    queue.task("work", keep_result=True)(lambda payload: 1 / payload)
    jobs = [queue.add_job("work", number, max_attempts=1) for number in (1, 0, 2)]
    assert queue.run_once(1) == RunSummary(completed=2, retrying=0, failed=1)
    assert [record.getMessage() for record in caplog.records if "neither results" in record.getMessage()] != []
    with pytest.raises(NotSupported, match=r"queue\.migrate\(\)"):
        queue.wait_for(jobs[0], 0)
    with pytest.raises(NotSupported, match=r"queue\.migrate\(\)"):
        queue.history()


class Paying:
    """A handler that completes its job in a transaction, and keeps a result in it."""

    def __init__(self, *, fails: bool = False, late: bool = False) -> None:
        self.fails = fails
        self.late = late

    def __call__(self, payload: Any, ctx: JobContext) -> object:
        with ctx.transaction() as connection:
            connection.execute("create table if not exists paid ()")
            if not self.late:
                ctx.result = {"paid": True}
            if self.fails:
                raise ValueError("no money")
        return "too late" if self.late else None


def test_a_result_is_written_by_the_transaction_that_completes_the_job(queue: Queue) -> None:
    job = queue.task("pay", keep_result=True)(Paying()).add_job()
    queue.run_once(1)
    assert queue.wait_for(job, 0) == {"paid": True}


def test_a_result_goes_with_the_transaction_that_failed(queue: Queue, db: psycopg.Connection) -> None:
    queue.task("pay", keep_result=True)(Paying(fails=True)).add_job(max_attempts=1)
    assert queue.run_once(1).failed == 1
    assert db.execute(KEPT).fetchall() == []


def test_a_result_that_comes_after_the_transaction_is_warned_of(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    job = queue.task("pay", keep_result=True)(Paying(late=True)).add_job()
    queue.run_once(1)
    assert queue.wait_for(job, 0) is None
    assert f"job {job.id} was completed before it had a result: set ctx.result before that" in caplog.text


def test_what_a_handler_sets_is_kept_where_it_returns_nothing(queue: Queue) -> None:
    @queue.task(keep_result=True)
    def work(payload: str, ctx: JobContext) -> str | None:
        ctx.result = "set"
        return payload or None

    jobs = [work.add_job(""), work.add_job("returned")]
    queue.run_once(1)
    assert [queue.wait_for(job, 0) for job in jobs] == ["set", "returned"]


def test_a_result_of_an_attempt_that_lost_its_job_is_not_kept(
    queue: Queue, db: psycopg.Connection, pools: Pools
) -> None:
    begun, go_on = threading.Semaphore(0), [threading.Event(), threading.Event()]

    @queue.task(keep_result=True)
    def work(payload: Any, ctx: JobContext) -> int:
        begun.release()
        go_on[ctx.job.attempts - 1].wait(LONG)
        return ctx.job.attempts

    job = work.add_job()
    pool = pools(2, poll_interval=NEVER)
    assert begun.acquire(timeout=LONG)
    queue.force_unlock_workers([pool.id])
    pool.nudge()
    assert begun.acquire(timeout=LONG)
    go_on[0].set()
    eventually(lambda: len(pool.running()) == 1)
    assert db.execute(KEPT).fetchall() == []
    go_on[1].set()
    assert queue.wait_for(job, LONG) == 2


def test_a_write_whose_answer_got_lost_keeps_the_result_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cut = queue.database.run, [True]

    def run_and_cut(name: str, *args: Any, **options: Any) -> Any:
        rows = run(name, *args, **options)
        if name == "finish_and_record_jobs" and cut:
            cut.clear()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return rows

    monkeypatch.setattr(queue.database, "run", run_and_cut)
    job = queue.task("work", keep_result=True)(lambda payload: "once").add_job()
    assert queue.run_once(1).completed == 1
    assert not cut
    assert queue.wait_for(job, 0) == "once"


def test_more_results_than_a_notification_can_name_wake_too(
    queue: Queue, db: psycopg.Connection, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_is_done = threading.Event()
    queue.events.subscribe(JobCompleted, lambda event: last_is_done.wait(LONG))  # the others are written together then
    db.execute("alter table graphile_worker._private_jobs alter id restart 1000000000000000000")
    queue.task("work", keep_result=True)(lambda payload: payload)
    jobs = queue.add_jobs([JobSpec("work", number) for number in range(800)])
    only_listening(monkeypatch)
    written: list[object] = []
    finish = Recorder.finish
    monkeypatch.setattr(Recorder, "finish", lambda *args: written.append(args) or finish(*args))
    with waiting(queue, jobs[-1]) as result:
        eventually(lambda: count(db, LISTENING) == 1)
        pool = pools(1)
        eventually(lambda: pool.unwritten() >= 700 and not pool.running())
        last_is_done.set()
        assert result() == 799
    assert len(written) < 100
