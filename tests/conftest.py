"""A real PostgreSQL for every test: the one of DATABASE_URL, else an embedded one for the whole session.

pytest-postgresql makes the databases: one to a test, cloned from an empty or from a migrated template.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, with_jobs
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql import factories
from tcp_proxy import TcpProxy

from graphile_worker_py import JobCompleted, JobFailed, Queue, WorkerPool
from graphile_worker_py._database import Database
from graphile_worker_py.embedded import EmbeddedPostgres
from graphile_worker_py.migrate import migrate

_embedded: list[EmbeddedPostgres] = []

# A shell without job control starts what it runs in the background with SIGINT ignored, and so would be all we start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Point pytest-postgresql at a server; several runs may share it, so names carry the process's number."""
    url = os.environ.pop("DATABASE_URL", None)
    for name in [name for name in os.environ if name.startswith(("PG", "GRAPHILE_WORKER_"))]:
        del os.environ[name]  # what the tests see must not depend on who runs them
    if not url:
        _embedded.append(EmbeddedPostgres(settings={"max_connections": "200"}).start())
        url = _embedded[0].url
    server = conninfo_to_dict(url)
    config.option.postgresql_host = server.get("host", "localhost")
    config.option.postgresql_port = int(server.get("port", 5432))
    config.option.postgresql_user = server.get("user", "postgres")
    config.option.postgresql_password = server.get("password", "")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the embedded server."""
    while _embedded:
        _embedded.pop().stop()


def _install(**server: object) -> None:
    database = Database(_conninfo(server))
    migrate(database)


def _conninfo(server: dict[str, object]) -> str:
    return make_conninfo("", **{name: value for name, value in server.items() if value})


empty_server = factories.postgresql_noproc(dbname=f"gwpy_empty_{os.getpid()}")
migrated_server = factories.postgresql_noproc(dbname=f"gwpy_migrated_{os.getpid()}", load=[_install])
empty_database = factories.postgresql("empty_server")
migrated_database = factories.postgresql("migrated_server")


def _url(connection: psycopg.Connection) -> str:
    info = connection.info
    server = {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname, "password": info.password}
    connection.close()
    return _conninfo(server)


@pytest.fixture
def database_url(empty_database: psycopg.Connection) -> str:
    """Return the conninfo of a database of this test's own, with nothing in it."""
    return _url(empty_database)


@pytest.fixture
def migrated_url(migrated_database: psycopg.Connection) -> str:
    """Return the conninfo of a database of this test's own, with the schema graphile_worker installed."""
    return _url(migrated_database)


@pytest.fixture
def graphile_worker_database(database_url: str) -> str:
    """Tell our own plugin where the tests of the examples have their jobs."""
    return database_url


@pytest.fixture
def queue(migrated_url: str) -> Iterator[Queue]:
    """Return a queue on a migrated database of this test's own."""
    with Queue(migrated_url) as queue:
        yield queue


@pytest.fixture
def db(migrated_url: str) -> Iterator[psycopg.Connection]:
    """Return a connection of the test's own, in autocommit, to look at what is stored."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def pools(queue: Queue) -> Iterator[Callable[..., WorkerPool]]:
    """Return a function that starts a worker pool, stopped when the test ends."""
    started: list[WorkerPool] = []

    def start(concurrency: int = 4, **options: object) -> WorkerPool:
        pool = WorkerPool(queue, concurrency, **options)
        started.append(pool)
        pool.start()
        return pool

    yield start
    for pool in started:
        pool.stop(timeout=20)


@pytest.fixture
def expected(queue: Queue) -> Callable[[int], AbstractContextManager[None]]:
    """Return a context manager that waits, at the end of its block, until so many jobs were completed in it."""

    @contextmanager
    def waiting(jobs: int) -> Iterator[None]:
        done = threading.Semaphore(0)
        unsubscribe = queue.events.subscribe(JobCompleted, lambda event: done.release())
        yield
        for _ in range(jobs):
            assert done.acquire(timeout=30)
        unsubscribe()

    return waiting


@pytest.fixture
def proxy(migrated_url: str) -> Iterator[TcpProxy]:
    """Return a proxy before the server of migrated_url."""
    server = conninfo_to_dict(migrated_url)
    with TcpProxy(str(server.get("host", "localhost")), int(server.get("port", 5432))) as proxy:
        yield proxy


@pytest.fixture
def proxied_url(migrated_url: str, proxy: TcpProxy) -> str:
    """Return the conninfo of migrated_url, through the proxy."""
    return make_conninfo(migrated_url, host="127.0.0.1", port=proxy.port)


@pytest.fixture
def failures(queue: Queue) -> list[JobFailed]:
    """Return the failures that the queue tells of, as they come."""
    seen: list[JobFailed] = []
    queue.events.subscribe(JobFailed, seen.append)
    return seen


@pytest.fixture
def wait(db: psycopg.Connection) -> Callable[[], float]:
    """Return a function that says for how many seconds the one job there is will wait, rounded to tens of them."""

    def seconds() -> float:
        (found,) = db.execute(
            "select extract(epoch from run_at - now())::float8 from graphile_worker._private_jobs"
        ).fetchone() or (None,)
        assert isinstance(found, float)
        return found

    return seconds


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves one of our threads behind."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("graphile-worker-py")]
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module jobs, and a named pipe called gate."""
    return with_jobs(tmp_path)


@pytest.fixture
def own_daemon(folder: Path) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts a daemon with no more arguments than are given; it is killed at the end."""
    started: list[Daemon] = []

    def start(*arguments: str, **more: str) -> Daemon:
        started.append(Daemon(folder, *arguments, more=more))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def daemon(own_daemon: Callable[..., Daemon], migrated_url: str) -> Callable[..., Daemon]:
    """Return a function that starts a daemon on jobs:queue."""

    def start(*arguments: str, target: str = "jobs:queue", **more: str) -> Daemon:
        return own_daemon(target, "--database", migrated_url, *arguments, **more)

    return start
