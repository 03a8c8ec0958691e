"""Installers side by side: ours by the dozen, Node's in the middle of its work; and roles that may do little.

Node's installer is played by a connection that does what it does: a row of the ledger and what belongs to it, one
transaction after another. The two programs themselves are put side by side in tests/interop.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from plain_sql import Connection, connect, eventually
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from graphile_worker_py import migrate
from graphile_worker_py._database import Database, run_script
from graphile_worker_py.errors import MigrationError, NotSupported

ALL = list(range(1, 21))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def db(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def node(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def start() -> Iterator[Callable[..., Future[Any]]]:
    """Give a function that starts another in a thread; the threads end with the test."""
    with ThreadPoolExecutor(20) as executor:
        yield executor.submit


def migrator(db: Connection) -> dict[str, Any] | None:
    """Return what the server knows of the connection that migrates."""
    query = """
        select pid, wait_event_type, cardinality(pg_blocking_pids(pid)) > 0 as blocked from pg_stat_activity
        where datname = current_database() and application_name = 'graphile-worker-py'
    """
    return db.execute(query).fetchone()


def is_blocked(db: Connection) -> bool:
    found = migrator(db)
    return bool(found and found["blocked"])


def step(node: Connection, *numbers: int) -> None:
    """Bring the ledger to 18 or further as Node's installer does, tables and all, in one transaction."""
    with node.transaction():
        if 18 in numbers:
            node.execute("delete from graphile_worker.migrations")
        for number in numbers:
            run_script(node, migrate._texts()[number], "graphile_worker")


# Many of ours.


def test_twenty_threads_at_once(database_url: str, db: Connection, start: Callable[..., Future[Any]]) -> None:
    ready = threading.Barrier(20)

    def work() -> list[int]:
        with closing(Database(database_url)) as database:
            ready.wait(30)
            return migrate.migrate(database)

    futures = [start(work) for _ in range(20)]
    assert sorted(future.result(60) for future in futures) == [[]] * 19 + [ALL]
    assert db.execute("select count(*) as rows from graphile_worker.migrations").fetchone() == {"rows": 20}


PROGRAM = """
import sys
from graphile_worker_py._database import Database
from graphile_worker_py.migrate import migrate
print("ready", flush=True)
sys.stdin.readline()
print(len(migrate(Database(sys.argv[1]))), flush=True)
"""


def test_twenty_processes_at_once(database_url: str, db: Connection) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, database_url]
    pipe = subprocess.PIPE
    programs = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(20)]
    try:
        assert [program.stdout.readline() for program in programs] == ["ready\n"] * 20
        for program in programs:
            program.stdin.write("go\n")
            program.stdin.flush()
        said = [program.communicate(timeout=60) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    assert sorted(said) == [("0\n", "")] * 19 + [("20\n", "")]
    assert db.execute("select count(*) as rows from graphile_worker.migrations").fetchone() == {"rows": 20}


def test_two_schemas_do_not_wait_for_each_other(database_url: str, db: Connection) -> None:
    with closing(Database(database_url, schema="one")) as one, closing(Database(database_url, schema="two")) as two:
        with db.transaction():
            assert migrate._bring_up(one, db) == ALL
            assert migrate.migrate(two) == ALL
        assert migrate.migrate(one) == []


# Node's, in the middle of its work.


def test_node_is_at_its_first_row(
    database: Database, db: Connection, node: Connection, start: Callable[..., Future[Any]]
) -> None:
    """We meet it at row 1, lose, wait while its ledger grows, and do what it leaves to do."""
    run_script(node, migrate._texts()[0], "graphile_worker")
    node.execute("begin")
    node.execute("insert into graphile_worker.migrations (id, breaking) values (1, true)")
    future = start(migrate.migrate, database)
    eventually(lambda: is_blocked(db))
    node.execute("commit")
    for number in range(2, 6):
        node.execute("insert into graphile_worker.migrations (id) values (%s)", [number])
    step(node, 18)
    assert future.result(30) == [19, 20]


def test_a_ledger_that_grows_is_waited_for(
    database: Database,
    db: Connection,
    node: Connection,
    start: Callable[..., Future[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each new row is seen before the next is written; the last of them comes with all there is."""
    seen: list[int | None] = []
    read = migrate._read

    def spy(*arguments: Any) -> Any:
        ledger = read(*arguments)
        seen.append(ledger.newest)
        return ledger

    monkeypatch.setattr(migrate, "_read", spy)
    run_script(node, migrate._texts()[0], "graphile_worker")
    node.execute("insert into graphile_worker.migrations (id, breaking) values (1, true)")
    future = start(migrate.migrate, database)
    for number in range(2, 18):
        eventually(lambda number=number: number - 1 in seen)
        node.execute("insert into graphile_worker.migrations (id) values (%s)", [number])
    step(node, 18, 19, 20)
    assert future.result(30) == []
    assert set(seen) >= set(range(1, 17)) | {20}


@pytest.mark.parametrize(("end", "applied"), [("commit", [20]), ("rollback", [19, 20])])
def test_node_is_at_row_19(
    database: Database,
    db: Connection,
    node: Connection,
    start: Callable[..., Future[Any]],
    end: str,
    applied: list[int],
) -> None:
    run_script(node, migrate._texts()[0], "graphile_worker")
    step(node, 18)
    node.execute("begin")
    run_script(node, migrate._texts()[19], "graphile_worker")
    future = start(migrate.migrate, database)
    eventually(lambda: is_blocked(db))
    node.execute(end)
    assert future.result(30) == applied


def test_node_makes_the_schema_at_the_same_time(
    database: Database, db: Connection, node: Connection, start: Callable[..., Future[Any]]
) -> None:
    node.execute("begin")
    node.execute("create schema graphile_worker")
    future = start(migrate.migrate, database)
    eventually(lambda: is_blocked(db))
    node.execute("commit")
    assert future.result(30) == ALL


def test_node_meets_us_and_finds_its_row_written(
    database: Database, db: Connection, node: Connection, start: Callable[..., Future[Any]]
) -> None:
    """The other way round: we are in the middle, and its insert of row 1 waits for us and then fails as a duplicate."""
    run_script(db, migrate._texts()[0], "graphile_worker")
    db.execute("begin")
    run_script(db, migrate._texts()[18], "graphile_worker")
    row_1 = "insert into graphile_worker.migrations (id, breaking) values (1, true)"
    future = start(node.execute, row_1)
    with connect(str(database.source)) as observer:
        query = "select cardinality(pg_blocking_pids(%s)) > 0 as blocked"
        eventually(lambda: observer.execute(query, [node.info.backend_pid]).fetchone()["blocked"])
    db.execute("commit")
    with pytest.raises(pg.UniqueViolation):
        future.result(30)
    assert migrate.migrate(database) == [19, 20]


@pytest.mark.parametrize("error", [pg.DeadlockDetected, pg.InternalError_, pg.UniqueViolation, pg.DuplicateSchema])
def test_a_lost_race_is_tried_again_and_not_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    losses = [error("tuple concurrently updated")] * 2

    def lose(connection: psycopg.Connection, text: str, schema: str) -> None:
        if losses:
            raise losses.pop()
        run_script(connection, text, schema)

    monkeypatch.setattr(migrate, "run_script", lose)
    assert migrate.migrate(database) == ALL
    with connect(str(database.source)) as db:
        db.execute("drop schema graphile_worker cascade")
    monkeypatch.setattr(migrate, "TRIES", 2)
    losses += [error("tuple concurrently updated")] * 2
    with pytest.raises(MigrationError, match="2 tries") as caught:
        migrate.migrate(database)
    assert isinstance(caught.value.__cause__, error)


# Roles.


@pytest.fixture
def role(db: Connection) -> Iterator[str]:
    """Give a role that may do nothing but connect; it and what it owns are dropped in the end."""
    name = f"role_{db.info.dbname}"
    identifier = sql.Identifier(name)
    db.execute(sql.SQL("create role {}").format(identifier))
    yield name
    db.execute(sql.SQL("drop owned by {} cascade").format(identifier))
    db.execute(sql.SQL("drop role {}").format(identifier))


@pytest.fixture
def as_role(database_url: str, role: str) -> Iterator[Database]:
    with closing(Database(make_conninfo(database_url, options=f"-c role={role}"))) as database:
        yield database


def test_the_owner_of_a_ready_made_schema_needs_no_more(db: Connection, role: str, as_role: Database) -> None:
    db.execute(sql.SQL("create schema graphile_worker authorization {}").format(sql.Identifier(role)))
    assert migrate.migrate(as_role) == ALL
    assert migrate.check(as_role) == 20
    with as_role.connection() as connection:
        (owner,) = connection.execute("select tableowner from pg_tables where tablename = '_private_jobs'").fetchone()
        assert owner == role
        assert connection.execute("select id from graphile_worker.add_job('t')").fetchone() == (1,)


def test_the_owner_can_upgrade(db: Connection, role: str, as_role: Database) -> None:
    db.execute(sql.SQL("create schema graphile_worker authorization {}").format(sql.Identifier(role)))
    migrate.migrate(as_role)
    db.execute("delete from graphile_worker.migrations where id > 18")
    assert migrate.migrate(as_role) == [19, 20]


def test_a_role_that_may_not_create_the_schema(db: Connection, role: str, as_role: Database) -> None:
    with pytest.raises(NotSupported, match=f"role '{role}' .*have it created first") as caught:
        migrate.migrate(as_role)
    assert isinstance(caught.value.__cause__, pg.InsufficientPrivilege)


def test_a_role_that_may_not_change_the_schema_is_told_whose_it_is(
    database: Database, db: Connection, role: str, as_role: Database
) -> None:
    migrate.migrate(database)
    belongs = f"role '{role}' .*which belongs to '{db.info.user}': run queue.migrate"
    for function in (migrate.migrate, migrate.check):
        with pytest.raises(NotSupported, match=belongs) as caught:
            function(as_role)
        assert "permission denied for schema" in str(caught.value)
    identifier = sql.Identifier(role)
    db.execute(sql.SQL("grant usage on schema graphile_worker to {}").format(identifier))
    db.execute(sql.SQL("grant select, insert on graphile_worker.migrations to {}").format(identifier))
    assert migrate.migrate(as_role) == []
    assert migrate.check(as_role) == 20
    db.execute("delete from graphile_worker.migrations where id > 19")
    with pytest.raises(NotSupported, match=belongs):
        migrate.migrate(as_role)
