"""What the doctor finds in a server as a whole, or beside it: in servers of these tests' own, one with a standby."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from doctoring import NOTHING, assert_mended, findings, one
from drills.servers import Server, Unavailable, programs, scratch
from plain_sql import eventually
from psycopg.conninfo import make_conninfo

from graphile_worker_py import Queue, doctor

NOW = {"old_transaction": timedelta(0)}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start a server whose settings can be altered; the doctor's queue is in its database postgres."""
    try:
        programs()
    except Unavailable as missing:
        pytest.skip(str(missing))
    with scratch() as folder:
        settings = {"listen_addresses": "*", "max_prepared_transactions": "5", "wal_level": "replica"}
        server = Server(folder / "primary", settings=settings)
        del server.settings["fsync"]  # what the command line says cannot be altered
        server.initialize()
        with (server.data / "pg_hba.conf").open("a") as file:
            file.write("host all all samehost trust\n")
        with server:
            with Queue(where(server)) as queue:
                queue.migrate()
            yield server


def where(server: Server, **more: object) -> str:
    return server.conninfo(user="postgres", dbname="postgres", **more)


@pytest.fixture
def queue(server: Server) -> Iterator[Queue]:
    with Queue(where(server)) as queue:
        yield queue


@pytest.fixture
def db(server: Server) -> Iterator[psycopg.Connection]:
    """Return a connection whose commits wait for nobody."""
    with psycopg.connect(where(server, options="-c synchronous_commit=local"), autocommit=True) as db:
        yield db


@pytest.mark.parametrize(
    ("setting", "check", "level", "says"),
    [
        ("fsync = off", "durability", "problem", "fsync is off"),
        ("full_page_writes = off", "durability", "problem", "full_page_writes is off"),
        ("autovacuum = off", "autovacuum", "problem", "autovacuum is off: dead rows"),
        ("track_counts = off", "autovacuum", "problem", "track_counts is off"),
        ("synchronous_standby_names = '*'", "synchronous-commit", "problem", "more standbys than are connected"),
    ],
)
def test_settings(db: psycopg.Connection, queue: Queue, *, setting: str, check: str, level: str, says: str) -> None:
    db.execute(f"alter system set {setting}".encode())
    db.execute("select pg_reload_conf()")
    eventually(lambda: any(says in found.what for found in findings(queue, check)))
    if check == "synchronous-commit":
        assert findings(queue, "notifications") == NOTHING  # which are sent without waiting for a standby
    assert_mended(db, queue, one(findings(queue, check), level, says))


def test_transactions_and_slots_that_were_left(db: psycopg.Connection, queue: Queue) -> None:
    db.execute("begin")
    db.execute("create table left_over ()")
    db.execute("prepare transaction 'o''clock'")
    assert findings(queue, "prepared-transactions") == NOTHING
    found = one(findings(queue, "prepared-transactions", **NOW), "problem", '"o\'clock" of postgres is ')
    assert_mended(db, queue, found, **NOW)
    db.execute("select pg_create_physical_replication_slot('left_over', true)")
    found = one(
        findings(queue, "replication-slots"), "warning", "nobody uses replication slot left_over", " MB of the log"
    )
    assert_mended(db, queue, found)


def test_notifications_that_nobody_reads(server: Server, db: psycopg.Connection, queue: Queue) -> None:
    with closing(psycopg.connect(where(server, application_name="deaf"), autocommit=True)) as deaf:
        deaf.execute("listen anything")
        deaf.execute("begin")
        deaf.execute("select 1")
        for number in range(4):
            db.execute("select pg_notify('anything', %s)", [f"{number}" * 7_900])
        assert findings(queue, "notification-queue") == NOTHING
        any_at_all = {"notification_queue": 0.0}
        found = one(
            findings(queue, "notification-queue", **any_at_all), "problem", "of the queue of notifications is in use"
        )
        assert f"process {deaf.info.backend_pid} (deaf), the oldest" in found.do
        assert_mended(db, queue, found, **any_at_all)


def test_rows_that_are_not_frozen(db: psycopg.Connection, queue: Queue) -> None:
    db.execute("vacuum (freeze)")
    ((frozen,),) = db.execute("select age(datfrozenxid) from pg_database where datname = current_database()").fetchall()
    for _ in range(30):
        db.execute("select pg_current_xact_id()")
    few = {"transaction_ids": frozen + 20}
    found = one(findings(queue, "transaction-ids", **few), "warning", "transactions ago; at 2,000,000,000")
    assert_mended(db, queue, found, **few)


def test_a_connection_that_leaves_the_host(server: Server, db: psycopg.Connection) -> None:
    openssl = shutil.which("openssl")
    if openssl is None or "openssl" not in db.execute("select string_agg(setting, ' ') from pg_config").fetchone()[0]:
        pytest.skip("needs openssl, and a server that was built with it")
    certificate, key = server.folder / "certificate.pem", server.folder / "key.pem"
    name = ["-subj", "/CN=doctor.test", "-addext", "subjectAltName=DNS:doctor.test"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509", "-days", "2"]
    made = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, "req", *kind, *name, *made], check=True, capture_output=True)
    for file in (certificate, key):
        shutil.chown(file, server.data.owner())
        file.chmod(0o600 if file == key else 0o644)
    settings = {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
    for setting, value in settings.items():
        db.execute(f"alter system set {setting} = '{value}'".encode())
    db.execute("select pg_reload_conf()")
    away = {"host": "doctor.test", "hostaddr": own_address()}
    ways = {
        "disable": ("warning", "is not encrypted"),
        "require": ("note", "sslmode=require does not check who answers"),
        "verify-full": ("ok", "the server's certificate is checked"),
    }
    for mode, (level, says) in ways.items():
        with Queue(make_conninfo(where(server), **away, sslmode=mode, sslrootcert=str(certificate))) as queue:
            eventually(lambda queue=queue: is_reachable(queue))
            (found,) = [each for each in doctor.examine(queue) if each.check == "tls"]
            assert (found.level, says in found.what) == (level, True), found


def own_address() -> str:
    """Return an address of this host that is none of its loopback; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect(("192.0.2.1", 9))
        address: str = way.getsockname()[0]
        return address


def is_reachable(queue: Queue) -> bool:
    """Say whether the server lets us in, as it does once it has read its configuration again."""
    try:
        queue.database.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_standby(server: Server, db: psycopg.Connection, queue: Queue) -> None:
    settings = {"hot_standby_feedback": "on", "max_prepared_transactions": "5", "wal_receiver_status_interval": "1"}
    standby = Server(server.folder / "standby", settings=settings)
    del standby.settings["fsync"]
    standby.copy_running(server)
    queue.add_job("strange", max_attempts=1)
    with standby, Queue(where(standby)) as there:
        lsn = db.execute("select pg_current_wal_lsn()").fetchone()
        eventually(
            lambda: standby.execute("select pg_last_wal_replay_lsn() >= %s", lsn, dbname="postgres") == [(True,)]
        )
        found = {each.check: each for each in doctor.examine(there)}
        assert list(found) == list(doctor.CHECKS)
        one([found["read-only"]], "note", "this is a standby")
        assert [each for each in found.values() if each.level == "problem" or "not looked at" in each.what] == []
        for number, enough in ((2, False), (1, True)):
            db.execute(f"alter system set synchronous_standby_names = 'ANY {number} (*)'".encode())
            db.execute("select pg_reload_conf()")
            eventually(lambda enough=enough: (findings(queue, "synchronous-commit") == NOTHING) == enough)
        db.execute("alter system reset synchronous_standby_names")
        db.execute("select pg_reload_conf()")
        with Queue(where(server), listen=where(standby)) as deaf:
            one(findings(deaf, "notifications"), "problem", "cannot listen where they are to: cannot execute LISTEN")
        with psycopg.connect(where(standby)) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("select count(*) from graphile_worker.jobs")
            for _ in range(100):
                db.execute("select pg_current_xact_id()")
            held = {"feedback": 90}
            eventually(lambda: findings(queue, "standby-feedback", **held))
            assert findings(queue, "standby-feedback") == NOTHING
            one(findings(queue, "standby-feedback", **held), "warning", "queries on standby standby keep the dead rows")
        eventually(lambda: findings(queue, "standby-feedback", **held) == NOTHING)
        standby.stop(signal.SIGINT)
        with pytest.raises(psycopg.OperationalError):
            doctor.examine(there)
