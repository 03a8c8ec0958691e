"""What a live view tells of a queue: counted, at next to no cost, whoever asks and whatever is missing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from plain_sql import eventually
from psycopg import sql
from psycopg.conninfo import make_conninfo
from rights import staged

from graphile_worker_py import NotSupported, Queue, SchemaMissing, WorkerPool
from graphile_worker_py._looks import Snapshot
from graphile_worker_py.monitor import FAILING, Monitor

JOBS = "graphile_worker._private_jobs"


class Rations:
    """A budget that is enough for so many pieces in each look."""

    pieces = 0

    def accrue(self) -> None:
        self._asked = 0

    def spend(self, seconds: float) -> None:
        assert seconds > 0

    @property
    def left(self) -> float:
        self._asked += 1
        return math.inf if self._asked <= self.pieces else 0.0


# Looks at a queue.


@pytest.fixture
def in_pieces(db: psycopg.Connection) -> None:
    """Skip a test where a table cannot be read in pieces."""
    if db.info.server_version < 140_000:
        pytest.skip("PostgreSQL 13 cannot find rows by the numbers of their pages")


@pytest.fixture
def monitor(queue: Queue) -> Monitor:
    return Monitor(queue.database, grant=10)


def by_task(snapshot: Snapshot) -> dict[str, tuple[int, ...]]:
    states = ("ready", "scheduled", "running", "retrying", "failed")
    return {task.task: tuple(getattr(task, state) for state in states) for task in snapshot.tasks}


def fill(db: psycopg.Connection, queue: Queue, *, times: int = 1) -> None:
    """Add jobs in all states, of two tasks; each task has one more in each state."""
    changes = [
        "run_at = now() - interval '1 minute', created_at = now() - interval '1 hour'",
        "run_at = 'infinity'",
        "locked_at = now() - interval '5 minutes', locked_by = 'somebody', attempts = 1",
        "run_at = now() + interval '1 hour', attempts = 3, last_error = 'Oops: no'",
        "attempts = max_attempts, last_error = 'Oops: never'",
    ]
    for task in ("mail", "report"):
        for number, change in enumerate(changes, 1):
            ids = [queue.add_job(task).id for _ in range(number)]
            db.execute(f"update {JOBS} set {change} where id = any (%s)", [ids])  # noqa: S608
    for _ in range(times - 1):
        columns = "task_id, run_at, attempts, max_attempts, last_error, locked_at, locked_by"
        db.execute(f"insert into {JOBS} ({columns}) select {columns} from {JOBS} where id <= 30")  # noqa: S608


def test_a_look_tells_of_every_state(queue: Queue, db: psycopg.Connection, monitor: Monitor) -> None:
    fill(db, queue)
    snapshot = monitor.look()
    assert by_task(snapshot) == {"mail": (1, 2, 3, 4, 5), "report": (1, 2, 3, 4, 5)}
    assert snapshot.total("failed") == 10
    assert (snapshot.standby, snapshot.read, snapshot.counts_age, snapshot.ready_counted) == (False, 1, 0, True)
    assert snapshot.oldest_ready == pytest.approx(60, abs=20)
    mail = snapshot.tasks[0]
    assert (mail.longest_run, mail.p50) == (pytest.approx(300, abs=20), pytest.approx(300, abs=20))
    assert [(worker.id, worker.host, worker.running) for worker in snapshot.workers] == [("somebody", None, 6)]
    assert [job.seconds for job in snapshot.running] == [pytest.approx(300, abs=20)] * 6
    assert {(one.at, one.error, one.final) for one in snapshot.errors} == {
        (None, "Oops: no", False),
        (None, "Oops: never", True),
    }
    assert snapshot.notes == ()
    assert not snapshot.history


def test_errors_are_told_as_they_come(queue: Queue, db: psycopg.Connection, monitor: Monitor) -> None:
    @queue.task
    def fail(payload: object) -> None:
        raise ValueError(payload)

    fill(db, queue, times=FAILING)  # more than are listed
    monitor.look()
    job = queue.add_job("fail", "first")
    assert all(one.at is None for one in monitor.look().errors)
    queue.run_once()
    (new,) = [one for one in monitor.look().errors if one.at is not None]
    assert (new.job_id, new.task, new.attempt, new.final) == (job.id, "fail", 1, False)
    assert new.error.startswith("ValueError: first")
    again = monitor.look().errors
    assert (again[0], again[1].at) == (new, None)


def test_what_came_in_and_went_out_is_told(queue: Queue, monitor: Monitor) -> None:
    queue.task("noop")(lambda payload: None)
    monitor.look()
    for _ in range(20):
        queue.add_job("noop")
    found = monitor.look().rates
    assert found.added is not None
    assert round(found.added * found.seconds) == 20
    queue.run_once()
    queue.close()  # a session tells its statistics at its end, if not before

    def removed() -> bool:
        found = monitor.look().rates
        return found.removed is not None and round(found.removed * found.seconds) == 20

    eventually(removed, every=0.05)


def test_pools_are_told_with_what_they_run_and_the_history_with_how_long_that_took(
    queue: Queue, monitor: Monitor, pools: Callable[..., WorkerPool]
) -> None:
    gate, begun = threading.Event(), threading.Event()

    @queue.task
    def wait(payload: object) -> None:
        begun.set()
        assert gate.wait(30)

    @queue.task(max_attempts=1)
    def fail(payload: object) -> None:
        raise ValueError("told by the history")

    pool = pools(3, history=timedelta(days=1))
    queue.add_job("wait")
    assert begun.wait(30)
    snapshot = monitor.look()
    (worker,) = snapshot.workers
    assert (worker.id, worker.threads, worker.running) == (pool.id, 3, 1)
    assert worker.host
    assert worker.beat is not None
    assert worker.beat < 30
    assert [(job.task, job.worker) for job in snapshot.running] == [("wait", pool.id)]
    job = queue.add_job("fail")
    gate.set()
    eventually(lambda: len(queue.history()) == 2)
    queue.complete_jobs([job.id])
    snapshot = monitor.look()
    assert snapshot.history
    figures = {task.task: task for task in snapshot.tasks}
    assert figures["wait"].runs == pytest.approx(1 / 60)
    assert figures["wait"].p50 is not None
    assert [(one.job_id, one.final, one.at is not None) for one in snapshot.errors] == [(job.id, True, True)]


@pytest.mark.usefixtures("in_pieces")
def test_a_large_table_is_read_in_pieces(queue: Queue, db: psycopg.Connection) -> None:
    fill(db, queue, times=30)
    (pages,) = db.execute("select pg_relation_size(%s::regclass) / 8192", [JOBS]).fetchone() or (0,)
    assert pages > 5
    monitor = Monitor(queue.database, pages=1)
    rations = monitor._budget = Rations()  # type: ignore[assignment]
    rations.pieces = 3
    first = monitor.look()
    assert first.read == pytest.approx(3 / pages)
    assert first.ready_counted
    assert first.total("ready") == 60, "along the index"
    assert first.oldest_ready == pytest.approx(60, abs=20)
    assert first.total("failed") == pytest.approx(300, rel=0.9)
    rations.pieces = 1_000
    whole = monitor.look()
    assert (whole.read, whole.counts_age) == (1, 0)
    assert by_task(whole) == {task: tuple(30 * count for count in (1, 2, 3, 4, 5)) for task in ("mail", "report")}
    rations.pieces = 0
    queue.add_job("mail")
    stale = monitor.look()
    assert stale.counts_age > 0
    assert (stale.total("ready"), stale.total("failed")) == (61, 300)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("lanes", [2, 3, 4])
def test_ready_jobs_of_more_priorities_than_are_looked_at_are_not_taken_for_all(
    queue: Queue, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    monkeypatch.setattr("graphile_worker_py.monitor.LANES", lanes)
    db.execute(f"insert into {JOBS} (task_id, priority) select 1, n % 3 from generate_series(1, 600) as n")  # noqa: S608
    monitor = Monitor(queue.database, pages=1)
    monitor._budget = rations = Rations()  # type: ignore[assignment]
    rations.pieces = 1_000
    assert monitor.look().total("ready") == 600
    rations.pieces = 0
    again = monitor.look()
    assert (again.total("ready"), again.ready_counted) == (600, lanes == 4)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("first_come", [20, 50_000])
def test_statements_follow_indexes_and_the_numbers_of_pages(
    queue: Queue, db: psycopg.Connection, first_come: int
) -> None:
    fill(db, queue)
    load = f"insert into {JOBS} (task_id, priority) select 1, n %% 3 from generate_series(1, %s) as n"  # noqa: S608
    db.execute(load, [first_come])
    plans = {
        "look_tally": {"first": "(0,0)", "beyond": "(7,0)"},
        "look_rows": {"first": "(0,0)", "beyond": "(7,0)", "running": 5, "failing": 5},
        "look_front": {"cap": 100, "lanes": 100},
    }
    for name, values in plans.items():
        plan = explained(queue, db, name, values)
        assert "Seq Scan on _private_jobs" not in plan, plan
        assert ("Tid Range Scan" in plan) == (name != "look_front"), plan
        assert "JIT" not in plan


def explained(queue: Queue, db: psycopg.Connection, name: str, values: dict[str, Any]) -> str:
    """Return the generic plan of a statement, by the settings that the monitor's run by."""
    from graphile_worker_py._database import _BY_INDEX
    from graphile_worker_py._statements import statement

    text, names = statement(name, queue.schema)
    with db.transaction(), psycopg.RawCursor(db) as cursor:
        cursor.execute(_BY_INDEX)
        cursor.execute(b"explain (costs off) " + text, [values[name] for name in names])
        return "\n".join(line for (line,) in cursor.fetchall())


# What is missing, or not for us.


def test_without_our_own_tables(queue: Queue, db: psycopg.Connection, monitor: Monitor) -> None:
    """As in a schema that Node's worker installed."""
    tables = db.execute("select tablename from pg_tables where tablename like '\\_private\\_py%'").fetchall()
    for (table,) in tables:
        db.execute(sql.SQL("drop table graphile_worker.{}").format(sql.Identifier(table)))
    fill(db, queue)
    for _ in range(2):
        snapshot = monitor.look()
        assert by_task(snapshot)["mail"] == (1, 2, 3, 4, 5)
        assert snapshot.notes == ("no worker pools here: run migrate", "no history here: run migrate")
        assert [worker.id for worker in snapshot.workers] == ["somebody"]


@pytest.fixture
def as_role(db: psycopg.Connection, migrated_url: str) -> Iterator[Callable[..., Queue]]:
    """Return a function that makes a queue of a role which may do only this."""
    queues: list[Queue] = []
    name = f"viewer_{db.info.backend_pid}"
    role = sql.Identifier(name)

    def make(*grants: str) -> Queue:
        db.execute(sql.SQL("create role {} login password 'viewer'").format(role))
        for grant in grants:
            db.execute(sql.SQL(grant + " to {}").format(role))
        queues.append(Queue(make_conninfo(migrated_url, user=name, password="viewer")))  # noqa: S106
        return queues[-1]

    yield make
    for one in queues:
        one.close()
    db.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


USAGE = "grant usage on schema graphile_worker"
VIEW = "grant select on graphile_worker.jobs"
ALL = "grant select on all tables in schema graphile_worker"


@pytest.mark.parametrize("grants", [(USAGE, VIEW), (USAGE, ALL)], ids=["the view alone", "all, behind row security"])
def test_a_role_that_may_only_read(
    queue: Queue, db: psycopg.Connection, as_role: Callable[..., Queue], grants: tuple[str, ...]
) -> None:
    fill(db, queue)
    monitor = Monitor(as_role(*grants).database, grant=10)
    monitor.look()
    queue.add_job("mail")
    db.execute(f"update {JOBS} set last_error = 'new', attempts = 1, updated_at = now() where id = 1")  # noqa: S608
    snapshot = monitor.look()
    assert by_task(snapshot) == {"mail": (2, 2, 3, 4, 5), "report": (1, 2, 3, 4, 5)}
    assert snapshot.oldest_ready == pytest.approx(60, abs=20)
    assert [worker.running for worker in snapshot.workers] == [6]
    assert [one.error for one in snapshot.errors if one.at] == ["new"]
    assert snapshot.rates.added is None
    told = "no worker pools: this role may not read that"
    assert (told in snapshot.notes) == (ALL not in grants)


@pytest.mark.usefixtures("in_pieces")
def test_a_viewer_sees_all_there_is(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    fill(db, queue, times=30)
    with staged(migrated_url) as stage:
        stage.set_up()
        monitor = Monitor(stage.queue("viewer").database, pages=1)
        monitor._budget = rations = Rations()  # type: ignore[assignment]
        rations.pieces = 3
        part = monitor.look()
        rations.pieces = 1_000
        whole = monitor.look()
    assert 0 < part.read < 1, "in pieces, by the numbers of pages"
    assert (part.ready_counted, part.total("ready")) == (True, 60)
    assert by_task(whole) == {task: tuple(30 * count for count in (1, 2, 3, 4, 5)) for task in ("mail", "report")}
    assert whole.rates.added == 0
    assert whole.notes == ()


def test_a_role_that_may_not(as_role: Callable[..., Queue]) -> None:
    with pytest.raises(NotSupported, match="connect as the role that installed it"):
        Monitor(as_role(USAGE).database).look()


def test_a_schema_that_is_missing(database_url: str) -> None:
    with Queue(database_url) as queue, pytest.raises(SchemaMissing, match="migrate"):
        Monitor(queue.database).look()


def test_a_table_that_is_locked_is_not_waited_for(queue: Queue, db: psycopg.Connection, monitor: Monitor) -> None:
    monitor.look()
    with db.transaction():
        db.execute(f"lock table {JOBS}")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            monitor.look()
    assert monitor.look().notes == ()


def test_waiting_for_a_lock_is_not_paid_for(queue: Queue, db: psycopg.Connection, monitor: Monitor) -> None:
    monitor.look()
    with db.transaction():
        db.execute(f"lock table {JOBS}")
        for _ in range(3):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                monitor.look()
    assert monitor.look().counts_age == 0


def test_what_takes_too_long_is_given_up(
    queue: Queue, db: psycopg.Connection, as_role: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker_py.monitor.PATIENCE", 0.2)
    fill(db, queue)
    monitor = Monitor(as_role(USAGE, VIEW).database, grant=10)
    before = monitor.look()
    (view,) = db.execute("select pg_get_viewdef('graphile_worker.jobs'::regclass)").fetchone() or ("",)
    slow = f"select v.* from (select pg_sleep(20)) as s cross join ({view.rstrip(';')}) as v"  # noqa: S608
    db.execute(f"create or replace view graphile_worker.jobs as {slow}".encode())
    snapshot = monitor.look()
    assert "counting stopped: no answer within 0.2 s" in snapshot.notes
    assert by_task(snapshot) == by_task(before)
    assert snapshot.cost > 0.1


def test_nothing_can_be_written(queue: Queue) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        queue.database.begin_by_index("remove_job", {"job_key": "x"}, after=("look_limits", {"milliseconds": "1000"}))()
