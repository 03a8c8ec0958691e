"""How a worker hears of new jobs: where, whether its connection still hears, and what it does without one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from command_line import listeners
from plain_sql import eventually
from psycopg.conninfo import make_conninfo
from tcp_proxy import TcpProxy

from graphile_worker_py import InvalidConninfo, Queue, SchemaTooNew, WorkerPool
from graphile_worker_py._database import Database
from graphile_worker_py.worker.listener import Listener

NEVER = 3600.0  # a poll interval no test lives to see
Pools = Callable[..., WorkerPool]
Expected = Callable[[int], AbstractContextManager[None]]


class Ears:
    """A listener that pings after 0.2 s, and what it has heard and sent."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, connect_timeout=2)
        self.woken = threading.Semaphore(0)
        self.breaking: list[SchemaTooNew] = []
        self.pings = 0
        ping = self.database.ping

        def counted(connection: psycopg.Connection, channel: str) -> None:
            self.pings += 1
            ping(connection, channel)

        self.database.ping = counted
        self.listener = Listener(
            self.database,
            on_jobs=self.woken.release,
            on_breaking=self.breaking.append,
            ping_after=0.2,
            ping_timeout=0.3,
        )

    def hear(self) -> bool:
        return self.woken.acquire(timeout=30)


@contextmanager
def listening(url: str) -> Iterator[Ears]:
    ears = Ears(url)
    ears.listener.start()
    try:
        assert ears.hear(), "every connection begins with a look"
        if ears.database.listen_on:
            eventually(lambda: ears.pings)  # now it is all ears
        yield ears
    finally:
        ears.listener.stop(30)
        ears.database.close()


def test_a_connection_that_hears_itself_is_kept(proxied_url: str, proxy: TcpProxy) -> None:
    with listening(proxied_url) as ears:
        taken = proxy.connections
        eventually(lambda: ears.pings >= 3)
        assert proxy.connections == taken
        assert not ears.woken.acquire(blocking=False), "a ping is no job"


def test_a_half_open_connection_is_found_and_left(
    proxied_url: str, proxy: TcpProxy, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(proxied_url) as ears:
        proxy.pause()
        eventually(lambda: "does not answer" in caplog.text)
        proxy.resume()
        assert ears.hear()
        eventually(lambda: listeners(db) == 1)
        db.execute("select graphile_worker.add_job('work')")
        assert ears.hear()


def test_a_connection_that_has_stopped_to_listen_is_left(
    proxied_url: str, proxy: TcpProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(proxied_url) as ears:
        real = Database.run_on

        def deaf(self: Database, connection: psycopg.Connection, name: str, *rest: object) -> object:
            if name == "ping":
                connection.execute("unlisten *")
            return real(self, connection, name, *rest)

        monkeypatch.setattr(Database, "run_on", deaf)
        eventually(lambda: "does not hear its own notifications" in caplog.text)
        assert ears.hear()


def test_the_connection_is_renewed_when_its_lifetime_is_over(proxied_url: str) -> None:
    ears = Ears(proxied_url)
    ears.database.max_lifetime = 0.1
    ears.listener.start()
    for _ in range(3):
        assert ears.hear()
    ears.listener.stop(30)
    ears.database.close()


def test_where_nothing_listens_jobs_are_found_by_polling(
    queue: Queue, migrated_url: str, db: psycopg.Connection, expected: Expected
) -> None:
    queue.point_at(migrated_url, listen=False)
    queue.task("work")(lambda payload: None)
    with WorkerPool(queue, 1, poll_interval=0.05), expected(1):
        db.execute("select graphile_worker.add_job('work')")
    query = "select 1 from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
    assert db.execute(query).fetchall() == []


def test_a_breaking_migration_is_seen_without_listening(
    migrated_url: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker_py.worker.listener.LOOK_EVERY", 0.05)
    monkeypatch.setenv("GRAPHILE_WORKER_LISTEN", "off")
    with listening(migrated_url) as ears:
        assert ears.hear()
        assert ears.breaking == []
        db.execute("insert into graphile_worker.migrations (id, breaking) values (1000, true)")
        eventually(lambda: ears.breaking)
    assert listeners(db) == 0


def test_a_direct_connection_string_is_used_to_listen_and_for_nothing_else(
    migrated_url: str, proxied_url: str, proxy: TcpProxy, expected: Expected, queue: Queue, db: psycopg.Connection
) -> None:
    queue.point_at(migrated_url, listen=make_conninfo(proxied_url, application_name="ears"))
    queue.task("work")(lambda payload: None)
    with WorkerPool(queue, 1, poll_interval=NEVER):
        eventually(lambda: listeners(db))
        with expected(1):
            db.execute("select graphile_worker.add_job('work')")
        assert proxy.connections == 1
        query = "select query from pg_stat_activity where application_name = 'ears'"
        ((said,),) = db.execute(query).fetchall()
        assert said.startswith("listen")


def test_what_says_where_to_listen(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Queue(migrated_url).database.listen_on is True
    monkeypatch.setenv("GRAPHILE_WORKER_LISTEN", "off")
    assert Queue(migrated_url).database.listen_on is False
    assert Queue(migrated_url, listen=True).database.listen_on is True
    monkeypatch.setenv("GRAPHILE_WORKER_LISTEN", "host=ears")
    queue = Queue(migrated_url)
    assert queue.database.listen_on == "host=ears"
    monkeypatch.delenv("GRAPHILE_WORKER_LISTEN")
    queue.point_at(migrated_url, schema="other")
    assert queue.database.listen_on == "host=ears", "in the same database it stays"
    queue.point_at("host=elsewhere")
    assert queue.database.listen_on is True
    queue.point_at("host=elsewhere", listen=False)
    assert queue.database.listen_on is False
    for wrong in ("host=a nonsense", "postgresql://me:ses@me@host/db"):
        with pytest.raises(InvalidConninfo) as caught:
            Queue(migrated_url, listen=wrong)
        assert "ses" not in str(caught.value)
