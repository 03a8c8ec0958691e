"""`run --processes N`: a parent that starts workers, starts anew what dies, and stops as one worker does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, graphile, listeners
from plain_sql import eventually

from graphile_worker_py import Queue

Start = Callable[..., Daemon]
LIVING = "select pid from graphile_worker._private_py_pools order by pid"


def workers(db: psycopg.Connection) -> list[int]:
    return [pid for (pid,) in db.execute(LIVING).fetchall()]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_work_and_stop_as_one(
    daemon: Start, queue: Queue, db: psycopg.Connection, number: signal.Signals
) -> None:
    parent = daemon("--processes", "2", "-c", "1", "--log-level", "error")
    eventually(lambda: len(workers(db)) == 2)
    for text in "ab":
        queue.add_job("note", text)
    assert {parent.next_line(), parent.next_line()} == {"note a", "note b"}
    parent.signal(number)
    assert parent.end() == (0, "")
    assert workers(db) == []


def test_ctrl_c_ends_no_grace(daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection) -> None:
    """A terminal tells the whole group; a worker that heard it twice, from its parent as well, would end the grace."""
    parent = daemon("--processes", "2", "--log-level", "error")
    queue.add_job("wait", str(folder / "gate"))
    assert parent.next_line() == "waiting"
    eventually(lambda: len(workers(db)) == 2)
    parent.interrupt()
    eventually(lambda: not listeners(db))
    (folder / "gate").write_text("go")
    assert parent.next_line() == "waited"
    assert parent.end() == (0, "")


def test_a_worker_that_dies_is_started_anew(daemon: Start, queue: Queue, db: psycopg.Connection) -> None:
    parent = daemon("--processes=2", "--log-level", "warning")
    eventually(lambda: len(workers(db)) == 2)
    victim, other = workers(db)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(set(workers(db)) - {victim, other}) == 1)
    parent.signal(signal.SIGTERM)
    code, errors = parent.end()
    assert code == 0
    assert "ended with -9: starting another" in errors


def test_workers_end_with_a_parent_that_was_killed(daemon: Start, db: psycopg.Connection) -> None:
    parent = daemon("--processes", "2")
    eventually(lambda: len(workers(db)) == 2)
    children = workers(db)
    parent.signal(signal.SIGKILL)
    eventually(lambda: all(map(gone, children)))
    assert workers(db) == []  # they stopped in order


def test_what_no_further_try_can_mend_ends_all(folder: Path, migrated_url: str, database_url: str) -> None:
    for target, url, code in (("nothing:queue", migrated_url, 69), ("jobs:queue", database_url, 4)):
        done = graphile("run", target, "--processes", "2", "--database", url, cwd=folder)
        assert done.returncode == code


def test_once_ends_when_all_have(folder: Path, migrated_url: str, queue: Queue) -> None:
    queue.add_job("note", "a")
    command = ("run", "jobs:queue", "--once", "--processes", "2", "--log-level", "error", "--database", migrated_url)
    done = graphile(*command, cwd=folder)
    assert done.returncode == 0
    assert "note a" in done.stdout
    assert done.stdout.count("completed") == 2
    queue.add_job("fail", max_attempts=1)
    assert graphile(*command, cwd=folder).returncode == 1
