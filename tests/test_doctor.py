"""Everything that the doctor finds in a database: provoked, found by name, mended as it says, and gone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import psycopg
import pytest
from doctoring import NOTHING, assert_mended, findings, one, update_jobs
from pgbouncer import PROGRAM, PgBouncer
from plain_sql import eventually
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from graphile_worker_py import InvalidJobSpec, JobSpec, Queue, WorkerPool, doctor, migrate
from graphile_worker_py.doctor import CHECKS, Finding, Thresholds, reaching
from graphile_worker_py.doctor.findings import age, listed, size


@pytest.fixture
def login(db: psycopg.Connection, migrated_url: str) -> Iterator[Callable[[str], Queue]]:
    """Return a function that makes a role of this kind, and returns a queue that connects as it."""
    name = f"doctor_{db.info.dbname}"
    identifier = sql.Identifier(name)
    queues: list[Queue] = []

    def log_in(kind: str, **options: object) -> Queue:
        db.execute(f"create role {identifier.as_string()} login password 'see-cret' {kind}".encode())
        queues.append(Queue(make_conninfo(migrated_url, user=name, password="see-cret"), **options))  # noqa: S106
        return queues[0]

    yield log_in
    if queues:
        queues[0].close()
        db.execute(sql.SQL("drop owned by {} cascade").format(identifier))
        db.execute(sql.SQL("drop role {}").format(identifier))


@pytest.fixture
def alter(db: psycopg.Connection) -> Callable[[str], None]:
    """Return a function that sets something for this database."""

    def alter_database(what: str) -> None:
        db.execute(f"alter database {sql.Identifier(db.info.dbname).as_string()} {what}".encode())

    return alter_database


def test_a_database_in_order_is_in_order(queue: Queue, pools: Callable[..., WorkerPool]) -> None:
    queue.task("work")(print)
    pools()
    found = doctor.examine(queue)
    assert list(dict.fromkeys(finding.check for finding in found)) == list(CHECKS)
    # The tests' server is fast and not durable; the rest is advice.
    expected = {"durability", "synchronous-commit", "timeouts", "autovacuum"}
    assert {finding.check for finding in found if finding.level != "ok"} <= expected, found
    assert all(bool(finding.do) == (finding.level != "ok") for finding in found)
    assert doctor.examine(queue, skip=CHECKS) == []
    with pytest.raises(InvalidJobSpec, match="no check is called 'nothing'; there are version, durability,"):
        doctor.examine(queue, skip=["nothing", "tls"])


# Settings of a role or a database.


@pytest.mark.parametrize(
    ("what", "check", "level", "says"),
    [
        ("set synchronous_commit = off", "synchronous-commit", "warning", "synchronous_commit is off for role doctor_"),
        ("set default_transaction_read_only = on", "read-only", "problem", "neither be added nor run"),
        ("set default_transaction_isolation = 'serializable'", "isolation", "warning", "is 'serializable'"),
        ("set statement_timeout = 100", "timeouts", "warning", "statement_timeout is 100 ms"),
        ("set idle_in_transaction_session_timeout = 0", "timeouts", "note", "is 0"),
        ("connection limit 5", "connections", "warning", "of 5 connections of the database are in use"),
    ],
)
def test_settings(
    db: psycopg.Connection,
    alter: Callable[[str], None],
    login: Callable[[str], Queue],
    *,
    what: str,
    check: str,
    level: str,
    says: str,
) -> None:
    queue = login("")
    alter(what)
    assert_mended(db, queue, one(findings(queue, check), level, says))


def test_connections_of_a_role_and_of_the_server(
    db: psycopg.Connection, migrated_url: str, login: Callable[[str], Queue]
) -> None:
    queue = login("connection limit 5")
    assert_mended(db, queue, one(findings(queue, "connections"), "warning", "of 5 connections of the role"))
    with Queue(migrated_url, max_size=10_000) as greedy:
        found = one(findings(greedy, "connections"), "warning", "connections of the server", "takes up to 10001")
        assert re.fullmatch(r"alter system set max_connections = \d+", found.sql[0])


# The way to the server.


@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)")
def test_a_pooler(tmp_path_factory: pytest.TempPathFactory, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("pgbouncer")
    for parent in folder.parents[:2]:
        parent.chmod(0o755)  # pytest's are for one user only, pgbouncer runs as another
    bouncer = PgBouncer(folder, migrated_url)
    bouncer.start()
    with ExitStack() as stack:
        stack.callback(bouncer.stop)
        queue = stack.enter_context(Queue(bouncer.url))
        found = doctor.examine(queue)
        one([each for each in found if each.check == "pooler"], "warning", "a pooler stands in between")
        assert [each.check for each in found if "not looked at" in each.what] == []
        assert [each.what for each in found if each.check == "notifications"] == ["not tried: a pooler is in between"]
        queue.point_at(bouncer.url, listen=migrated_url)
        assert findings(queue, "pooler") == findings(queue, "notifications") == NOTHING
        queue.point_at(bouncer.url, listen=bouncer.url)
        monkeypatch.setattr(reaching, "PATIENCE", 0.5)
        one(findings(queue, "notifications"), "problem", "did not arrive")


def test_notifications_from_where_nothing_is_sent(
    queue: Queue, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(queue, "notifications") == NOTHING
    queue.point_at(migrated_url, listen=make_conninfo(migrated_url, dbname="postgres"))
    with monkeypatch.context() as patched:
        patched.setattr(reaching, "PATIENCE", 0.5)
        one(findings(queue, "notifications"), "problem", "did not arrive within 0.5 seconds")
    nowhere = "host=127.0.0.1 port=1 user=me password=see-cret"
    queue.point_at(migrated_url, listen=nowhere)
    found = one(findings(queue, "notifications"), "problem", "workers cannot listen where they are to: ")
    assert "see-cret" not in str(found)
    queue.point_at(migrated_url, listen=False)
    assert findings(queue, "notifications") == NOTHING


def test_a_clock_that_is_wrong(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    for shift, says in ((400, "7 min ahead of the server's"), (-400, "7 min behind the server's")):
        monkeypatch.setattr(reaching.time, "time", lambda shift=shift: now() + shift)
        one(findings(queue, "clock"), "warning", says)
    monkeypatch.undo()
    assert findings(queue, "clock") == NOTHING


# The schema.


def test_a_database_without_the_schema(database_url: str) -> None:
    with Queue(database_url) as queue:
        found = doctor.examine(queue)
        (missing,) = [each for each in found if each.check == "schema"]
        assert (missing.level, found[-1]) == ("problem", missing)  # and nothing in it is looked for
        assert "'graphile_worker' is not installed" in missing.what
        assert "graphile-worker-py migrate" in missing.do
        queue.migrate()
        assert findings(queue, "schema") == NOTHING


def test_ledgers(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("delete from graphile_worker.migrations where id = 20")
    one(findings(queue, "schema"), "note", "migration 19, 20 is the newest")
    queue.migrate()
    assert findings(queue, "schema") == NOTHING
    db.execute("insert into graphile_worker.migrations (id, breaking) values (21, false)")
    one(findings(queue, "schema"), "note", "migration 21, this version knows 20")
    db.execute("update graphile_worker.migrations set breaking = true where id = 21")
    assert "upgrade" in one(findings(queue, "schema"), "problem", "breaking migration 21").do
    db.execute("delete from graphile_worker.migrations where id > 17")
    one(findings(queue, "schema"), "problem", "at migration 17")


def test_our_own_tables(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("insert into graphile_worker._private_py_migrations (id) values (999999)")
    one(findings(queue, "own-tables"), "note", "newer than this version")
    ours = "select relname from pg_class where relkind = %s and starts_with(relname, '_private_py_')"
    for kind, letter in (("table", "r"), ("index", "i")):
        for (name,) in db.execute(ours, [letter]).fetchall():
            db.execute(sql.SQL("drop " + kind + " graphile_worker.{}").format(sql.Identifier(name)))
    one(findings(queue, "own-tables"), "warning", "(0 of ")
    found = {each.check: each for each in doctor.examine(queue)}
    assert "not looked at" in found["workers"].what
    assert found["locks"].level == found["waiting"].level == "ok"
    queue.migrate()
    assert findings(queue, "own-tables") == NOTHING


def test_objects_of_another_owner(db: psycopg.Connection, queue: Queue, login: Callable[[str], Queue]) -> None:
    role = sql.Identifier(login("").database.source and f"doctor_{db.info.dbname}")
    for kind in ("table graphile_worker._private_tasks", "view graphile_worker.jobs"):
        db.execute(sql.SQL("alter " + kind + " owner to {}").format(role))
    db.execute(sql.SQL("alter function graphile_worker.force_unlock_workers owner to {}").format(role))
    found = one(
        findings(queue, "owners"), "warning", "_private_tasks (to doctor_", "jobs (to", "force_unlock_workers (to"
    )
    assert_mended(db, queue, found)


def test_indexes(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("create index half_made_ccnew on graphile_worker._private_tasks (identifier)")
    for name in ("half_made_ccnew", "jobs_main_index"):
        db.execute(
            "update pg_index set indisvalid = false where indexrelid = %s::regclass", [f"graphile_worker.{name}"]
        )
    found = findings(queue, "indexes")
    assert_mended(db, queue, one(found, "warning", "half_made_ccnew is not usable"))
    assert_mended(db, queue, one(found, "warning", "jobs_main_index is not usable"))
    assert findings(queue, "indexes") == NOTHING
    db.execute("drop index graphile_worker.jobs_no_queue_index")
    one(findings(queue, "indexes"), "warning", "jobs_no_queue_index is missing")
    (create,) = re.findall(r"(?s)create index jobs_no_queue_index.*?;", migrate.script("graphile_worker"))
    db.execute(create)
    assert findings(queue, "indexes") == NOTHING


def test_numbers_that_run_out(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("select setval('graphile_worker.tasks_id_seq', 2000000000)")
    db.execute("select setval('graphile_worker.job_queues_id_seq', 1000000000)")
    found = findings(queue, "identities")
    tasks = one(found, "problem", "93% of the integer numbers of _private_tasks.id", "2,000,000,000")
    queues = one(found, "warning", "47% of the integer numbers of _private_job_queues.id")
    for each in (tasks, queues):
        assert_mended(db, queue, each)
    queue.task("work")(lambda payload: None)
    queue.add_jobs([JobSpec("work", queue_name="a"), JobSpec("work"), JobSpec("work", queue_name="b")])
    assert queue.run_once().completed == 3
    db.execute("select setval('graphile_worker.tasks_id_seq', -20000000)")
    one(findings(queue, "identities"), "problem", "99% of the integer numbers of _private_tasks.id")


# What a role may.


def test_a_role_with_few_rights_is_told_step_by_step(
    db: psycopg.Connection, queue: Queue, login: Callable[[str], Queue]
) -> None:
    queue.add_job("secret", {"iban": "DE1234"}, max_attempts=1)
    update_jobs(db, "attempts = 1, last_error = 'secret'")
    poor = login("")
    found = {each.check: each for each in doctor.examine(poor)}
    assert list(found) == list(CHECKS)
    for check in ("schema", "workers", "locks", "waiting", "failed", "identities"):
        assert (found[check].level, "not looked at" in found[check].what) == ("note", True), found[check]
    one([found["rights"]], "note", "can at most look: to run a worker it lacks usage on the schema, ", " more")
    one([found["visibility"]], "note", "does not see what sessions of others do")
    assert not {"DE1234", "see-cret"} & set(re.findall(r"[\w-]+", str(found)))
    assert_mended(db, poor, found["visibility"])
    role = sql.Identifier(f"doctor_{db.info.dbname}")
    db.execute(sql.SQL("grant usage on schema graphile_worker to {}").format(role))
    db.execute(sql.SQL("grant select (id) on graphile_worker._private_tasks to {}").format(role))
    one(findings(poor, "row-security"), "problem", "the rows of _private_tasks from role")
    db.execute(sql.SQL("grant select, insert on graphile_worker._private_jobs to {}").format(role))
    assert_mended(db, poor, one(findings(poor, "rights"), "warning", "cannot run a worker, it lacks "))
    # It may all, and sees nothing: no error says so.
    assert poor.stats() == []
    trapped = {each.check: each for each in doctor.examine(poor)}
    one([trapped["row-security"]], "problem", "row security hides the rows of", "it sees an empty queue")
    for check in ("locks", "waiting", "failed"):
        assert "row security hides the rows" in trapped[check].what
    assert_mended(db, poor, trapped["row-security"])
    one(findings(poor, "failed"), "warning", "failed for good: secret (1)")
    assert [findings(poor, check) for check in ("rights", "row-security")] == [NOTHING] * 2
    assert poor.add_job("work").id == 2


# Dead rows.


def test_autovacuum(queue: Queue, db: psycopg.Connection) -> None:
    db.execute("alter table graphile_worker._private_jobs set (autovacuum_enabled = false)")
    found = findings(queue, "autovacuum")
    assert_mended(db, queue, one(found, "problem", "autovacuum is off for _private_jobs"))
    assert_mended(db, queue, one(found, "note", "when 20% of it is dead"))
    assert findings(queue, "autovacuum") == NOTHING


def test_dead_rows_and_what_they_leave(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    few = {"dead_rows": 1_000, "bloat_bytes": 500_000}
    with psycopg.connect(migrated_url, autocommit=True) as other:
        other.execute("alter table graphile_worker._private_jobs set (autovacuum_enabled = false)")
        other.execute(
            "select count(graphile_worker.add_job('work', job_key => repeat(n::text, 100)))"
            " from generate_series(1000, 3500) as n"
        )
        other.execute("delete from graphile_worker._private_jobs")
    # It has told the statistics by its end.
    eventually(lambda: findings(queue, "dead-rows", **few))
    dead = one(findings(queue, "dead-rows", **few), "warning", "_private_jobs has 2,5", " never vacuumed")
    assert_mended(db, queue, dead, **few)
    bloat = one(findings(queue, "index-bloat", **few), "note", "index jobs_key_key1 takes ")
    assert_mended(db, queue, bloat, **few)
    assert findings(queue, "dead-rows") == findings(queue, "index-bloat") == NOTHING


def test_a_forgotten_transaction(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    with psycopg.connect(migrated_url, application_name="the report") as other:
        other.execute("select pg_current_xact_id()")
        assert findings(queue, "old-transactions") == NOTHING
        now = {"old_transaction": timedelta(0)}
        found = one(findings(queue, "old-transactions", **now), "problem", "(the report, role", "idle in transaction")
        assert f"process {other.info.backend_pid} " in found.what
        assert_mended(db, queue, found, **now)
        with pytest.raises(psycopg.OperationalError):
            other.execute("select 1")


# What cannot be looked at.


def test_a_locked_table_is_not_waited_for(queue: Queue, migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as other:
        other.execute("lock table graphile_worker._private_jobs")
        began = time.monotonic()
        found = {each.check: each for each in doctor.examine(queue)}
        assert time.monotonic() - began < 30
    for check in ("locks", "waiting", "failed"):
        assert (found[check].level, found[check].what) == (
            "note",
            "not looked at: canceling statement due to lock timeout",
        )
    assert found["old-transactions"].level == "ok"


def test_a_connection_that_is_lost_is_an_error(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(visit: doctor.Visit) -> Iterator[Finding]:
        with queue.database.connection() as other:
            other.execute("select pg_terminate_backend(%s)", [visit.connection.info.backend_pid])
        yield from ()

    monkeypatch.setitem(doctor.AROUND, "isolation", lose)
    with pytest.raises(psycopg.OperationalError):
        doctor.examine(queue)


def test_a_pool_that_was_given_and_a_schema_with_an_odd_name(migrated_url: str, db: psycopg.Connection) -> None:
    with ConnectionPool(migrated_url, min_size=1, max_size=7, kwargs={"row_factory": dict_row}, open=True) as pool:
        queue = Queue(pool, schema='Odd "Näme"')
        queue.migrate()
        found = doctor.examine(queue)
        assert [each for each in found if "not looked at" in each.what] == []
        assert "takes up to 8" in next(each.what for each in found if each.check == "connections")
        assert_mended(db, queue, one(findings(queue, "autovacuum"), "note", "when 20% of it is dead"))


def test_nothing_is_written_or_left_behind(queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("work")
    (before,) = db.execute("select xmin::text, ctid::text from graphile_worker._private_jobs").fetchall()
    doctor.examine(queue)
    assert db.execute("select xmin::text, ctid::text from graphile_worker._private_jobs").fetchall() == [before]
    queue.close()
    sessions = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    eventually(lambda: db.execute(sessions).fetchone() == (0,))


def test_words() -> None:
    assert [age(seconds) for seconds in (0.2, 119, 120, 7_200, 200_000)] == ["0 s", "119 s", "2 min", "2 h", "2 d"]
    assert [size(count) for count in (16e6, 2.34e9)] == ["16 MB", "2.3 GB"]
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert Thresholds().waiting == timedelta(minutes=10)
