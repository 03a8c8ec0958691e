"""Outcomes are written by whoever holds the job, once, and one that the database refuses harms no other."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest
from plain_sql import eventually
from psycopg import sql

from graphile_worker_py import JobCompleted, JobContext, JobFailed, JobLost, JobSpec, Queue, RunSummary, WorkerPool
from graphile_worker_py.jobs import Kind, Outcome
from graphile_worker_py.worker.completer import Completer
from graphile_worker_py.worker.recorder import Recorder

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]

REFERENCE = """
create table orders (job bigint references graphile_worker._private_jobs (id));
insert into orders select id from graphile_worker._private_jobs where payload::text = '2';
"""
TRIGGER = """
create function refuse() returns trigger language plpgsql as $$
begin
    if old.payload::text = '2' then
        raise exception 'this one stays';
    end if;
    return old;
end
$$;
create trigger refuse before delete on graphile_worker._private_jobs for each row execute function refuse();
"""

SELFISH_TRIGGER = TRIGGER.replace(
    "raise exception 'this one stays'", "update graphile_worker._private_jobs set priority = 7 where id = old.id"
)


@pytest.mark.parametrize(
    "refusal", [REFERENCE, TRIGGER, SELFISH_TRIGGER], ids=["reference", "trigger", "trigger that changes the row"]
)
def test_a_job_whose_row_cannot_be_deleted_fails_alone(queue: Queue, db: psycopg.Connection, refusal: str) -> None:
    last_has_begun = threading.Event()
    queue.events.subscribe(JobCompleted, lambda event: last_has_begun.wait(30))  # holds up the writing after the first

    @queue.task
    def work(payload: int) -> None:
        if payload == 4:
            last_has_begun.set()

    for number in range(5):
        work.add_job(number, priority=number)
    db.execute(refusal)
    assert queue.run_once(1) == RunSummary(completed=4, retrying=1, failed=0)
    (left,) = queue.jobs()
    assert left.attempts == 1
    assert (left.last_error or "").startswith("done, but its row could not be deleted: ")
    assert queue.job(left.id).payload == 2  # type: ignore[union-attr]


def test_a_failure_that_cannot_be_written_at_all_holds_up_nothing(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = TRIGGER.replace("before delete", "before update").replace("if ", "if new.locked_at is null and ")
    db.execute(trigger.replace("return old", "return new"))
    queue.task("work")(lambda payload: 1 / 0)
    jobs = [queue.add_job("work", number) for number in range(4)]
    assert queue.run_once(1) == RunSummary(completed=0, retrying=3, failed=0)
    assert [info.id for info in queue.jobs(state="running")] == [jobs[2].id]
    assert f"job {jobs[2].id} has failed, which cannot be written; it stays locked: this one stays" in caplog.text


class Attempts:
    """A handler whose attempts wait until each is told how to end."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self._ends = {number: threading.Event() for number in range(1, 4)}
        self._raises: set[int] = set()

    def __call__(self, payload: object, ctx: JobContext) -> None:
        number = ctx.job.attempts
        self.begun.append(number)
        assert self._ends[number].wait(30)
        if number in self._raises:
            raise ValueError(f"attempt {number}")

    def end(self, number: int, *, raising: bool = False) -> None:
        if raising:
            self._raises.add(number)
        self._ends[number].set()


@pytest.mark.parametrize("raising", [False, True], ids=["done", "failed"])
def test_an_attempt_whose_job_was_freed_and_claimed_anew_by_this_pool_changes_nothing(
    queue: Queue, pools: Pools, raising: bool
) -> None:
    attempts = Attempts()
    told: list[object] = []
    for kind in (JobLost, JobCompleted, JobFailed):
        queue.events.subscribe(kind, told.append)
    job = queue.task("work")(attempts).add_job({"a": 1})
    pool = pools(2, poll_interval=NEVER)
    eventually(lambda: attempts.begun == [1])
    queue.force_unlock_workers([pool.id])
    pool.nudge()
    eventually(lambda: attempts.begun == [1, 2])
    attempts.end(1, raising=raising)
    eventually(lambda: told)
    stored = queue.job(job.id)
    assert stored is not None
    assert (stored.attempts, stored.locked_by, stored.last_error) == (2, pool.id, None)
    attempts.end(2)
    eventually(lambda: len(told) == 2)
    assert [(type(event), event.job.attempts) for event in told] == [(JobLost, 1), (JobCompleted, 2)]  # type: ignore[attr-defined]
    assert queue.job(job.id) is None


def test_two_claims_of_one_job_are_told_apart_among_outcomes_of_both(
    queue: Queue, pools: Pools, migrated_url: str
) -> None:
    attempts = Attempts()
    told: list[object] = []
    writing, go_on, done = threading.Event(), threading.Event(), threading.Event()
    for kind in (JobLost, JobCompleted):
        queue.events.subscribe(kind, told.append)
    queue.events.subscribe(JobCompleted, lambda event: (writing.set(), go_on.wait(30)))
    job = queue.task("work")(attempts).add_job()
    queue.task("beside")(lambda payload: done.wait(30) and None)
    queue.task("first")(lambda payload: None)
    pool = pools(4, poll_interval=NEVER)
    eventually(lambda: attempts.begun == [1])
    with psycopg.connect(migrated_url) as connection:  # one claim takes the second attempt and the job beside it
        queue.force_unlock_workers([pool.id], connection=connection)
        queue.add_job("beside", connection=connection)
    eventually(lambda: attempts.begun == [1, 2] and len(pool.running()) == 3)
    queue.add_job("first")
    assert writing.wait(30)
    attempts.end(1)
    done.set()
    eventually(lambda: len(pool.running()) == 1)  # both outcomes wait to be written together
    go_on.set()
    eventually(lambda: len(told) == 3)
    assert [event.job.id for event in told if isinstance(event, JobLost)] == [job.id]
    stored = queue.job(job.id)
    assert stored is not None
    assert (stored.attempts, stored.locked_by) == (2, pool.id)
    attempts.end(2)


def test_a_lost_attempt_does_not_free_the_queue_of_the_next(queue: Queue, pools: Pools) -> None:
    """Whoever claims the freed job, this pool or another: the queue's second job waits for its second attempt."""
    attempts = Attempts()
    second: list[str] = []
    lost = threading.Event()
    queue.events.subscribe(JobLost, lambda event: lost.set())
    queue.task("work")(attempts)
    queue.task("second")(second.append)
    queue.add_jobs([JobSpec("work", queue_name="one"), JobSpec("second", "ran", queue_name="one")])
    first, other = pools(2, poll_interval=NEVER), None
    eventually(lambda: attempts.begun == [1])
    queue.force_unlock_workers([first.id])
    other = pools(2, poll_interval=NEVER)
    eventually(lambda: attempts.begun == [1, 2])
    attempts.end(1)
    assert lost.wait(30)
    first.nudge()
    other.nudge()
    (held,) = [info for info in queue.jobs(task="work")]
    assert (held.state, held.attempts) == ("running", 2)
    assert second == []
    attempts.end(2)
    eventually(lambda: second == ["ran"])


def test_a_write_whose_answer_got_lost_is_repeated_and_nobody_lost_a_job(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    for kind in (JobLost, JobCompleted, JobFailed):
        queue.events.subscribe(kind, told.append)
    run = queue.database.run
    cut: list[str] = []

    def run_and_cut(name: str, *args: object, **options: object) -> object:
        rows = run(name, *args, **options)  # type: ignore[arg-type]
        if name in ("finish_jobs", "fail_jobs") and name not in cut:
            cut.append(name)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return rows

    monkeypatch.setattr(queue.database, "run", run_and_cut)
    queue.task("fine")(lambda payload: None)
    queue.task("bad")(lambda payload: 1 / 0)
    fine = queue.add_job("fine")
    bad = queue.add_job("bad", max_attempts=1)
    assert queue.run_once(1) == RunSummary(completed=1, retrying=0, failed=1)
    assert sorted(cut) == ["fail_jobs", "finish_jobs"]
    assert sorted(type(event).__name__ for event in told) == ["JobCompleted", "JobFailed"]
    assert queue.job(fine.id) is None
    assert queue.jobs(state="failed").items[0].id == bad.id


def test_a_batch_that_is_tried_again_leaves_out_what_was_claimed_anew_meanwhile(
    queue: Queue, db: psycopg.Connection
) -> None:
    lost: list[JobLost] = []
    queue.events.subscribe(JobLost, lost.append)
    jobs = [queue.add_job("work") for _ in range(2)]
    claim = "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'pool'"
    db.execute(claim)
    first, second = (queue.job(job.id) for job in jobs)
    assert first is not None
    assert second is not None
    held = {first.id: first, second.id: second}
    written: list[int] = []
    completer = Completer(
        queue.database,
        "pool",
        events=queue.events,
        on_settled=lambda settled, seconds: written.extend(job.id for job in settled),
        held=held,
        give_back=lambda back: None,
        recorder=Recorder(queue.database, "pool", tasks=queue.tasks, history=None),
    )
    completer.put(Outcome(first, Kind.COMPLETED))
    completer.put(Outcome(second, Kind.COMPLETED))
    name = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("alter database {} set lock_timeout = '50ms'").format(name))
    queue.close()  # the next connections have it
    with db.transaction():
        db.execute("lock table graphile_worker._private_jobs in access exclusive mode")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            completer.step()
    del held[second.id]
    completer.step()
    assert (written, [event.job.id for event in lost]) == ([first.id], [second.id])
    assert [info.id for info in queue.jobs()] == [second.id]
