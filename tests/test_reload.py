"""`run --reload`: a worker that is started anew when its files change."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command_line import JOBS, ROOT, Daemon, assert_error, graphile, in_process, listeners
from plain_sql import eventually

from graphile_worker_py import Queue

Start = Callable[..., Daemon]
LIVING = "select concurrency from graphile_worker._private_py_pools"


def says(folder: Path, text: str, times: int = 1) -> None:
    """Wait until a daemon has logged this so often."""
    eventually(lambda: (folder / "stderr").read_text().count(text) >= times)


def test_a_change_starts_the_worker_anew(daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection) -> None:
    parent = daemon("--reload")
    queue.add_job("note", 1)
    assert parent.next_line() == "note 1"
    (folder / "notes.txt").write_text("nobody minds")
    (folder / "venv").mkdir()
    (folder / "venv" / "other.py").write_text("")
    (folder / "jobs.py").write_text(JOBS.replace('"note"', '"second"'))
    says(folder, "the worker is started anew, for a change in jobs.py\n")
    queue.add_job("note", 2)
    assert parent.next_line() == "second 2"
    (folder / "jobs.py").write_text("def (:\n")
    says(folder, "the worker has ended with 69: waiting for a change")
    says(folder, "jobs.py, line 1")
    (folder / "graphile-worker-py.toml").write_text("concurrency = 'none'")
    says(folder, "expected a whole number, got a string")
    says(folder, "the worker has ended with 2: waiting for a change")
    (folder / "graphile-worker-py.toml").write_text("concurrency = 3")
    says(folder, "the worker has ended with 69: waiting for a change", 2)
    (folder / "jobs.py").write_text(JOBS)
    queue.add_job("note", 3)
    assert parent.next_line() == "note 3"
    assert db.execute(LIVING).fetchall() == [(3,)]
    parent.signal(signal.SIGKILL)
    eventually(lambda: not db.execute(LIVING).fetchall())  # the worker has stopped in order


def test_jobs_end_before_the_worker_does(daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("wait", str(folder / "gate"))
    parent = daemon("--reload", "--log-level", "debug")
    assert parent.next_line() == "waiting"
    eventually(lambda: listeners(db))
    (folder / "jobs.py").write_text(JOBS.replace('"note"', '"second"'))
    eventually(lambda: not listeners(db))
    (folder / "other.py").write_text("")
    says(folder, "another change while the worker ends, in other.py")  # it is no second signal, which ends the grace
    queue.add_job("note", 1)
    (folder / "gate").write_text("go")
    assert [parent.next_line(), parent.next_line()] == ["waited", "second 1"]
    queue.add_job("wait", str(folder / "gate"))
    assert parent.next_line() == "waiting"
    parent.interrupt()
    eventually(lambda: not listeners(db))
    (folder / "gate").write_text("go")
    assert parent.next_line() == "waited"
    code, errors = parent.end()
    assert code == 0
    assert errors.count("started anew") == 1


def test_what_does_not_go_with_it(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for arguments, told in (
        (["--processes", "2"], "--reload looks after one process"),
        (["--once"], "there is nothing to --reload"),
    ):
        assert_error(in_process(capsys, "run", "jobs:queue", "--reload", *arguments), 2, told)
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    done = graphile("run", "jobs:queue", "--reload", cwd=folder, more={"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})
    assert_error(done, 69, "--reload needs watchfiles: pip install 'graphile-worker-py[reload]'")


def test_a_file_may_ask_for_it_and_once_does_not_mind(folder: Path, migrated_url: str, queue: Queue) -> None:
    (folder / "graphile-worker-py.toml").write_text("reload = true\ntarget = 'jobs:queue'\n")
    queue.add_job("note", 1)
    done = graphile("run", "--once", "--database", migrated_url, cwd=folder)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "note 1")
    done = graphile("run", "--no-reload", "--print-config", cwd=folder)
    assert "reload = false  # command line" in done.stdout
