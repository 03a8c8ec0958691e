"""Our installer and worker on ledgers that Node's worker wrote, whole and spoilt; and migrations while workers run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, assert_error, graphile, with_jobs
from plain_sql import connect, eventually

from graphile_worker_py import MigrationError, Queue, SchemaTooNew, SchemaTooOld
from interop import ledger, node
from interop.host import NodeWorker

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("schema Node's, ledger changed: we start")]

Install = Callable[[str], str]


@pytest.fixture
def install(database_url: str, node_worker: Callable[..., NodeWorker]) -> Install:
    """Return a function that lets a version of Node's worker install its schema, and returns the conninfo."""

    def installing(version: str) -> str:
        with node_worker(version, database_url) as worker:
            worker.migrate()
        return database_url

    return installing


@pytest.fixture
def queue(database_url: str) -> Iterator[Queue]:
    with Queue(database_url) as queue:
        queue.task("greet")(lambda payload: None)
        yield queue


def works(queue: Queue) -> bool:
    queue.add_job("greet")
    return queue.run_once().completed == 1


# What the ledger may hold when we come to it.

each_version = pytest.mark.parametrize("version", node.VERSIONS)
NO_COLUMN = "alter table migrations drop breaking"


@each_version
def test_as_node_left_it(version: str, install: Install, queue: Queue) -> None:
    """From 19 on a worker of ours starts on it as it is; on 18 it says what to do."""
    install(version)
    if version == node.REFUSED:
        with pytest.raises(SchemaTooOld, match=r"at migration 18, .* needs 19 or later: run queue.migrate\(\)"):
            queue.run_once()
        queue.migrate()
    assert works(queue)


@each_version
@pytest.mark.parametrize(
    ("spoil", "rows"),
    [
        (["delete from migrations where id <> (select max(id) from migrations)"], "last"),
        ([NO_COLUMN], "all"),
        ([NO_COLUMN, "delete from migrations where id <> (select max(id) from migrations)"], "last"),
        (["delete from migrations where id = 11"], "gap"),
    ],
    ids=["only the last row", "no column", "only the last row, no column", "a row missing"],
)
def test_spoilt_ones_are_brought_up_to_date(
    version: str, spoil: list[str], rows: str, install: Install, queue: Queue, node_worker: Callable[..., NodeWorker]
) -> None:
    """And Node's workers start on the result, even where they would have failed before."""
    url = install(version)
    ledger.rewrite(url, *spoil)
    last = ledger.LATEST[version]
    if last >= 19:
        assert works(queue)  # as it is
    assert queue.migrate() == list(range(last + 1, 21))
    expected = {
        "all": ledger.as_written(20),
        "gap": [row for row in ledger.as_written(20) if row[0] != 11],
        "last": [row for row in ledger.as_written(20) if row[0] >= last],
    }[rows]
    assert ledger.rows(url) == expected
    assert works(queue)
    for living in node.LIVING:
        with node_worker(living, url) as worker:
            worker.run({"node": "tell(payload)"})
            worker.add_job("node", "1")
            assert worker.told() == 1


@each_version
def test_empty_beside_its_objects_is_refused(version: str, install: Install, queue: Queue) -> None:
    ledger.rewrite(install(version), "delete from migrations")
    with pytest.raises(MigrationError, match="its table migrations is empty, so nobody knows their age"):
        queue.migrate()


@each_version
def test_empty_and_alone_is_installed(version: str, install: Install, queue: Queue) -> None:
    """As if Node's installer had been stopped right after its first statement."""
    url = install(version)
    with connect(url) as db:
        db.execute("create schema elsewhere")
        db.execute("alter table graphile_worker.migrations set schema elsewhere")
        db.execute("drop schema graphile_worker cascade")
        db.execute("alter schema elsewhere rename to graphile_worker")
        db.execute("delete from graphile_worker.migrations")
    assert queue.migrate() == list(range(1, 21))
    assert ledger.rows(url) == ledger.as_written(20)
    assert works(queue)


@each_version
def test_an_unknown_number_that_is_not_breaking_is_a_warning(
    version: str, install: Install, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    url = install(version)
    queue.migrate()
    ledger.rewrite(url, "insert into migrations (id) values (21)")
    caplog.clear()
    assert queue.migrate() == []
    assert works(queue)
    assert {record.getMessage() for record in caplog.records if record.levelname == "WARNING"} == {
        "schema 'graphile_worker' is at migration 21, this version knows 20; it is not marked as breaking, so we go on"
    }


@each_version
def test_an_unknown_breaking_number_ends_us_with_57(
    version: str, install: Install, queue: Queue, tmp_path: Path
) -> None:
    url = install(version)
    ledger.rewrite(url, "insert into migrations (id, breaking) values (1000000, true)")
    with pytest.raises(SchemaTooNew, match="at breaking migration 1000000, this version knows 20"):
        queue.migrate()
    with pytest.raises(SchemaTooNew):
        queue.run_once()
    assert_error(graphile("migrate", "--database", url), 57, "breaking migration 1000000")
    done = graphile("run", "jobs:queue", "--database", url, cwd=with_jobs(tmp_path))
    assert_error(done, 57, "breaking migration 1000000")


# Migrations while workers run.


def hears_of_migrations(url: str) -> bool:
    """Return whether a worker listens for migrations: from then on it will be told."""
    with psycopg.connect(url) as db:
        found = db.execute(
            """
            select count(*) from pg_stat_activity
            where datname = current_database() and query ilike 'listen%"worker:migrate"%' and pid <> pg_backend_pid()
            """
        ).fetchone()
    return found != (0,)


@pytest.fixture
def node_daemon(tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Return a function that starts graphile-worker's own command on a task that does nothing, until it listens."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "idle.cjs").write_text("module.exports = () => {};\n")
    started: list[subprocess.Popen[str]] = []

    def start(version: str, url: str) -> subprocess.Popen[str]:
        log = (tmp_path / "log").open("w")
        environment = node.environment(version, url)
        process = subprocess.Popen(node.cli(version), cwd=tmp_path, env=environment, stdout=log, stderr=log, text=True)
        log.close()
        started.append(process)
        eventually(lambda: process.poll() is not None or hears_of_migrations(url))
        assert process.poll() is None, (tmp_path / "log").read_text()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("version", [node.REFUSED])
@pytest.mark.direction("we migrate, Node's worker runs")
def test_our_upgrade_stops_a_worker_it_breaks(
    version: str, install: Install, queue: Queue, node_daemon: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    worker = node_daemon(version, install(version))
    assert queue.migrate() == [19, 20]
    assert worker.wait(30) == 57
    assert works(queue)


@pytest.mark.parametrize("version", [node.OLDER])
@pytest.mark.direction("we migrate, Node's worker runs")
def test_our_upgrade_lets_a_worker_go_on_that_it_does_not_break(
    version: str, install: Install, queue: Queue, node_worker: Callable[..., NodeWorker]
) -> None:
    url = install(version)
    with node_worker(version, url) as worker:
        worker.run({"greet": "tell(payload)"})
        assert queue.migrate() == [20]
        for n in range(3):
            queue.add_job("greet", n)
            assert worker.told() == n


@pytest.mark.parametrize("version", node.LIVING)
@pytest.mark.direction("we migrate, Node's worker runs")
def test_our_install_of_another_schema_stops_nobody(
    version: str, install: Install, queue: Queue, node_worker: Callable[..., NodeWorker]
) -> None:
    """Its channel is that of the whole database; Node's own install of a second schema does stop its workers."""
    url = install(version)
    with node_worker(version, url) as worker, Queue(url, schema="second") as second:
        worker.run({"greet": "tell(payload)"})
        second.migrate()
        queue.add_job("greet", "still here")
        assert worker.told() == "still here"
        with node_worker(version, url, schema="third") as third:
            third.migrate()
        assert worker.ended() == 57


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """Return a function that starts `graphile-worker-py run`, until it listens."""
    started: list[Daemon] = []

    def start(url: str) -> Daemon:
        started.append(Daemon(with_jobs(tmp_path), "jobs:queue", "--database", url))
        eventually(lambda: not started[0].is_running or hears_of_migrations(url))
        return started[0]

    yield start
    for running in started:
        running.close()


@pytest.mark.parametrize("version", node.LIVING)
@pytest.mark.direction("Node migrates, our worker runs")
def test_a_breaking_migration_stops_our_daemon_once_its_job_is_done(
    version: str, install: Install, queue: Queue, daemon: Callable[[str], Daemon], tmp_path: Path
) -> None:
    """As a later version of Node's worker would announce it: the row and the notification in one transaction."""
    url = install(version)
    running = daemon(url)
    job = queue.add_job("wait", str(tmp_path / "gate"))
    assert running.next_line() == "waiting"
    with psycopg.connect(url) as db:
        db.execute("insert into graphile_worker.migrations (id, breaking) values (21, true)")
        told = json.dumps({"migrationNumber": 21, "breaking": True})
        db.execute("select pg_notify('worker:migrate', %s)", [told])
    eventually(lambda: not hears_of_migrations(url))  # it is about to stop
    with os.fdopen(os.open(tmp_path / "gate", os.O_WRONLY), "w") as gate:
        gate.write("open")
    code, errors = running.end()
    assert (code, "breaking migration 21" in errors) == (57, True), errors
    assert queue.job(job.id) is None


@pytest.mark.parametrize("version", [node.OLDER])
@pytest.mark.direction("Node migrates, our worker runs")
def test_migrations_of_node_that_we_know_let_our_daemon_go_on(
    version: str,
    install: Install,
    queue: Queue,
    daemon: Callable[[str], Daemon],
    node_worker: Callable[..., NodeWorker],
) -> None:
    """An upgrade from 19 to 20, and a second schema in the same database: seven breaking migrations, heard by all."""
    url = install(version)
    running = daemon(url)
    with node_worker(node.NEWEST, url) as newest, node_worker(version, url, schema="second") as second:
        newest.migrate()
        second.migrate()
    assert ledger.rows(url) == ledger.as_written(20)
    queue.add_job("note", "still here")
    assert running.next_line() == "note still here"
