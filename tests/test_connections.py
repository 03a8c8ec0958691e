"""Where a Queue's connections come from, when they open and close, and what happens when the server goes away.

What becomes of them in forked processes is in test_forks.py.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from plain_sql import eventually
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, NullConnectionPool, PoolTimeout

from graphile_worker_py import InvalidConninfo, JobSpec, JobTimeout, Queue, _database

OURS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


def connections(db: psycopg.Connection) -> int:
    (number,) = db.execute(f"select count(*) {OURS}").fetchone()
    return int(number)


# Opening and closing.


def test_a_queue_connects_nowhere_until_it_is_used() -> None:
    threads = threading.active_count()
    with Queue("host=/nowhere"), Queue(), Queue("postgresql://nobody@192.0.2.1/nothing"):
        assert threading.active_count() == threads


def test_a_closed_queue_has_no_connection_and_opens_again_on_use(
    queue: Queue, db: psycopg.Connection, pools: object
) -> None:
    for _ in range(3):
        queue.add_job("task")
        assert connections(db) > 0
        queue.close()
        queue.close()
        eventually(lambda: connections(db) == 0)


def test_leaving_the_block_closes_even_after_an_error(migrated_url: str, db: psycopg.Connection) -> None:
    with pytest.raises(ZeroDivisionError), Queue(migrated_url) as queue:
        queue.add_job("task", priority=queue.add_job("task").priority // 0)
    eventually(lambda: connections(db) == 0)


def test_twenty_threads_share_a_queue(migrated_url: str, db: psycopg.Connection) -> None:
    start = threading.Barrier(20)

    def add(number: int) -> list[int]:
        start.wait()
        return [queue.add_job("task", [number, index]).id for index in range(20)]

    with Queue(migrated_url, max_size=4) as queue, ThreadPoolExecutor(20) as threads:
        ids = [id for ids in threads.map(add, range(20)) for id in ids]
        assert connections(db) <= 4
        assert sorted(ids) == sorted(info.id for info in queue.jobs(limit=1000))
        assert len(set(ids)) == 400


def test_threads_that_come_too_many_are_told(migrated_url: str, db: psycopg.Connection) -> None:
    with Queue(migrated_url, max_size=1, connect_timeout=0.3) as queue, ThreadPoolExecutor(1) as thread:
        queue.add_job("task")
        with db.transaction():
            db.execute("lock table graphile_worker._private_jobs")
            waiting = thread.submit(queue.add_job, "waits")
            eventually(lambda: db.execute(f"select {OURS} and wait_event_type = 'Lock'").fetchall())
            with pytest.raises(PoolTimeout):
                queue.add_job("comes too late")
        assert waiting.result(timeout=30).task_identifier == "waits"
        assert queue.add_job("task").id == waiting.result().id + 1


@pytest.mark.parametrize("prepared", [True, False])
def test_prepared_statements_can_be_left_out(migrated_url: str, prepared: bool) -> None:
    with Queue(migrated_url, max_size=1, prepared_statements=prepared) as queue:
        for _ in range(10):
            queue.add_job("task")
        with queue.database.connection() as connection:
            (statements,) = connection.execute("select count(*) from pg_prepared_statements").fetchone()
    assert bool(statements) == prepared


def test_a_program_that_never_closes_its_queue_ends_without_a_word(migrated_url: str) -> None:
    program = "import sys; from graphile_worker_py import Queue; queue = Queue(sys.argv[1]); queue.add_job('task')"
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", program, migrated_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The server goes away.


def terminate_all(db: psycopg.Connection) -> None:
    def none_is_left() -> bool:
        db.execute(f"select pg_terminate_backend(pid) {OURS}")
        return connections(db) == 0  # a pool that was about to grow gets no rest

    eventually(none_is_left)


def test_idle_connections_that_the_server_closed_are_not_noticed(migrated_url: str, db: psycopg.Connection) -> None:
    with Queue(migrated_url) as queue:
        for _ in range(3):
            with ExitStack() as lent:
                for _ in range(4):
                    lent.enter_context(queue.database.connection())
            queue.add_job("task")
            assert connections(db) == 4
            terminate_all(db)
        queue.add_jobs([JobSpec("task")])
        assert len(queue.jobs()) == 4


def test_a_connection_lost_in_the_middle_is_told_and_the_next_add_works(queue: Queue, db: psycopg.Connection) -> None:
    def specs() -> Iterator[JobSpec]:
        yield from [JobSpec("task")] * 2500
        terminate_all(db)

    with pytest.raises(psycopg.OperationalError):
        queue.add_jobs(specs())
    assert queue.add_job("task").task_identifier == "task"
    assert len(queue.jobs()) == 1


def test_a_server_that_is_gone_is_told_with_the_reason(migrated_url: str) -> None:
    with Queue(f"{migrated_url} host=/nowhere") as queue:
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="/nowhere") as caught:
            queue.add_job("task")
        assert not isinstance(caught.value, PoolTimeout)
        assert time.monotonic() - began < 3
        queue.point_at(migrated_url)
        assert queue.add_job("task").id == 1


def test_a_server_that_goes_away_later_is_told_with_the_reason(migrated_url: str, db: psycopg.Connection) -> None:
    with Queue(migrated_url, connect_timeout=0.5) as queue:
        queue.add_job("task")
        db.execute("update pg_database set datallowconn = false where datname = current_database()")
        terminate_all(db)
        with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
            queue.add_job("task")
        db.execute("update pg_database set datallowconn = true where datname = current_database()")
        assert queue.add_job("task").id == 2


def test_a_server_that_never_answers_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Queue(f"host=127.0.0.1 port={silent.getsockname()[1]}", connect_timeout=1) as queue,
        pytest.raises(psycopg.OperationalError, match="timeout"),
    ):
        queue.add_job("task")


def test_a_database_or_a_role_that_is_not_there_is_told_without_the_password(migrated_url: str) -> None:
    for wrong in ("dbname=nothing_of_that_name", "user=nobody_of_that_name"):
        queue = Queue(f"{migrated_url} password=sesame {wrong}")
        with pytest.raises(psycopg.OperationalError, match="of_that_name") as caught:
            queue.add_job("task")
        assert "sesame" not in str(caught.value)


# Where the server is.

WRONG = [
    "postgresql://user:sesame@[host/db",
    "postgresql+psycopg://user:sesame@host/db",
    "mysql://user:sesame@host/db",
    "host=localhost password=sesame nonsense=1",
    "password='sesame",
    "password=sesame\x00",
    "password=sesame\ud800",
    "nonsense sesame",
]


@pytest.mark.parametrize("conninfo", WRONG)
def test_a_conninfo_nobody_can_read_is_refused_without_its_password(
    conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidConninfo, match="libpq cannot read") as caught:
        Queue(conninfo)
    assert "sesame" not in str(caught.value)
    assert caught.value.__context__ is None
    assert ("without +driver" in str(caught.value)) == ("+" in conninfo)
    if "\x00" not in conninfo and "\ud800" not in conninfo:
        monkeypatch.setenv("DATABASE_URL", conninfo)
        with Queue() as queue, pytest.raises(InvalidConninfo):
            queue.add_job("task")


@pytest.mark.parametrize(
    ("conninfo", "says"),
    [
        ("postgresql://user:ses@me@host/db", ": there is an @ in its host; in a URL write @, : and /"),
        ("postgresql://user:ses/me@host/db", ": its port is not a number; in a URL write @, : and /"),
        ("postgresql://user@::1/db", ": its port is not a number; .* IPv6 address in brackets"),
        ("host=a,b@c port=1", ": there is an @ in its host$"),
        ("host=localhost port=1,ses", ": its port is not a number$"),
    ],
)
def test_a_host_or_port_that_is_none_is_refused_and_not_repeated(conninfo: str, says: str) -> None:
    with pytest.raises(InvalidConninfo, match=f"libpq cannot read this connection string or URL{says}") as caught:
        Queue(conninfo)
    assert not re.search("ses|me@|::1", str(caught.value))


@pytest.mark.parametrize("host", ["@abstract", "/tmp/a@b", "a,@b,/c@d", "::1", "[::1]"])  # noqa: S108 - a name only
def test_hosts_that_may_be_such_are_not_refused(host: str) -> None:
    Queue(f"host={host} port=,5432")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("port=99999", 'invalid port number: "99999"'),
        ("sslmode=maybe", 'invalid sslmode value: "maybe"'),
        ("keepalives_idle=x", 'invalid integer value "x" for connection option "keepalives_idle"'),
        ("connect_timeout=x", "bad value for connect_timeout: 'x'"),
    ],
)
def test_a_setting_libpq_refuses_is_named(migrated_url: str, setting: str, says: str) -> None:
    with pytest.raises(InvalidConninfo, match=f"^libpq refuses a connection setting: {says}"):
        Queue(f"{migrated_url} {setting} hostaddr=127.0.0.1").add_job("task")


@pytest.mark.parametrize("wrong", [5, b"dbname=x", ["dbname=x"], psycopg, ConnectionPool])
def test_what_is_no_conninfo_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidConninfo, match="expected a conninfo str"):
        Queue(wrong)


def test_the_environment_is_read_on_first_use(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Queue() as queue:
        monkeypatch.setenv("DATABASE_URL", migrated_url)
        assert queue.add_job("task").id == 1


def as_url(conninfo: str) -> str:
    server = conninfo_to_dict(conninfo)
    options = "&".join(f"{name}={quote(str(value))}" for name, value in server.items() if name != "dbname")
    return f"postgresql:///{server['dbname']}?{options}"


def test_a_url_says_the_same_as_a_conninfo(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Queue(as_url(migrated_url)) as queue:
        assert queue.add_job("task").id == 1
    monkeypatch.setenv("DATABASE_URL", as_url(migrated_url))
    with Queue() as queue:
        assert queue.add_job("task").id == 2


def in_the_environment(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE", "password": "PGPASSWORD"}
    for name, value in conninfo_to_dict(conninfo).items():
        monkeypatch.setenv(variables[name], str(value))


@pytest.mark.parametrize("database", [None, ""])
def test_libpqs_variables_count_where_nothing_is_said(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, database: str | None
) -> None:
    in_the_environment(migrated_url, monkeypatch)
    monkeypatch.setenv("PGCLIENTENCODING", "latin1")
    monkeypatch.setenv("PGAPPNAME", "shop")
    monkeypatch.setenv("PGDATESTYLE", "German")
    with Queue(database) as queue, queue.database.connection() as connection:
        assert queue.add_job("task", "雪").payload == "雪"
        assert connection.execute("select current_setting('application_name')").fetchone() == ("shop",)


def test_database_url_goes_before_libpqs_variables_and_an_argument_before_both(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    with Queue() as queue:
        assert queue.add_job("task").id == 1
    monkeypatch.setenv("DATABASE_URL", "host=/elsewhere")
    with Queue(migrated_url) as queue:
        assert queue.add_job("task").id == 2


def test_a_connection_says_whose_it_is(queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("task")
    assert db.execute(f"select distinct application_name {OURS}").fetchall() == [("graphile-worker-py",)]


# A pool of the caller's.

PoolOf = Callable[..., ConnectionPool[Any]]


@pytest.mark.parametrize("pool_of", [ConnectionPool, NullConnectionPool])
@pytest.mark.parametrize("options", [{}, {"autocommit": True}, {"row_factory": dict_row, "prepare_threshold": None}])
def test_a_given_pool_is_used_as_it_is_and_never_closed(
    migrated_url: str, db: psycopg.Connection, pool_of: PoolOf, options: dict[str, Any]
) -> None:
    size = {"min_size": 0, "max_size": 2} if pool_of is NullConnectionPool else {"min_size": 1, "max_size": 2}
    with pool_of(migrated_url, kwargs=options, open=False, **size) as pool:
        with Queue(pool) as queue:
            jobs = [queue.add_job("task", [1], job_key="k"), *queue.add_jobs([JobSpec("task", [2], job_key="k")])]
            assert db.execute("select count(*) from graphile_worker.jobs").fetchone() == (1,)
            assert queue.job(jobs[0].id) == jobs[1]
            assert queue.cleanup() == {"GC_JOB_QUEUES": 0}
            assert queue.migrate() == []
            with pytest.raises(ZeroDivisionError):
                queue.add_jobs(JobSpec("task", 1 // (1 - index)) for index in range(2))
        assert not pool.closed
        assert queue.add_job("after the queue was closed").attempts == 0


def test_a_given_pool_that_is_taken_whole_is_told(migrated_url: str) -> None:
    with ConnectionPool(migrated_url, min_size=1, max_size=1, open=True) as pool:
        queue = Queue(pool, connect_timeout=0.2)
        with pool.connection(), pytest.raises(PoolTimeout):
            queue.add_job("task")
        assert queue.add_job("task").id == 1


def test_a_given_pool_without_a_server_gives_the_reason(migrated_url: str) -> None:
    with ConnectionPool(f"{migrated_url} host=/nowhere", min_size=1, open=True, reconnect_timeout=0.1) as pool:
        queue = Queue(pool, connect_timeout=0.2)
        with pytest.raises(psycopg.OperationalError, match="/nowhere"):
            queue.add_job("task")


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_as_a_connection_is_given_back_costs_no_place(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Whether it arrives just before that or just after: the one place there is is free again, and is one."""

    class Interrupted:
        blocks = 0

        def __enter__(self) -> None:
            self.blocks += 1
            if self.blocks == 2 and not late:
                raise JobTimeout

        def __exit__(self, *_: object) -> None:
            if self.blocks == 2 and late:
                raise JobTimeout

    with Queue(migrated_url, max_size=1, connect_timeout=0.2) as queue:
        with monkeypatch.context() as patched:
            patched.setattr(_database, "shielded", Interrupted())
            with pytest.raises(JobTimeout):
                queue.stats()
        with queue.database.connection(), pytest.raises(PoolTimeout):
            queue.stats()
        assert queue.stats() == []
