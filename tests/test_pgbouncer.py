"""Everything works through pgbouncer in transaction mode, and leaves nothing behind on the sessions it shares."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta

import psycopg
import pytest
from command_line import listeners
from pgbouncer import PROGRAM, PgBouncer
from plain_sql import eventually

from graphile_worker_py import CronItem, JobSpec, Limit, Queue, Rate, WorkerPool

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"
)

NEVER = 3600.0  # a poll interval no test lives to see
Expected = Callable[[int], AbstractContextManager[None]]

# What a session is left with, as the next client that gets it sees it.
LEFT_BEHIND = """
select 'prepared ' || name from pg_prepared_statements
union all select 'listens to ' || pg_listening_channels()
union all select 'lock ' || mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
union all select 'cursor ' || name from pg_cursors where name <> ''
union all select 'setting ' || name || ' = ' || setting from pg_settings
where source = 'session' and name <> all (array['application_name', 'client_encoding', 'DateStyle', 'TimeZone'])
union all select 'temporary ' || relname from pg_class where relpersistence = 't'
"""


@pytest.fixture
def bouncer(tmp_path_factory: pytest.TempPathFactory, migrated_url: str) -> Iterator[PgBouncer]:
    """Return a pgbouncer before the server of migrated_url."""
    folder = tmp_path_factory.mktemp("pgbouncer")
    for parent in folder.parents[:2]:
        parent.chmod(0o755)  # pytest's are for one user only, pgbouncer runs as another
    bouncer = PgBouncer(folder, migrated_url)
    bouncer.start()
    yield bouncer
    bouncer.stop()


@pytest.fixture
def pooled(bouncer: PgBouncer, queue: Queue) -> Queue:
    """Return a queue that goes through pgbouncer, with a task that does nothing."""
    queue.point_at(bouncer.url)
    queue.task("work")(lambda payload: None)
    return queue


def left_behind(bouncer: PgBouncer) -> set[str]:
    """Look into both sessions: while a transaction holds the one, the next gets the other."""
    with (
        psycopg.connect(bouncer.url, prepare_threshold=None) as first,
        psycopg.connect(bouncer.url, prepare_threshold=None) as second,
    ):
        first.execute("select 1")
        return {row[0] for connection in (first, second) for row in connection.execute(LEFT_BEHIND).fetchall()}


def test_a_worker_leaves_nothing_behind_on_the_sessions(
    pooled: Queue, bouncer: PgBouncer, db: psycopg.Connection, expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    crontab = [CronItem("0 0 1 1 *", "work")]
    with WorkerPool(pooled, 4, poll_interval=0.05, crontab=crontab), expected(300):
        pooled.add_jobs(JobSpec("work", number) for number in range(100))
        pooled.add_jobs(JobSpec("work", number, queue_name=f"queue {number % 3}") for number in range(100))
        for number in range(100):
            pooled.add_job("work", number, job_key=f"key {number}")
    assert pooled.migrate() == []
    assert pooled.cleanup() == {"GC_JOB_QUEUES": 3}
    assert listeners(db) == 0
    assert left_behind(bouncer) == set()
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage()[:32] for record in warned] == ["connections go through a pooler,"]


def test_what_is_left_behind_would_be_found(bouncer: PgBouncer) -> None:
    with psycopg.connect(bouncer.url, autocommit=True, prepare_threshold=0) as careless:
        careless.execute("select 1")
        careless.execute("listen ears")
        careless.execute("set jit to off")
        careless.execute("select pg_advisory_lock(7)")
        found = left_behind(bouncer)
    assert {text.split()[0] for text in found} == {"prepared", "listens", "setting", "lock"}


def test_a_pgbouncer_that_is_restarted_loses_nothing(
    pooled: Queue, bouncer: PgBouncer, db: psycopg.Connection, expected: Expected
) -> None:
    with WorkerPool(pooled, 4, poll_interval=0.05), expected(60):
        for _ in range(3):
            db.execute("select count(graphile_worker.add_job('work')) from generate_series(1, 20)")
            bouncer.restart()
    assert db.execute("select count(*) from graphile_worker._private_jobs").fetchone() == (0,)


def test_a_direct_connection_string_hears_of_jobs_at_once(
    pooled: Queue, bouncer: PgBouncer, migrated_url: str, db: psycopg.Connection, expected: Expected
) -> None:
    pooled.point_at(bouncer.url, listen=migrated_url)
    with WorkerPool(pooled, 1, poll_interval=NEVER):
        eventually(lambda: listeners(db))
        with expected(1):
            db.execute("select graphile_worker.add_job('work')")


def test_a_statement_that_takes_too_long_is_cancelled_through_it(bouncer: PgBouncer, db: psycopg.Connection) -> None:
    with Queue(bouncer.url, statement_timeout=0.3) as queue, db.transaction():
        db.execute("lock table graphile_worker._private_jobs")
        with pytest.raises(psycopg.errors.QueryCanceled):
            queue.add_job("work")
        assert db.execute("select count(*) from pg_locks where not granted").fetchone() == (0,)


def test_limits_hold_and_leave_nothing_behind(pooled: Queue, bouncer: PgBouncer, expected: Expected) -> None:
    free, too_many = threading.Semaphore(2), threading.Event()

    def limited(payload: int) -> None:
        if free.acquire(blocking=False):
            time.sleep(0.005)
            free.release()
        else:
            too_many.set()

    pooled.task("limited", limit=Limit(2), rate=Rate(40, per=timedelta(hours=1)))(limited)
    with WorkerPool(pooled, 4), WorkerPool(pooled, 4), expected(40):
        pooled.add_jobs(JobSpec("limited", number) for number in range(50))
    assert not too_many.is_set()
    assert len(pooled.jobs()) == 10
    assert left_behind(bouncer) == set()
