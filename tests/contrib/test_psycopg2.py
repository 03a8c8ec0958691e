"""connection= takes psycopg2's connections and cursors: same transaction, same jobs as over psycopg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS

from graphile_worker_py import (
    InvalidJobSpec,
    Job,
    JobContext,
    JobFailedForGood,
    JobSpec,
    NotSupported,
    Queue,
    SchemaMissing,
    WorkerPool,
)
from graphile_worker_py._psycopg2 import microseconds
from graphile_worker_py._running import Cancellation
from graphile_worker_py.testing import drain

YEAR_9000 = datetime(9000, 5, 6, 7, 8, 9, 123, tzinfo=timezone.utc)


@pytest.fixture
def own(migrated_url: str) -> Iterator[Any]:
    """Return the caller's connection, as psycopg2 makes it: a transaction begins by itself."""
    with closing(psycopg2.connect(migrated_url)) as connection:
        yield connection


def stored(queue: Queue) -> list[str]:
    return [info.task_identifier for info in queue.jobs()]


def by_add_job(queue: Queue, name: str, payload: Any = None, **options: Any) -> Job:
    return queue.add_job(name, payload, **options)


def by_add_jobs(queue: Queue, name: str, payload: Any = None, *, connection: object, **options: Any) -> Job:
    return queue.add_jobs([JobSpec(name, payload, **options)], connection=connection)[0]


Adding = Callable[..., Job]
either = pytest.mark.parametrize("add", [by_add_job, by_add_jobs])


@either
def test_a_job_comes_and_goes_with_the_transaction(queue: Queue, own: Any, add: Adding) -> None:
    for given in (own, own.cursor(), own.cursor("named"), own.cursor(cursor_factory=psycopg2.extras.RealDictCursor)):
        add(queue, "task", {"a": 1}, connection=given)
        assert own.get_transaction_status() == TRANSACTION_STATUS_INTRANS
        own.rollback()
    assert stored(queue) == []
    with own:  # psycopg2 commits at the end of this
        job = add(queue, "task", [{"ü": "back\\slash '%s' %(a)s"}], connection=own)
        assert stored(queue) == []
    assert queue.job(job.id) == job
    own.autocommit = True
    add(queue, "at once", connection=own)
    assert stored(queue) == ["task", "at once"]
    assert own.get_transaction_status() == TRANSACTION_STATUS_IDLE


def test_a_job_is_the_same_as_over_psycopg(queue: Queue, own: Any, db: psycopg.Connection) -> None:
    options: dict[str, Any] = {
        "queue_name": "q%s",
        "run_at": YEAR_9000,
        "priority": -7,
        "max_attempts": 3,
        "flags": ["a,b", 'c"d', "e\\f", "NULL"],
        "job_key": "it's %(key)s",
    }
    mine = queue.add_job("task", {"é": [1.5, None, True, "雪"]}, connection=own, **options)
    own.commit()
    assert mine == queue.job(mine.id)
    assert (mine.run_at, mine.flags) == (YEAR_9000, ("a,b", 'c"d', "e\\f", "NULL"))
    theirs = queue.add_job("task", {"é": [1.5, None, True, "雪"]}, connection=db, **{**options, "job_key": "other"})
    for name in ("task_identifier", "queue_name", "raw_payload", "raw_run_at", "flags", "priority", "max_attempts"):
        assert getattr(mine, name) == getattr(theirs, name)
    late = queue.add_job("task", run_at=timedelta(days=-300, seconds=-1.5), connection=own)
    assert late.run_at == late.created_at + timedelta(days=-300, seconds=-1.5)


def test_all_of_the_administration(queue: Queue, own: Any, db: psycopg.Connection) -> None:
    ids = [queue.add_job("task", job_key=f"k{index}", priority=1).id for index in range(6)]
    db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w' where key = 'k3'")
    before = [queue.job(id) for id in ids]
    assert queue.remove_job("k0", connection=own) == before[0]
    assert queue.remove_job("nothing", connection=own) is None
    assert queue.complete_jobs(ids[1:2], connection=own) == before[1:2]
    assert queue.complete_jobs([], connection=own) == []
    assert queue.permanently_fail_jobs(ids[2:3], "100 % 'no'", connection=own)[0].last_error == "100 % 'no'"
    queue.force_unlock_workers(["w", "x,y"], connection=own)
    assert queue.reschedule_jobs(ids[3:4], priority=0, run_at=YEAR_9000, connection=own)[0].run_at == YEAR_9000
    assert queue.cancel(ids[4], "enough", connection=own) is Cancellation.WAITING
    assert queue.set_timeout(ids[5], 1.5, connection=own)
    assert not queue.set_timeout(10**15, None, connection=own)
    assert [queue.job(id) for id in ids] == before
    own.rollback()
    assert [queue.job(id) for id in ids] == before


REFUSED: list[Callable[[Queue, Any], object]] = [
    lambda queue, own: queue.add_job("task", float("nan"), connection=own),
    lambda queue, own: queue.add_job("雪", connection=own),
    lambda queue, own: queue.add_jobs([JobSpec("task"), None], connection=own),
    lambda queue, own: queue.add_jobs((JobSpec("task", priority=n) for n in (0, 10**6)), connection=own),
    lambda queue, own: queue.complete_jobs(["1"], connection=own),
]


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_refusal_leaves_the_transaction_as_it_was(queue: Queue, own: Any, autocommit: bool) -> None:
    own.set_client_encoding("latin1")
    own.autocommit = autocommit
    for refused in REFUSED:
        queue.add_job("before", connection=own)
        with pytest.raises(InvalidJobSpec):
            refused(queue, own)
        queue.add_jobs([JobSpec("after")], connection=own)
    assert own.autocommit == autocommit
    own.commit()
    assert stored(queue) == ["before", "after"] * len(REFUSED)


@either
def test_what_the_program_registered_changes_nothing(queue: Queue, own: Any, add: Adding) -> None:
    as_dates = psycopg2.extensions.new_type((1184, 20, 25, 16, 1009), "ODD", lambda text, cursor: "odd")
    psycopg2.extensions.register_type(as_dates, own)
    known = dict(psycopg2.extensions.adapters)
    psycopg2.extensions.register_adapter(list, psycopg2.extras.Json)
    try:
        job = add(queue, "task", [1], flags=["a", "b"], job_key="k", connection=own)
        assert queue.reschedule_jobs([job.id], priority=5, connection=own)[0].flags == ("a", "b")
    finally:
        psycopg2.extensions.adapters.clear()
        psycopg2.extensions.adapters.update(known)
    own.commit()
    assert queue.job(job.id).flags == ("a", "b")


@either
@pytest.mark.parametrize(
    "setting",
    ["timezone to 'America/St_Johns'", "intervalstyle to sql_standard", "search_path to ''"],
)
def test_the_settings_of_a_session_change_nothing(queue: Queue, own: Any, add: Adding, setting: str) -> None:
    own.cursor().execute(f"set {setting}; set standard_conforming_strings to off")
    job = add(queue, "tásk", {"é": 'back\\slash "'}, run_at=timedelta(days=-60_000), connection=own)
    own.commit()
    assert queue.job(job.id) == job


def test_times_are_read_as_postgresql_counts_them(own: Any, db: psycopg.Connection) -> None:
    times = ["infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "2000-01-01 BC"]
    times += [
        "0001-01-01 00:00:00.5+00 BC",
        "0005-02-29 BC",
        "1883-11-18 12:00:00+00",
        "9999-12-31",
        "2024-02-29 1:2:3",
    ]
    cursor = own.cursor()
    for zone in ("UTC", "America/St_Johns", "Asia/Kathmandu"):
        cursor.execute(f"set timezone to '{zone}'")
        for time in times:
            cursor.execute("select %s::timestamptz::text", [time])
            text = cursor.fetchone()[0]
            with db.cursor(binary=True) as reader:
                reader.adapters.register_loader("timestamptz", psycopg.types.numeric.Int8BinaryLoader)
                reader.execute("select %s::timestamptz", [text])
                assert reader.fetchone() == (microseconds(text),), text


@either
def test_connections_that_cannot_be_used_are_refused(queue: Queue, own: Any, migrated_url: str, add: Adding) -> None:
    def refused(given: object, why: str) -> None:
        with pytest.raises(InvalidJobSpec, match=why):
            add(queue, "task", connection=given)

    refused(psycopg2, r"^connection: expected an open connection .*psycopg2.*; got <class 'module'>$")
    cursor = own.cursor()
    cursor.execute("set client_encoding to latin1")
    refused(own, r"^connection: psycopg2 does not know its client_encoding; set it by set_client_encoding\(\)$")
    own.set_client_encoding("SQL_ASCII")
    refused(own, r"^connection: its client_encoding is SQL_ASCII")
    own.set_client_encoding("utf8")
    cursor.execute("set datestyle to german")
    refused(cursor, r"^connection: psycopg2 reads no times in its DateStyle, German, DMY; set datestyle to iso$")
    own.close()
    for given in (own, cursor):
        refused(given, r"^connection: this one is closed; pass an open connection, or none$")
    with closing(psycopg2.connect(migrated_url, async_=True)) as asynchronous:
        psycopg2.extras.wait_select(asynchronous)
        refused(asynchronous, r"^connection: an asynchronous one cannot be used from synchronous code$")


@either
def test_errors_of_psycopg2_pass_and_known_ones_say_what_to_do(
    queue: Queue, own: Any, db: psycopg.Connection, add: Adding
) -> None:
    with pytest.raises(SchemaMissing, match=r"^schema 'no%s\"thing' is not installed here"):
        add(Queue("", schema='no%s"thing'), "task", connection=own)
    own.rollback()
    own.cursor().execute("create role gwpy_nobody; grant usage on schema graphile_worker to gwpy_nobody")
    own.cursor().execute("set local role gwpy_nobody")
    with pytest.raises(NotSupported, match=r"^this role may not do this in schema 'graphile_worker'"):
        add(queue, "task", connection=own)
    own.rollback()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        own.cursor().execute("select 1 / 0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        add(queue, "task", connection=own)
    own.rollback()
    own.cursor().execute("set lock_timeout to 1")
    db.execute("begin; lock graphile_worker._private_jobs")
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        add(queue, "task", connection=own)
    db.rollback()


def test_jobs_run_and_complete_on_it(queue: Queue, own: Any, pools: Callable[..., WorkerPool]) -> None:
    seen: list[object] = []

    @queue.task(keep_result=True)
    def effect(payload: dict[str, int], ctx: JobContext) -> None:
        own.cursor().execute("insert into effects values (%s)", [payload["n"]])
        ctx.result = payload["n"]
        ctx.complete(own)
        seen.append(own.get_transaction_status())
        if payload["n"] < 3:
            own.commit()

    own.cursor().execute("create table effects (n int)")
    own.commit()
    pools(concurrency=1)
    assert queue.wait_for(queue.add_job("effect", {"n": 1}), timeout=20) == 1
    left = queue.add_job("effect", {"n": 3}, max_attempts=1)
    with pytest.raises(JobFailedForGood, match="returned before it committed the transaction"):
        queue.wait_for(left, timeout=20)
    assert seen == [TRANSACTION_STATUS_INTRANS] * 2
    assert own.get_transaction_status() == TRANSACTION_STATUS_IDLE
    cursor = own.cursor()
    cursor.execute("select n from effects")
    assert cursor.fetchall() == [(1,)]


@pytest.mark.parametrize("autocommit", [False, True])
def test_drain_runs_jobs_in_its_transaction(queue: Queue, own: Any, autocommit: bool) -> None:
    @queue.task
    def writes(payload: object, ctx: JobContext) -> None:
        own.cursor().execute("insert into effects values (1)")
        with ctx.transaction() as connection:
            connection.execute("insert into effects values (%s)", [2])
        queue.add_jobs([JobSpec("breaks"), JobSpec("raises")])

    @queue.task
    def breaks(payload: object) -> None:
        own.cursor().execute("insert into effects values (3)")
        own.cursor().execute("select 1 / 0")

    @queue.task
    def raises(payload: object) -> None:
        own.cursor().execute("insert into effects values (4)")
        raise ValueError("after writing")

    own.cursor().execute("create table effects (n int)")
    own.commit()
    own.autocommit = autocommit
    own.cursor().execute("begin" if autocommit else "select 1")
    queue.add_job("writes", connection=own)
    done = drain(queue, connection=own, raise_errors=False)
    assert [job.task_identifier for job in done.completed] == ["writes"]
    assert [type(event.exception) for event in done.failed] == [psycopg2.errors.DivisionByZero, ValueError]
    cursor = own.cursor()
    cursor.execute("select n from effects order by n")
    assert cursor.fetchall() == [(1,), (2,), (4,)]
    cursor.execute("rollback")
    assert stored(queue) == []


def test_nothing_is_imported_for_it() -> None:
    names = "{'psycopg2', 'django', 'sqlalchemy', 'flask'}"
    program = f"import sys, graphile_worker_py.worker.pool; print({names} & {{name for name in sys.modules}})"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    )
