"""A worker is told to stop while the database is away: it ends in time, says what it leaves, and with which code."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, listeners, locks
from plain_sql import eventually
from psycopg.conninfo import make_conninfo
from tcp_proxy import TcpProxy

from graphile_worker_py import Queue, WorkerPool, _watched
from graphile_worker_py.worker import pool as pool_module

Start = Callable[..., Daemon]
MARGIN = 12.0  # seconds after the grace: about ten in the worst case, and the machine may be busy
FIND_NOTHING = ("--poll-interval", "3600")
BUSY = """select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
    and (state <> 'idle' or clock_timestamp() - state_change < '0.3 s')"""
POOLS = "select count(*) from graphile_worker._private_py_pools"


@pytest.fixture
def behind(folder: Path, proxied_url: str) -> Iterator[Start]:
    """Return a function that starts a daemon behind the proxy, with a grace of a second."""
    started: list[Daemon] = []

    def start(*arguments: str) -> Daemon:
        url = make_conninfo(proxied_url, connect_timeout=2)
        started.append(Daemon(folder, "jobs:queue", "--database", url, "--grace", "1", *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


def cut(proxy: TcpProxy) -> None:
    proxy.refuse()
    proxy.reset()


def stopped(process: Daemon, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Send a signal; return the exit code and the log of a process that ends in time."""
    began = time.monotonic()
    process.signal(number)
    code, log = process.end()
    assert time.monotonic() - began < 1 + MARGIN
    return code, log


def test_an_idle_worker_ends_in_an_outage(behind: Start, proxy: TcpProxy, db: psycopg.Connection) -> None:
    process = behind(*FIND_NOTHING)
    eventually(lambda: listeners(db))
    eventually(lambda: db.execute(BUSY).fetchone() == (0,))
    cut(proxy)
    code, log = stopped(process)
    assert (code, "Traceback" in log) == (0, False)


def test_what_cannot_be_written_is_said_and_left_to_be_recovered(
    behind: Start, proxy: TcpProxy, queue: Queue, db: psycopg.Connection, folder: Path
) -> None:
    queue.add_job("wait", str(folder / "gate"))
    process = behind(*FIND_NOTHING)
    assert process.next_line() == "waiting"
    cut(proxy)
    (folder / "gate").write_text("go")
    assert process.next_line() == "waited"
    code, log = stopped(process)
    assert code == 3
    assert "1 outcomes could not be written" in log
    assert locks(db) == [(True, 1)]
    assert db.execute(POOLS).fetchone() == (1,), "it has not left the living, so it will be found dead"


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_server_that_falls_silent_does_not_keep_a_pool_from_stopping(
    proxied_url: str, proxy: TcpProxy, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    for module, name in ((_watched, "LAST_ANSWER"), (_watched, "TO_CANCEL"), (pool_module, "LAST_TRIES")):
        monkeypatch.setattr(module, name, 0.3)
    running, go = threading.Event(), threading.Event()
    with Queue(proxied_url, statement_timeout=None) as queue:

        @queue.task
        def work(payload: object) -> None:
            running.set()
            assert go.wait(30)

        if busy:
            work.add_job()
        pool = WorkerPool(queue, 1, poll_interval=3600)
        pool.start()
        eventually(lambda: listeners(db))
        assert not busy or running.wait(30)
        eventually(lambda: db.execute(BUSY).fetchone() == (0,))
        proxy.pause()
        go.set()
        began = time.monotonic()
        assert pool.stop(0.5) == []
        assert time.monotonic() - began < 1 + MARGIN
        assert pool.leaves_jobs() == busy
        assert locks(db) == [(True, 1)] * busy


def test_what_the_outage_did_not_hinder_is_written_when_it_is_over_within_the_grace(
    behind: Start, proxy: TcpProxy, queue: Queue, db: psycopg.Connection, folder: Path
) -> None:
    queue.add_job("wait", str(folder / "gate"))
    process = behind(*FIND_NOTHING, "--grace", "20")
    assert process.next_line() == "waiting"
    cut(proxy)
    process.signal(signal.SIGTERM)
    (folder / "gate").write_text("go")
    assert process.next_line() == "waited"
    proxy.accept()
    assert process.end()[0] == 0
    assert locks(db) == []
    assert db.execute(POOLS).fetchone() == (0,)


def test_a_handler_that_goes_on_is_ended_and_its_job_left(
    behind: Start, proxy: TcpProxy, queue: Queue, db: psycopg.Connection, folder: Path
) -> None:
    queue.add_job("wait", str(folder / "gate"))
    process = behind(*FIND_NOTHING)
    assert process.next_line() == "waiting"
    eventually(lambda: db.execute(BUSY).fetchone() == (0,))
    cut(proxy)
    code, log = stopped(process)
    assert code == 75
    assert "stay locked" in log
    assert locks(db) == [(True, 1)]


def test_a_worker_told_to_stop_before_it_has_begun_ends_without_a_word(behind: Start, proxy: TcpProxy) -> None:
    proxy.pause()
    process = behind()
    eventually(lambda: proxy.connections)
    assert stopped(process) == (0, "")


def test_once_waits_for_a_database_that_goes_away(
    behind: Start, proxy: TcpProxy, queue: Queue, db: psycopg.Connection, folder: Path
) -> None:
    queue.add_job("wait", str(folder / "gate"))
    process = behind("--once")
    assert process.next_line() == "waiting"
    cut(proxy)
    (folder / "gate").write_text("go")
    assert process.next_line() == "waited"
    assert process.is_running
    proxy.accept()
    assert process.next_line().startswith("1 completed")
    assert process.end()[0] == 0
    assert locks(db) == []


def test_a_parent_ends_with_its_workers_in_an_outage(behind: Start, proxy: TcpProxy, db: psycopg.Connection) -> None:
    process = behind(*FIND_NOTHING, "--processes", "2")
    eventually(lambda: listeners(db) == 2)
    eventually(lambda: db.execute(BUSY).fetchone() == (0,))
    cut(proxy)
    assert stopped(process)[0] == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_closed_terminal_stops_a_worker_in_order(
    behind: Start, queue: Queue, db: psycopg.Connection, folder: Path, processes: str
) -> None:
    queue.add_job("wait", str(folder / "gate"))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests themselves run under nohup, it is ignored
    process = behind("--processes", processes, "--grace", "20")
    signal.signal(signal.SIGHUP, before)
    assert process.next_line() == "waiting"
    eventually(lambda: listeners(db) == int(processes))
    process.signal(signal.SIGHUP)
    eventually(lambda: listeners(db) == 0)
    (folder / "gate").write_text("go")
    assert process.next_line() == "waited"
    assert process.end()[0] == 0
    assert locks(db) == []
