"""Every state a ledger may be in, every name a schema may have, and who is told.

Several installers at once, and roles that may do little, are in test_migrate_together.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from plain_sql import Connection, Ear, connect
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

from graphile_worker_py import migrate
from graphile_worker_py._conninfo import BODY_TAG
from graphile_worker_py._database import Database, run_script
from graphile_worker_py.errors import (
    InvalidSchemaName,
    MigrationError,
    NotSupported,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
)

ALL = list(range(1, 21))
BREAKING = {1, 3, 11, 13, 14, 16, 19}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def db(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "PATIENCE", 0.1)


def install(db: Connection, newest: int) -> None:
    """Install the schema as of a migration, 18 or later."""
    with db.transaction():
        for number, text in migrate._texts().items():
            if number <= newest:
                run_script(db, text, "graphile_worker")


def ledger(db: Connection) -> list[tuple[int, bool]]:
    rows = db.execute("select id, breaking from graphile_worker.migrations order by id").fetchall()
    return [(row["id"], row["breaking"]) for row in rows]


def complete() -> list[tuple[int, bool]]:
    return [(number, number in BREAKING) for number in ALL]


def works(db: Connection, schema: str = "graphile_worker") -> bool:
    """Return whether the functions of a schema do what they are for."""
    name = sql.Identifier(schema)
    add = "select (a).id from {0}.add_job('t', '[1]', 'q', job_key => 'k') as a"
    add_again = "select id from {0}.add_jobs(array[row('t', '[2]', 'q', null, null, 'k', null, null)::{0}.job_spec])"
    view = "select task_identifier, queue_name, revision from {0}.jobs"
    rows = [db.execute(sql.SQL(text).format(name)).fetchall() for text in (add, add_again, view)]
    return rows == [[{"id": 1}], [{"id": 1}], [{"task_identifier": "t", "queue_name": "q", "revision": 1}]]


# What a ledger says, and what comes of it.


def test_an_empty_database_gets_everything(database: Database, db: Connection) -> None:
    assert migrate.migrate(database) == ALL
    assert ledger(db) == complete()
    assert works(db)
    assert migrate.check(database) == 20


def test_the_second_time_nothing_is_done(database: Database, db: Connection) -> None:
    migrate.migrate(database)
    before = db.execute("select xmin::text, ts from graphile_worker.migrations order by id").fetchall()
    assert migrate.migrate(database) == []
    assert db.execute("select xmin::text, ts from graphile_worker.migrations order by id").fetchall() == before


def test_a_schema_and_an_empty_ledger_may_be_there_already(database: Database, db: Connection) -> None:
    db.execute("create schema graphile_worker")
    db.execute("create table graphile_worker.something_else (id integer)")
    db.execute("create table graphile_worker.migrations (id int primary key, ts timestamptz not null default now())")
    assert migrate.migrate(database) == ALL
    assert ledger(db) == complete()
    assert works(db)


@pytest.mark.parametrize(("newest", "applied"), [(18, [19, 20]), (19, [20]), (20, [])])
@pytest.mark.parametrize("only_the_newest", [True, False])
@pytest.mark.parametrize("with_breaking", [True, False])
def test_an_older_ledger_is_brought_up_to_date(
    database: Database, db: Connection, newest: int, applied: list[int], only_the_newest: bool, with_breaking: bool
) -> None:
    install(db, newest)
    if only_the_newest:
        db.execute("delete from graphile_worker.migrations where id <> %s", [newest])
    if not with_breaking:
        db.execute("alter table graphile_worker.migrations drop column breaking")
    assert migrate.migrate(database) == applied
    assert ledger(db) == (complete()[newest - 1 :] if only_the_newest else complete())
    assert works(db)


def test_flags_that_are_there_are_kept(database: Database, db: Connection) -> None:
    """Somebody who runs Node 0.16 beside us has marked 19 as not breaking."""
    install(db, 19)
    db.execute("update graphile_worker.migrations set breaking = false where id = 19")
    assert migrate.migrate(database) == [20]
    assert (19, False) in ledger(db)


@pytest.mark.parametrize("newest", [0, 1, 17])
@pytest.mark.usefixtures("impatient")
def test_a_ledger_from_before_18_is_for_node_to_upgrade(database: Database, db: Connection, newest: int) -> None:
    install(db, 18)
    db.execute("delete from graphile_worker.migrations where id > %s", [newest])
    db.execute("insert into graphile_worker.migrations (id) values (%s) on conflict do nothing", [newest])
    with pytest.raises(SchemaTooOld, match=rf"migration {newest}, .* graphile-worker \(Node\) 0\.17 or later"):
        migrate.migrate(database)
    with pytest.raises(SchemaTooOld, match=rf"migration {newest}, this version needs 19 or later"):
        migrate.check(database)


def test_an_unknown_breaking_migration_is_too_new(database: Database, db: Connection) -> None:
    install(db, 20)
    db.execute("insert into graphile_worker.migrations (id, breaking) values (1000000, true), (1000001, false)")
    for function in (migrate.migrate, migrate.check):
        with pytest.raises(SchemaTooNew, match=r"breaking migration 1000000, .*upgrade graphile-worker-py"):
            function(database)


@pytest.mark.parametrize("installed", [19, 20])
def test_an_unknown_migration_that_breaks_nothing_is_a_warning(
    database: Database, db: Connection, caplog: pytest.LogCaptureFixture, installed: int
) -> None:
    install(db, installed)
    db.execute("insert into graphile_worker.migrations (id) values (21)")
    before = ledger(db)
    assert migrate.migrate(database) == []
    assert migrate.check(database) == 21
    assert [(record.name, record.levelname) for record in caplog.records] == [(migrate.__name__, "WARNING")] * 2
    assert "migration 21" in caplog.text
    assert ledger(db) == before


@pytest.mark.parametrize("empty_ledger", [True, False])
def test_objects_without_a_ledger_are_named(database: Database, db: Connection, empty_ledger: bool) -> None:
    install(db, 20)
    db.execute("truncate graphile_worker.migrations")
    if not empty_ledger:
        db.execute("drop table graphile_worker.migrations")
    said = "its table migrations is empty" if empty_ledger else "has no ledger of migrations"
    with pytest.raises(MigrationError, match=f"(?s)(_private_job_queues.*{said}|{said}.*_private_job_queues)"):
        migrate.migrate(database)
    with pytest.raises(SchemaMissing, match=r"queue\.migrate\(\) or graphile-worker-py migrate"):
        migrate.check(database)


def test_a_ledger_without_its_tables_is_no_installation(database: Database, db: Connection) -> None:
    install(db, 20)
    db.execute("drop table graphile_worker._private_jobs cascade")
    for function in (migrate.migrate, migrate.check):
        with pytest.raises(MigrationError, match="has no table _private_jobs"):
            function(database)


def test_another_programs_table_of_migrations_is_left_alone(database_url: str, db: Connection) -> None:
    db.execute("create table public.migrations (id serial primary key, migration text, batch integer)")
    with closing(Database(database_url, schema="public")) as database:
        for function in (migrate.migrate, migrate.check):
            with pytest.raises(MigrationError, match="not Graphile Worker's"):
                function(database)


def test_a_name_that_is_in_the_way_is_said_in_the_end(
    database: Database, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TRIES", 2)
    db.execute("create schema graphile_worker")
    db.execute("create function graphile_worker.complete_jobs(bigint[]) returns void language sql as ''")
    with pytest.raises(MigrationError, match="complete_jobs") as caught:
        migrate.migrate(database)
    assert isinstance(caught.value.__cause__, pg.DuplicateFunction)
    assert db.execute("select to_regclass('graphile_worker.migrations') as ledger").fetchone() == {"ledger": None}


@pytest.mark.parametrize("create", ["select", "create schema graphile_worker"])
def test_check_says_how_to_install(database: Database, db: Connection, create: str) -> None:
    db.execute(create)
    with pytest.raises(SchemaMissing, match=r"run queue\.migrate\(\) or graphile-worker-py migrate"):
        migrate.check(database)


def test_check_is_content_with_19_and_wants_18_upgraded(database: Database, db: Connection) -> None:
    install(db, 19)
    db.execute("alter table graphile_worker.migrations drop column breaking")
    assert migrate.check(database) == 19
    db.execute("delete from graphile_worker.migrations where id = 19")
    with pytest.raises(SchemaTooOld, match=r"migration 18, this version needs 19 or later: run queue\.migrate\(\)"):
        migrate.check(database)


def test_check_leaves_the_callers_transaction_as_it_is(database: Database, db: Connection) -> None:
    with db.transaction():
        with pytest.raises(SchemaMissing):
            migrate.check(database, db)
        install(db, 20)
        assert migrate.check(database, db) == 20
    assert works(db)


def test_a_server_older_than_12_is_not_supported(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 990000)
    with pytest.raises(NotSupported, match="the schema needs 99 or later"):
        migrate.migrate(database)


def test_the_defaults_of_a_role_do_not_matter(database_url: str, db: Connection) -> None:
    options = "-c default_transaction_isolation=serializable -c default_transaction_read_only=on"
    with closing(Database(make_conninfo(database_url, options=options))) as database:
        assert migrate.migrate(database) == ALL
    assert works(db)


def test_a_pool_of_the_callers_own_will_do(database_url: str, db: Connection) -> None:
    keywords = {"row_factory": psycopg.rows.dict_row, "prepare_threshold": 0}
    with ConnectionPool(database_url, kwargs=keywords, min_size=1, open=True) as pool:
        assert migrate.migrate(Database(pool)) == ALL
        assert migrate.check(Database(pool)) == 20
    assert works(db)


# Who is told.


def test_only_an_upgrade_is_announced(database: Database, database_url: str, db: Connection) -> None:
    with Ear(database_url, "worker:migrate") as ear:
        migrate.migrate(database)
        assert ear.heard() == []
        nineteen, twenty = ({"migrationNumber": 19, "breaking": True}, {"migrationNumber": 20, "breaking": False})
        for newest, told in [(20, []), (19, [twenty]), (18, [nineteen, twenty])]:
            db.execute("delete from graphile_worker.migrations where id > %s", [newest])
            migrate.migrate(database)
            assert ear.heard() == told


# Names.

NAMES = [
    "UPPER", "with space", 'quo"te', "apo'strophe", "100%", "%s %(x)s %%", "schöma 雪", "$1$", "$$", "dot.ted", "-",
    "}", "$graphile_worker_py", "x" * 63, "雪" * 21, "{schema}", "{{", "back\\slash", "semi;colon -- /*", "line\nbreak",
    ":var :'var'", "select", "e'\\'", "public", "Ünïcode\ttab",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_postgresql_takes_is_a_schemas_name(database_url: str, db: Connection, name: str) -> None:
    with closing(Database(database_url, schema=name)) as database:
        assert migrate.migrate(database) == ALL
        assert migrate.check(database) == 20
        assert migrate.migrate(database) == []
    assert works(db, name)
    found = db.execute("select nspname from pg_namespace where nspname !~ '^pg_|^information_schema$|^public$'")
    assert found.fetchall() == ([{"nspname": name}] if name != "public" else [])


@pytest.mark.parametrize("name", NAMES)
def test_the_script_takes_any_of_these_names(database_url: str, db: Connection, name: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(migrate.script(name))
    assert works(db, name)
    with psycopg.connect(database_url, autocommit=True) as connection, pytest.raises(pg.UniqueViolation):
        connection.execute(migrate.script(name))


REFUSED = ["", "x" * 64, "雪" * 21 + "x", "pg_mine", "nul\0", f"x{BODY_TAG}", "\ud800", None, 7]


@pytest.mark.parametrize("name", REFUSED)
def test_other_names_are_refused(database_url: str, name: Any) -> None:
    with pytest.raises(InvalidSchemaName):
        Database(database_url, schema=name)
    with pytest.raises(InvalidSchemaName):
        migrate.script(name)
