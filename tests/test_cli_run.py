"""The command line as its users meet it: workers, what they run and how they end."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, assert_error, graphile, in_process, listeners, locks
from plain_sql import eventually
from psycopg import sql

from graphile_worker_py import Queue

Start = Callable[..., Daemon]


# run: what to run


@pytest.mark.parametrize("target", ["jobs:queue", "jobs:jobs.queue", "jobs:tasks", "package.inner:queue"])
def test_run_once_prints_a_summary(folder: Path, migrated_url: str, queue: Queue, target: str) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "inner.py").write_text("from jobs import queue")
    queue.add_job("note", {"n": 1})
    done = graphile("run", target, "--once", "--log-level", "error", "-c", "2", "--database", migrated_url, cwd=folder)
    summary = "1 completed, 0 failed and will be tried again, 0 failed for good"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"note {{'n': 1}}\n{summary}\n", "")


def test_run_once_fails_if_jobs_failed_for_good(folder: Path, migrated_url: str, queue: Queue) -> None:
    more = {"DATABASE_URL": migrated_url}
    queue.add_job("fail_once")
    done = graphile("run", "jobs:queue", "--once", cwd=folder, more=more)
    assert done.returncode == 0
    assert done.stdout.endswith("0 completed, 1 failed and will be tried again, 0 failed for good\n")
    assert "WARNING graphile_worker_py" in done.stderr
    queue.add_job("fail", max_attempts=1)
    done = graphile("run", "jobs:queue", "--once", cwd=folder, more=more)
    assert done.returncode == 1
    assert done.stdout.endswith("0 completed, 0 failed and will be tried again, 1 failed for good\n")


def test_run_leaves_forbidden_flags_alone(folder: Path, migrated_url: str, queue: Queue) -> None:
    for flag in ("a", "b", "c"):
        queue.add_job("note", flag, flags=[flag])
    flags = ["--forbidden-flag", "a", "--forbidden-flag", "b"]
    done = graphile("run", "jobs:queue", "--once", *flags, "--database", migrated_url, cwd=folder)
    assert done.stdout.splitlines()[0] == "note c"
    assert len(queue.jobs()) == 2


def test_a_schema_alone_moves_the_queue_within_its_own_database(folder: Path, migrated_url: str) -> None:
    with Queue(migrated_url, schema="other") as other:
        other.migrate()
        other.add_job("note", "found")
    (folder / "own.py").write_text(f"import jobs\njobs.queue.point_at({migrated_url!r})\nqueue = jobs.queue\n")
    more = {"DATABASE_URL": "host=nowhere.invalid"}
    done = graphile("run", "own:queue", "--once", "--schema", "other", cwd=folder, more=more)
    assert done.stdout.splitlines()[0] == "note found"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere:queue", ["no module 'nowhere'", "here ("]),
        ("jobs.inner:queue", ["no module 'jobs.inner'"]),
        ("jobs:nothing", ["no attribute 'nothing'", "it has queue, tasks"]),
        ("jobs:queue.nothing", ["no attribute 'queue.nothing'"]),
        ("jobs:number", ["jobs:number is of type int, expected a Queue"]),
        ("broken:queue", ["imports 'no_such_module'", "broken.py, line 1"]),
        ("syntax:queue", ["cannot be imported", "syntax.py, line 2"]),
        ("raises:queue", ["ZeroDivisionError: division by zero", "raises.py, line 3"]),
        ("exits:queue", ["SystemExit: 5", "exits.py, line 1"]),
        ("lacks:queue", ["ImportError: cannot import name 'nothing'", "lacks.py, line 1"]),
        ("empty:queue", ["no task is registered"]),
        ("twice:queue", ["DuplicateTask: task 'note' has a handler already", "twice.py, line 2"]),
        ("nul:queue", ["null bytes"]),
    ],
)
def test_what_cannot_be_run(folder: Path, migrated_url: str, target: str, says: list[str]) -> None:
    modules = {
        "broken": "import no_such_module",
        "syntax": "x = 1\ndef (:\n",
        "raises": "def f():\n\n    1 / 0\nf()\n",
        "exits": "raise SystemExit(5)",
        "lacks": "from jobs import nothing",
        "twice": "from jobs import queue\nqueue.task('note')(print)",
        "nul": "\0",
        "empty": "from graphile_worker_py import Queue\nqueue = Queue()",
    }
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    done = graphile("run", target, "--database", migrated_url, cwd=folder)
    assert_error(done, 69, *says)
    assert "importlib" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jobs"], "expected module:attribute"),
        (["jobs:"], "expected module:attribute"),
        ([":queue"], "expected module:attribute"),
        ([".jobs:queue"], "expected module:attribute"),
        (["jobs.py:queue"], "leave out the .py"),
        (["folder/jobs:queue"], "expected module:attribute"),
        (["jobs:queue", "-c", "abc"], "'abc' is not a valid integer."),
        (["jobs:queue", "--log-level", "loud"], "'loud'"),
    ],
)
def test_how_run_is_not_called(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert_error(in_process(capsys, "run", *arguments), 2, says)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("-c", "0", "concurrency: expected 1 to 10000, got 0"),
        ("--poll-interval", "0", "poll_interval: expected 0.001 to 86400 seconds, got 0.0"),
        ("--poll-interval", "nan", "poll_interval: expected 0.001 to 86400 seconds, got nan"),
        ("--grace", "-1", "grace: expected 0 to 86400 seconds, got -1.0"),
        ("--grace", "inf", "grace: expected 0 to 86400 seconds, got inf"),
    ],
)
def test_numbers_a_worker_does_not_take(folder: Path, option: str, value: str, says: str) -> None:
    assert_error(graphile("run", "jobs:queue", option, value, cwd=folder), 2, says)


def test_a_module_that_needs_the_database_when_it_is_imported(folder: Path) -> None:
    (folder / "eager.py").write_text("from jobs import queue\nqueue.migrate()\n")
    done = graphile("run", "eager:queue", cwd=folder, more={"DATABASE_URL": "host=127.0.0.1 port=1"})
    assert_error(done, 3, "Connection refused")


# run: the daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_the_running_job_finish(
    daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection, number: signal.Signals
) -> None:
    queue.add_job("wait", str(folder / "gate"))
    worker = daemon()
    assert worker.next_line() == "waiting"
    eventually(lambda: listeners(db))
    worker.signal(number)
    eventually(lambda: not listeners(db))
    assert worker.is_running
    (folder / "gate").write_text("go")
    assert worker.next_line() == "waited"
    code, errors = worker.end()
    assert code == 0
    assert "Traceback" not in errors
    assert locks(db) == []


def test_an_idle_daemon_runs_what_is_added_and_stops(daemon: Start, queue: Queue, db: psycopg.Connection) -> None:
    worker = daemon("--poll-interval", "3600")
    eventually(lambda: listeners(db))
    queue.add_job("note", 1)
    assert worker.next_line() == "note 1"
    worker.signal(signal.SIGTERM)
    code, errors = worker.end()
    assert code == 0
    assert re.search(r"(?m)^\S+ \S+ INFO graphile_worker_py\S*: pool-\S+ works on ", errors)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stuck_handler_is_left_behind_and_its_job_given_back(
    daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection, signals: int
) -> None:
    queue.add_job("wait", str(folder / "gate"), queue_name="serial")
    worker = daemon("--grace", "0.2" if signals == 1 else "3600")
    assert worker.next_line() == "waiting"
    eventually(lambda: listeners(db))
    assert locks(db) == [(True, 1)]
    worker.signal(signal.SIGTERM)
    if signals == 2:
        eventually(lambda: not listeners(db))
        assert worker.is_running
        worker.signal(signal.SIGTERM)
    code, errors = worker.end()
    assert code == 75
    assert "given back while their handlers still ran: 1 (wait)" in errors
    assert locks(db) == [(False, 0)]
    (folder / "gate").unlink()
    (folder / "gate").write_text("open")  # a plain file now, so nobody waits
    queue.add_job("note", 2, queue_name="serial")
    successor = daemon("--once")
    assert [successor.next_line() for _ in range(3)] == ["waiting", "waited", "note 2"]


def test_run_once_is_stopped_too(daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("wait", str(folder / "gate"))
    worker = daemon("--once", "--grace", "0")
    assert worker.next_line() == "waiting"
    worker.signal(signal.SIGTERM)
    code, _ = worker.end()
    assert code == 75
    assert locks(db) == [(False, 0)]


@pytest.mark.parametrize("stuck", [False, True])
def test_a_breaking_migration_ends_the_daemon(
    daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection, stuck: bool
) -> None:
    worker = daemon("--grace", "0", "--log-level", "error")
    eventually(lambda: listeners(db))
    if stuck:
        queue.add_job("wait", str(folder / "gate"))
        assert worker.next_line() == "waiting"
    told = json.dumps({"migrationNumber": 21, "breaking": True})
    db.execute(sql.SQL('notify "worker:migrate", {}').format(told))
    code, errors = worker.end()
    assert code == 57
    assert [line for line in errors.splitlines() if line.startswith("Error: ")] == [
        "Error: the schema was changed by breaking migration 21, which this version does not know: "
        "upgrade graphile-worker-py"
    ]
    assert "Traceback" not in errors
    assert locks(db) == ([(False, 0)] if stuck else [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_a_slow_import_is_clean(daemon: Start, folder: Path, number: signal.Signals) -> None:
    (folder / "slow.py").write_text("print('importing', flush=True)\nopen('gate').read()\n")
    worker = daemon(target="slow:queue")
    assert worker.next_line() == "importing"
    worker.signal(number)
    assert worker.end() == (0, "")
