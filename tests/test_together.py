"""Jobs that several threads add at a time: one transaction for those who wait, and to each what is its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import Job, Queue, _together

JOBS = "graphile_worker._private_jobs"


@pytest.fixture(autouse=True)
def known(queue: Queue) -> None:
    """Only jobs of a task that was added before are shared."""
    queue.add_job("task", {"n": -1})
    queue.complete_jobs(info.id for info in queue.jobs())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_together, "PATIENCE", 60)


@pytest.fixture
def held(queue: Queue, db: psycopg.Connection, patient: None) -> Iterator[Callable[[int], list[Future[Job]]]]:
    """Return a function that lets one thread add a job, held up by a lock, and so many more wait for it."""
    crowd = ThreadPoolExecutor(10)

    def start(count: int) -> list[Future[Job]]:
        asked = [crowd.submit(queue.add_job, "task", {"n": 0})]
        eventually(lambda: blocked(db))
        asked += [crowd.submit(queue.add_job, "task", {"n": n}) for n in range(1, count + 1)]
        eventually(lambda: len(queue._together._waiting) == count)
        return asked

    with crowd:
        yield start


def blocked(db: psycopg.Connection) -> bool:
    """Say whether a session waits for a lock in this database."""
    db.execute("select pg_stat_clear_snapshot()")  # a transaction sees what it saw at first
    waits = "select from pg_stat_activity where datname = %s and wait_event_type = 'Lock'"
    return db.execute(waits, [db.info.dbname]).rowcount > 0


@contextmanager
def table_locked(db: psycopg.Connection) -> Iterator[None]:
    with db.transaction():
        db.execute(f"lock table {JOBS} in share mode")
        yield


def transactions(db: psycopg.Connection) -> list[int]:
    """Return how many jobs came with each transaction."""
    rows = db.execute(f"select count(*) from {JOBS} group by xmin::text order by 1").fetchall()  # noqa: S608
    return [count for (count,) in rows]


def payload(queue: Queue, job: Job) -> object:
    stored = queue.job(job.id)
    return None if stored is None else stored.payload


def test_who_waits_is_added_with_all_who_wait(
    queue: Queue, db: psycopg.Connection, held: Callable[[int], list[Future[Job]]]
) -> None:
    with table_locked(db):
        asked = held(6)
    jobs = [future.result(30) for future in asked]
    assert [payload(queue, job) for job in jobs] == [job.payload for job in jobs] == [{"n": n} for n in range(7)]
    assert {job.task_identifier for job in jobs} == {"task"}
    assert transactions(db) == [1, 6]


def test_a_job_of_its_own_options_comes_back_with_them(
    queue: Queue, db: psycopg.Connection, held: Callable[[int], list[Future[Job]]]
) -> None:
    with ThreadPoolExecutor(1) as other, table_locked(db):
        held(2)
        asked = other.submit(queue.add_job, "task", [1, 2], priority=-3, max_attempts=2, flags=["a"])
        eventually(lambda: len(queue._together._waiting) == 3)
    job = asked.result(30)
    stored = queue.job(job.id)
    assert stored == job
    assert (job.payload, job.priority, job.max_attempts, job.flags) == ([1, 2], -3, 2, ("a",))


def test_what_is_refused_is_the_mistake_of_one(
    queue: Queue, db: psycopg.Connection, held: Callable[[int], list[Future[Job]]]
) -> None:
    db.execute(f"alter table {JOBS} add constraint no_three check (payload::text <> '{{\"n\":3}}')")
    with table_locked(db):
        asked = held(5)
    with pytest.raises(psycopg.errors.CheckViolation):
        asked[3].result(30)
    others = [future.result(30) for n, future in enumerate(asked) if n != 3]
    assert [payload(queue, job) for job in others] == [{"n": n} for n in (0, 1, 2, 4, 5)]
    assert len(queue.jobs()) == 5


def test_a_lost_connection_is_told_to_all_whose_jobs_may_be_lost(
    queue: Queue, db: psycopg.Connection, held: Callable[[int], list[Future[Job]]]
) -> None:
    """And to nobody else; nothing is added twice."""
    lose = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and wait_event_type = 'Lock'"
    with table_locked(db):
        asked = held(4)
        db.execute(lose, [db.info.dbname])
        with pytest.raises(psycopg.OperationalError):
            asked[0].result(30)
        eventually(lambda: blocked(db))
        db.execute(lose, [db.info.dbname])
        for future in asked[1:]:
            with pytest.raises(psycopg.OperationalError):
                future.result(30)
    assert len(queue.jobs()) == 0
    assert payload(queue, queue.add_job("task", {"n": 9})) == {"n": 9}


def test_patience_ends(queue: Queue, db: psycopg.Connection) -> None:
    """Whoever waits for longer than a turn takes adds for itself and those behind it."""
    db.execute(f"""
        create function slow() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock(1); return new; end $$;
        create trigger slow before insert on {JOBS} for each row when (new.payload::text = '"slow"')
            execute function slow();
        select pg_advisory_lock(1);
    """)
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(queue.add_job, "task", "slow")
        eventually(lambda: blocked(db))
        try:
            assert queue.add_job("task", {"n": 1}).payload == {"n": 1}
            assert not slow.done()
        finally:
            db.execute("select pg_advisory_unlock(1)")
        assert slow.result(30).payload == "slow"


def test_who_is_interrupted_adds_nothing_and_holds_up_nobody(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_together, "PATIENCE", 60)

    class Interrupted(BaseException):
        pass

    class Impatient:
        """The news of a call: an interrupt is the first."""

        def get(self, timeout: float | None = None) -> str:
            raise Interrupted

        def put(self, news: str) -> None:
            pass

    call = _together._Call

    def interrupted(spec: object) -> object:
        made = call(spec)  # type: ignore[arg-type]
        made.news = Impatient()  # type: ignore[assignment]
        return made

    with ThreadPoolExecutor(2) as others:
        with table_locked(db):
            first = others.submit(queue.add_job, "task", {"n": 0})
            eventually(lambda: blocked(db))
            second = others.submit(queue.add_job, "task", {"n": 1})
            eventually(lambda: len(queue._together._waiting) == 1)
            with monkeypatch.context() as patched:
                patched.setattr(_together, "_Call", interrupted)
                with pytest.raises(Interrupted):
                    queue.add_job("task", {"n": 2})
        assert [first.result(30).payload, second.result(30).payload] == [{"n": 0}, {"n": 1}]
    assert sorted(str(payload(queue, job)) for job in [first.result(), second.result()]) == ["{'n': 0}", "{'n': 1}"]
    assert len(queue.jobs()) == 2


@pytest.mark.parametrize("options", [{"job_key": "k"}, {"queue_name": "q"}])
def test_what_may_wait_for_others_waits_alone(
    queue: Queue, db: psycopg.Connection, options: dict[str, str], patient: None
) -> None:
    """Such a job is not even in the way of one that can be added."""
    with psycopg.connect(db.info.dsn) as other, ThreadPoolExecutor(1) as thread:
        queue.add_job("task", {"n": 0}, connection=other, **options)
        waits = thread.submit(queue.add_job, "task", {"n": 1}, **options)
        eventually(lambda: blocked(db))
        assert queue.add_job("task", {"n": 2}).payload == {"n": 2}
        other.rollback()
        assert waits.result(30).payload == {"n": 1}


def test_many_threads(queue: Queue) -> None:
    def add(worker: int) -> list[tuple[int, object]]:
        return [(job.id, job.payload) for n in range(100) for job in [queue.add_job("task", [worker, n])]]

    with ThreadPoolExecutor(8) as threads:
        added = dict(pair for pairs in threads.map(add, range(8)) for pair in pairs)
    assert len(added) == 800
    stored = {info.id: payload(queue, info) for info in queue.jobs(limit=1000)}  # type: ignore[arg-type]
    assert stored == added


FORKING = """
import os, sys, threading
from graphile_worker_py import Queue

queue = Queue(sys.argv[1])
queue.add_job("task")
together = queue._together
held = threading.Event()
go_on = threading.Event()

def hold():
    with together._lock:
        held.set()
        go_on.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
if pid == 0:
    queue.add_job("task", "child")
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go_on.set()
thread.join()
queue.add_job("task", "parent")
queue.close()
print(code)
"""


def test_a_lock_held_at_a_fork_does_not_hold_up_the_child(queue: Queue, migrated_url: str) -> None:
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", FORKING]
    done = subprocess.run([*command, migrated_url], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert sorted(str(payload(queue, info)) for info in queue.jobs()) == ["child", "parent", "{}"]  # type: ignore[arg-type]
