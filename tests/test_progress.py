"""What handlers tell of their progress is there for others to read, and costs one write a second at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from command_line import graphile
from plain_sql import eventually

from graphile_worker_py import InvalidJobSpec, JobContext, Progress, Queue, RunSummary, WorkerPool
from graphile_worker_py.cli._output import text_of
from graphile_worker_py.worker.heartbeat import Sweeper

Pools = Callable[..., WorkerPool]


class Steps:
    """A handler that tells what it is given to tell, and goes on when it is let."""

    def __init__(self, queue: Queue, *told: tuple[Any, ...]) -> None:
        self.told = told
        self.gate = threading.Event()
        queue.task("steps")(self)

    def __call__(self, payload: Any, ctx: JobContext) -> None:
        for one in self.told:
            ctx.progress(*one)
        assert self.gate.wait(30)


def told(queue: Queue, id: int) -> tuple[Any, ...] | None:
    progress = queue.progress(id)
    return None if progress is None else (progress.done, progress.total, progress.message, progress.attempt)


def test_the_newest_can_be_read_while_the_job_runs(queue: Queue, pools: Pools, migrated_url: str) -> None:
    steps = Steps(queue, (1, 40), (10, 40, "ten"), (20, 40, "twenty"))
    job = queue.add_job("steps")
    assert queue.progress(job.id) is None
    pools(1)
    eventually(lambda: told(queue, job.id) == (20, 40, "twenty", 1))
    progress = queue.progress(job.id)
    assert isinstance(progress, Progress)
    assert progress.updated_at >= job.created_at
    shown = graphile("progress", str(job.id), "--database", migrated_url)
    at = text_of(progress.updated_at)
    assert (shown.returncode, shown.stdout) == (0, f"20 of 40 (50%), attempt 1, {at}: twenty\n")
    steps.gate.set()
    eventually(lambda: queue.job(job.id) is None)
    assert queue.progress(job.id) is None
    gone = graphile("progress", str(job.id), "--database", migrated_url)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert f"job {job.id} has told nothing of its progress, or is done" in gone.stderr


def test_a_failed_job_keeps_what_it_told_last_and_of_which_attempt(queue: Queue) -> None:
    @queue.task(max_attempts=2)
    def work(payload: Any, ctx: JobContext) -> None:
        ctx.progress(ctx.job.attempts * 10)
        eventually(lambda: told(queue, ctx.job.id) == (ctx.job.attempts * 10, None, None, ctx.job.attempts))
        raise ConnectionError

    job = queue.add_job("work")
    for attempt in (1, 2):
        queue.run_once()
        assert told(queue, job.id) == (attempt * 10, None, None, attempt)
        queue.reschedule_jobs([job.id], run_at=timedelta(0))


def test_it_is_written_together_and_once_a_second_at_most(queue: Queue, pools: Pools) -> None:
    writes: list[tuple[float, int]] = []
    run = queue.database.run

    def counted(name: str, params: Mapping[str, Any] | None = None, *, connection: object = None) -> Any:
        if name == "write_progress" and params is not None:
            writes.append((time.monotonic(), len(params["ids"])))
        return run(name, params, connection=connection)

    queue.database.run = counted  # type: ignore[method-assign]
    over = threading.Event()
    count = threading.Semaphore(0)

    @queue.task
    def busy(payload: Any, ctx: JobContext) -> None:
        done = 0
        while not over.wait(0.002):
            done += 1
            ctx.progress(done, None, "busy")
        count.release()

    jobs = [queue.add_job("busy") for _ in range(4)]
    pools(4)
    eventually(lambda: len(writes) >= 4)
    over.set()
    assert all(count.acquire(timeout=30) for _ in jobs)
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(writes)]
    assert min(gaps) >= 0.99
    assert [size for _, size in writes[1:4]] == [4, 4, 4]


def test_an_attempt_that_is_over_writes_nothing(queue: Queue, pools: Pools, db: psycopg.Connection) -> None:
    steps = Steps(queue)
    job = queue.add_job("steps")
    pool = pools(1)
    eventually(pool.running)
    db.execute("update graphile_worker._private_jobs set locked_by = 'another'")
    oversight = pool._oversight
    assert oversight
    oversight.tell(pool.running()[0], (5, 10, "late"))
    steps.gate.set()
    pool.stop()  # which writes what was told last
    assert queue.progress(job.id) is None


def test_what_was_noted_of_jobs_that_are_gone_is_swept_away(queue: Queue, pools: Pools, db: psycopg.Connection) -> None:
    steps = Steps(queue, (1, 2))
    job = queue.add_job("steps")
    queue.set_timeout(job.id, 3600)
    other = queue.add_job("another")
    queue.set_timeout(other.id, 3600)
    pools(1)
    eventually(lambda: told(queue, job.id))
    steps.gate.set()
    eventually(lambda: queue.job(job.id) is None)
    tables = (
        "select count(*) from (select job_id from graphile_worker._private_py_progress"
        " union all select job_id from graphile_worker._private_py_timeouts) as noted"
    )
    assert db.execute(tables).fetchone() == (3,)
    sweeper = Sweeper(queue.database, first=0)
    sweeper.step()
    sweeper.step()
    assert db.execute(tables).fetchone() == (1,)
    assert queue.set_timeout(other.id, None)


def test_without_the_table_the_handler_goes_on(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("drop table graphile_worker._private_py_progress, graphile_worker._private_py_timeouts")
    steps = Steps(queue, (1, 2), (2, 2))
    steps.gate.set()
    queue.add_job("steps")
    assert queue.run_once() == RunSummary(1, 0, 0)
    sweeper = Sweeper(queue.database, first=0)
    sweeper.step()
    assert sweeper.step()


def test_what_the_database_refuses_is_dropped_and_the_next_is_written(
    queue: Queue, pools: Pools, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    db.execute("alter table graphile_worker._private_py_progress add check (message <> 'secret')")
    refused = threading.Event()

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        ctx.progress(1, 2, "secret")
        eventually(lambda: "could not be written" in caplog.text)
        ctx.progress(2, 2, "fine")
        assert refused.wait(30)

    job = queue.add_job("work")
    pools(1)
    eventually(lambda: told(queue, job.id) == (2, 2, "fine", 1))
    refused.set()
    assert "the progress of 1 jobs could not be written" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("news", [(-1,), (1.5,), (1, "2"), (1, 2, 3), (1, 2, "x" * 1001), (1, 2, "\0")], ids=str)
def test_what_cannot_be_stored_is_an_error_of_the_handlers(queue: Queue, news: tuple[Any, ...]) -> None:
    caught: list[BaseException] = []

    @queue.task
    def work(payload: Any, ctx: JobContext) -> None:
        with pytest.raises(InvalidJobSpec) as error:
            ctx.progress(*news)
        caught.append(error.value)

    queue.add_job("work")
    assert queue.run_once() == RunSummary(1, 0, 0)
    assert str(caught[0]).split(":")[0] in ("done", "total", "message")
