"""The database is away, silent, busy or to be read only: nothing is lost, no attempt charged, and work goes on after.

What a stop does meanwhile is in test_stopping_in_outages.py, how the listener notices in test_listening.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import psycopg
import pytest
from plain_sql import eventually
from psycopg.conninfo import make_conninfo
from psycopg_pool import PoolTimeout
from tcp_proxy import TcpProxy

from graphile_worker_py import JobContext, Queue, WorkerPool
from graphile_worker_py._outage import Outage, is_passing

NEVER = 3600.0  # a poll interval no test lives to see
OURS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


@pytest.fixture
def patient(proxied_url: str) -> Iterator[Queue]:
    """Return a queue behind the proxy that waits for 0.3 s for an answer."""
    with Queue(proxied_url, statement_timeout=0.3) as queue:
        yield queue


# Deadlines.


def test_a_statement_that_waits_for_a_lock_is_cancelled_and_leaves_nothing(
    patient: Queue, db: psycopg.Connection
) -> None:
    patient.add_job("before")
    with db.transaction():
        db.execute("lock table graphile_worker._private_jobs")
        with pytest.raises(psycopg.errors.QueryCanceled, match="no answer in time"):
            patient.add_job("task")
        assert db.execute(f"select count(*) {OURS} and wait_event_type = 'Lock'").fetchone() == (0,)
    assert patient.add_job("after").task_identifier == "after"
    assert [job.task_identifier for job in patient.jobs()] == ["before", "after"]


def test_a_server_that_falls_silent_is_given_up_with_all_connections_to_it(patient: Queue, proxy: TcpProxy) -> None:
    with patient.database.connection(), patient.database.connection():
        pass  # two that are idle, and as dead as the one that is used
    proxy.pause()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="does not answer"):
        patient.add_job("task")
    assert 0.3 < time.monotonic() - began < 5
    proxy.resume()
    assert patient.add_job("task").task_identifier == "task"
    assert proxy.connections == 4, "two at first, a request to cancel, and a new one"


def test_an_answer_that_takes_long_but_comes_is_waited_for(patient: Queue, proxy: TcpProxy) -> None:
    job = patient.add_job("task", "x" * 400_000)
    proxy.throttle(0.1)
    began = time.monotonic()
    assert patient.job(job.id) == job
    assert time.monotonic() - began > 0.4


def test_migrations_take_their_time(patient: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    with db.transaction():
        db.execute("lock table graphile_worker.migrations")
        thread = threading.Thread(target=patient.migrate)
        thread.start()
        with psycopg.connect(migrated_url, autocommit=True) as other:
            eventually(lambda: other.execute(f"select 1 {OURS} and now() - query_start > '0.6 s'").fetchall())
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()


def test_no_deadline_where_none_is_wanted(proxied_url: str, db: psycopg.Connection) -> None:
    with Queue(proxied_url, statement_timeout=None) as queue, queue.database.connection() as connection:
        assert connection.execute("select pg_sleep(0.3)").fetchone()


def test_a_connection_is_set_up_to_find_a_dead_peer_within_half_a_minute(migrated_url: str) -> None:
    with Queue(migrated_url) as queue, queue.database.connection() as connection:
        settings = connection.info.get_parameters()
    idle, interval, count = (int(settings[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert idle + interval * count <= 30
    assert 0 < int(settings["tcp_user_timeout"]) <= 30_000
    with Queue(f"{migrated_url} keepalives_idle=77") as queue, queue.database.connection() as connection:
        assert connection.info.get_parameters()["keepalives_idle"] == "77"


# Which errors mean that trying again may help.

STATES = ["57P01", "57P02", "57P03", "08006", "08003", "25006", "53300", "53100", "40001", "40P01", "55P03", "57014"]


@pytest.mark.parametrize("state", STATES)
def test_what_passes_is_tried_again(state: str, db: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"do $$ begin raise exception 'so it is' using errcode = '{state}'; end $$")
    assert is_passing(caught.value)


@pytest.mark.parametrize("statement", ["select 1/0", "selec", "select * from nothing", "select 'x'::int"])
def test_what_does_not_pass_is_not(statement: str, db: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(statement)
    assert not is_passing(caught.value)


def test_no_connection_and_none_free_pass_too() -> None:
    assert is_passing(PoolTimeout("none is free"))
    assert is_passing(psycopg.OperationalError("connection refused"))
    assert not is_passing(ValueError("ours"))


# Workers.


@pytest.fixture
def working(proxied_url: str) -> Iterator[Callable[..., Queue]]:
    """Return a function that starts a worker on a queue behind the proxy; its handler puts attempts into `ran`."""
    started: list[WorkerPool] = []

    def start(database: str = proxied_url, *, poll_interval: float = NEVER, **options: object) -> Queue:
        queue = Queue(database, **options)

        @queue.task
        def work(payload: list[int], ctx: JobContext) -> None:
            ran.append(ctx.job.attempts)

        ran: list[int] = []
        queue.ran = ran
        started.append(WorkerPool(queue, 2, poll_interval=poll_interval))
        started[-1].start()
        return queue

    yield start
    for pool in started:
        pool.stop(20)
        pool.queue.close()


def add(db: psycopg.Connection) -> None:
    db.execute("select graphile_worker.add_job('work')")


def listening(db: psycopg.Connection) -> bool:
    return bool(db.execute(f"select 1 {OURS} and query ilike '%listen%'").fetchall())


def of_ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith(("graphile_worker_py", "psycopg"))]


def test_an_outage_is_told_in_two_lines_and_work_goes_on_at_once(
    working: Callable[..., Queue], proxy: TcpProxy, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    queue = working()
    eventually(lambda: listening(db))
    proxy.refuse()
    proxy.reset()
    eventually(lambda: "the database is away" in caplog.text)
    add(db)
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 1.2)
    assert queue.ran == []
    proxy.accept()
    back = time.monotonic()
    eventually(lambda: queue.ran == [1])
    assert time.monotonic() - back < 5
    eventually(lambda: "the database is back after" in caplog.text)
    lines = [record for record in of_ours(caplog) if record.levelno >= logging.WARNING]
    away, *between, last = lines
    assert away.getMessage().startswith("the database is away (")
    assert last.getMessage().startswith("the database is back after ")
    assert float(last.getMessage().split()[-2]) >= 1.2
    assert all(second.created - first.created >= 0.9 for first, second in pairwise([away, *between]))
    assert len(between) <= 3


def test_a_server_that_restarts_under_load_charges_no_attempt(
    working: Callable[..., Queue], db: psycopg.Connection
) -> None:
    queue = working(poll_interval=0.05)
    for _ in range(20):
        db.execute("select count(graphile_worker.add_job('work')) from generate_series(1, 20)")
        db.execute(f"select pg_terminate_backend(pid) {OURS}")
        time.sleep(0.01)  # so that the next ones come while it reconnects, or works, or claims
    eventually(lambda: db.execute("select count(*) from graphile_worker._private_jobs").fetchone() == (0,))
    assert len(queue.ran) >= 400
    assert max(queue.ran) == 1


def test_a_standby_is_left_for_the_primary(
    working: Callable[..., Queue], db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """What a standby answers, so does a primary in this mode, to sessions begun in it."""
    queue = working(poll_interval=0.05)
    eventually(lambda: listening(db))
    db.execute(
        "do $$ begin execute format('alter database %I set default_transaction_read_only to on', "
        "current_database()); end $$"
    )
    db.execute(f"select pg_terminate_backend(pid) {OURS}")
    eventually(lambda: "read-only transaction" in caplog.text)
    db.execute("set default_transaction_read_only to off")
    add(db)
    db.execute(
        "do $$ begin execute format('alter database %I reset default_transaction_read_only', "
        "current_database()); end $$"
    )
    eventually(lambda: queue.ran == [1])
    eventually(lambda: "the database is back after" in caplog.text)


def test_a_locked_table_is_waited_for_and_charges_no_attempt(
    working: Callable[..., Queue], db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    queue = working(poll_interval=0.05, statement_timeout=0.2)
    eventually(lambda: listening(db))
    with db.transaction():
        add(db)
        db.execute("lock table graphile_worker._private_jobs")
        eventually(lambda: "no answer in time" in caplog.text)
    eventually(lambda: queue.ran == [1])
    assert "is away" not in caplog.text
    lines = [record for record in of_ours(caplog) if record.name.endswith("._outage")]
    assert lines
    assert all(second.created - first.created >= 0.9 for first, second in pairwise(lines))


@pytest.fixture
def second(proxy: TcpProxy) -> Iterator[TcpProxy]:
    """Return another way to the server of the proxy."""
    with TcpProxy(*proxy.target) as second:
        yield second


def test_the_second_host_is_taken_when_the_first_is_gone(
    second: TcpProxy, working: Callable[..., Queue], proxied_url: str, proxy: TcpProxy, db: psycopg.Connection
) -> None:
    hosts = {"host": "127.0.0.1,127.0.0.1", "port": f"{proxy.port},{second.port}"}
    queue = working(make_conninfo(proxied_url, **hosts, target_session_attrs="read-write"))
    eventually(lambda: listening(db))
    assert second.connections == 0
    proxy.refuse()
    proxy.reset()
    add(db)
    eventually(lambda: queue.ran == [1])
    eventually(lambda: not queue.jobs())
    assert second.connections > 0


def test_no_connection_is_used_for_longer_than_its_lifetime(migrated_url: str) -> None:
    def pid() -> int:
        with queue.database.connection() as connection:
            return connection.info.backend_pid

    with Queue(migrated_url) as queue:
        queue.database.max_lifetime = 0.2
        first = pid()
        assert pid() == first
        eventually(lambda: pid() != first, seconds=5)


# What is said about it.


def test_an_outage_is_told_by_whoever_finds_it_and_again_when_the_reason_changes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("graphile_worker_py._outage.time.monotonic", lambda: now)
    outage = Outage()
    for seconds in range(400):
        now = 1000.0 + seconds / 10
        for who in ("heart", "completer"):
            outage.note(who, psycopg.OperationalError("refused" if seconds < 50 else "starting up\nmore"), 0.1)
    outage.answered(opened_at=999.0)  # an old connection: says nothing
    assert outage.lasts
    outage.answered(opened_at=1039.0)
    outage.answered(opened_at=1039.0)
    assert [record.getMessage() for record in caplog.records] == [
        "the database is away (heart: refused); trying again until it is back",
        "the database has been away for 5 s (heart: starting up)",
        "the database has been away for 35 s (heart: starting up)",
        "the database is back after 39.9 s",
    ]
    assert not outage.lasts


def test_those_who_pause_are_woken_when_the_database_is_back_or_they_are_to_stop() -> None:
    outage, stopping = Outage(), threading.Event()
    for wake in (lambda: outage.answered(time.monotonic()), lambda: (stopping.set(), outage.stir())):
        outage.note("heart", psycopg.OperationalError("refused"), 0.1)
        thread = threading.Thread(target=outage.pause, args=(60, stopping))
        thread.start()
        wake()
        thread.join(0.01)
        while thread.is_alive():  # it may have begun to pause after the news
            wake()
            outage.note("heart", psycopg.OperationalError("refused"), 0.1)
            thread.join(0.01)
