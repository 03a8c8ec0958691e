"""Settings of `run`: from a file, from the environment and from options, and what is wrong with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, assert_error, graphile, in_process
from plain_sql import eventually

from graphile_worker_py import Queue
from graphile_worker_py.cli._configuration import masked

Start = Callable[..., Daemon]
OWN, PROJECT = "graphile-worker-py.toml", "pyproject.toml"
Shown = Callable[..., dict[str, str]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shown:
    """Return a function that runs --print-config in an empty folder, and returns each line by its setting."""
    monkeypatch.chdir(tmp_path)

    def show(*arguments: str) -> dict[str, str]:
        done = in_process(capsys, "run", *arguments, "--print-config")
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.removeprefix("# ") for line in done.stdout.splitlines()[1:]]
        return {line.split()[0]: line for line in lines}

    return show


def test_each_setting_comes_from_the_strongest_place(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown()["grace"] == "grace = 30.0  # default"
    assert shown()["target"] == "target is not set"
    Path(PROJECT).write_text("[tool.graphile-worker-py]\ngrace = 1\nconcurrency = 1\ntarget = 'jobs:queue'\n")
    assert shown()["grace"] == "grace = 1.0  # pyproject.toml"
    Path(OWN).write_text("grace = 2.5\nforbidden-flag = ['a b', 'c']\n")
    assert shown()["concurrency"] == "concurrency = 8  # default"  # one file counts, and no other
    assert shown("--config", PROJECT)["concurrency"] == "concurrency = 1  # pyproject.toml"
    assert shown()["forbidden-flag"] == 'forbidden-flag = ["a b", "c"]  # graphile-worker-py.toml'
    monkeypatch.setenv("GRAPHILE_WORKER_GRACE", "3")
    monkeypatch.setenv("GRAPHILE_WORKER_TARGET", "other:queue")
    monkeypatch.setenv("GRAPHILE_WORKER_FORBIDDEN_FLAG", "d e")
    assert shown()["grace"] == "grace = 3.0  # environment: GRAPHILE_WORKER_GRACE"
    assert shown()["target"] == 'target = "other:queue"  # environment: GRAPHILE_WORKER_TARGET'
    assert shown()["forbidden-flag"].startswith('forbidden-flag = ["d", "e"]')
    assert shown("mine:queue", "--grace", "4")["grace"] == "grace = 4.0  # command line"
    assert shown("mine:queue")["target"] == 'target = "mine:queue"  # command line'


def test_what_is_shown_can_be_pasted(shown: Shown, tmp_path: Path) -> None:
    odd = 'a "b" \\ \t\x7f ü\U0001f600'
    lines = shown("--schema", odd, "--forbidden-flag", odd, "--grace", "1e-7", "--listen", "off", "--history", "7d")
    assert lines["listen"] == 'listen = "off"  # command line'
    text = "\n".join(line for line in lines.values() if " is not set" not in line)
    Path(OWN).write_text(text, "utf-8")
    pasted = {key: line.rpartition("  #")[0] for key, line in shown().items()}
    assert pasted == {key: line.rpartition("  #")[0] for key, line in lines.items()}


def test_variables_that_were_there_before_go_before_the_file(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(OWN).write_text("database = 'host=of-the-file password=hunter2'\nschema = 'of_the_file'\n")
    assert shown()["database"] == 'database = "password=*** host=of-the-file"  # graphile-worker-py.toml'
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@elsewhere/app")
    assert shown()["database"].endswith('host=elsewhere"  # environment: DATABASE_URL')
    assert shown("--database", "host=mine")["database"] == 'database = "host=mine"  # command line'
    assert shown()["schema"] == 'schema = "of_the_file"  # graphile-worker-py.toml'
    Path(OWN).unlink()
    said = shown()["database"]
    assert said.startswith("database is not set: as the queue says, or else DATABASE_URL, which is ")
    assert "elsewhere" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("postgresql://me@host/app", "postgresql://me@host/app"),
        ("postgresql:///app?password=hunter2", "password=*** dbname=app"),
        ("host=a sslpassword=hunter2", "host=a sslpassword=***"),
        ("postgresql://me:hun@ter2@host/app", "***"),
        ("postgresql://me:1234/hunter2@host/app", "***"),
        ("off", "off"),
        ("postgres//hunter2", "***"),
        ("", ""),
    ],
)
def test_secrets_are_masked(conninfo: str, expected: str) -> None:
    assert masked(conninfo) == expected


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (OWN, "concurency = 4", f"{OWN}: there is no setting 'concurency'; did you mean 'concurrency'?"),
        (OWN, "poll_interval = 4", "'poll_interval'; did you mean 'poll-interval'?"),
        (OWN, "once = true", "there is no setting 'once'; there are concurrency, crontab, database"),
        (OWN, "[tool.graphile-worker-py]", f"[tool.graphile-worker-py] is for {PROJECT}, here the keys stand alone"),
        (OWN, "concurrency = '4'", f"{OWN}: concurrency: expected a whole number, got a string"),
        (OWN, "concurrency = true", "concurrency: expected a whole number, got true or false"),
        (OWN, "grace = 2030-01-01", "grace: expected a number, got a date or a time"),
        (OWN, "target = ['a:b']", "target: expected a string, got a list"),
        (OWN, "forbidden-flag = 'a'", "forbidden-flag: expected a list of strings, got a string"),
        (OWN, "forbidden-flag = [1]", "forbidden-flag: expected a list of strings, got a list"),
        (OWN, "processes = 0", f"Invalid value for 'processes' ({OWN}): 0 is not in the range"),
        (OWN, "log-level = 'loud'", f"Invalid value for 'log-level' ({OWN}): 'loud'"),
        (OWN, "target = 'jobs.py:queue'", f"Invalid value for 'target' ({OWN}): expected the name of a module"),
        (OWN, "history = 'long'", f"Invalid value for 'history' ({OWN}): expected a time such as 12h"),
        (OWN, "crontab = ''", f"Invalid value for 'crontab' ({OWN}): is empty"),
        (OWN, "grace = x", f"{OWN} is not TOML: Invalid value (at line 1, column 9)"),
        (OWN, "# \udcff", f"{OWN}: not UTF-8 at byte 2"),
        (PROJECT, "[tool.graphile-worker-py]\nx = 1", f"{PROJECT}: there is no setting 'x'"),
        (PROJECT, "[tool.graphile_worker_py]", "[tool.graphile_worker_py] is called [tool.graphile-worker-py]"),
        (PROJECT, "[tool]\ngraphile-worker-py = 3", "graphile-worker-py is no table"),
    ],
)
def test_mistakes_in_a_file(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: str,
    text: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(text, "utf-8", "surrogateescape")
    assert_error(in_process(capsys, "run"), 2, says)


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        (["--config", "missing.toml"], {}, "cannot read missing.toml: No such file"),
        (["--config", "."], {}, "cannot read .: Is a directory"),
        (["--config", PROJECT], {}, "there is no table [tool.graphile-worker-py] in it"),
        ([], {"CONFIG": "missing.toml"}, "cannot read missing.toml"),
        ([], {"CONCURRENCY": "many"}, "'concurrency' (environment: GRAPHILE_WORKER_CONCURRENCY): 'many' is not"),
        ([], {"TARGET": "jobs"}, "'target' (environment: GRAPHILE_WORKER_TARGET): expected module:attribute"),
        (["--once", "--crontab", "x", "a:b"], {}, "--once runs what is ready and ends, so it follows no --crontab"),
    ],
)
def test_mistakes_elsewhere(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    more: dict[str, str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(PROJECT).write_text("[tool.other]\n")
    for name, value in more.items():
        monkeypatch.setenv(f"GRAPHILE_WORKER_{name}", value)
    assert_error(in_process(capsys, "run", *arguments), 2, says)


def test_a_worker_runs_by_its_file_alone(folder: Path, migrated_url: str, queue: Queue) -> None:
    text = f"target = 'jobs:queue'\ndatabase = '''{migrated_url}'''\ncrontab = 'missing'\nlog-level = 'warning'\n"
    (folder / OWN).write_text(text)
    queue.add_job("note", 1)
    wrong = ["CONCURENCY", "DATABASE", "DATABASE_URL", "SERVICE_HOST"]
    more = {f"GRAPHILE_WORKER_{name}": "2" for name in wrong}
    done = graphile("run", "--once", cwd=folder, more=more)
    assert done.returncode == 0
    assert done.stdout.startswith("note 1\n1 completed")
    said = [line.partition(": ")[2] for line in done.stderr.splitlines()]
    assert said == [
        "the variable GRAPHILE_WORKER_CONCURENCY is not heeded: did you mean GRAPHILE_WORKER_CONCURRENCY?",
        "the variable GRAPHILE_WORKER_DATABASE is not heeded: did you mean DATABASE_URL?",
        "the variable GRAPHILE_WORKER_DATABASE_URL is not heeded: did you mean DATABASE_URL?",
    ]


def test_all_processes_have_the_settings_their_parent_has_read(
    folder: Path, migrated_url: str, db: psycopg.Connection, own_daemon: Start
) -> None:
    text = "target = 'jobs:queue'\nprocesses = 2\nconcurrency = 3\nlog-level = 'warning'\n"
    (folder / PROJECT).write_text(f"[tool.graphile-worker-py]\n{text}database = '''{migrated_url}'''\n")
    parent = own_daemon()
    living = "select pid, concurrency from graphile_worker._private_py_pools order by pid"
    eventually(lambda: len(db.execute(living).fetchall()) == 2)
    before = dict(db.execute(living).fetchall())
    (folder / PROJECT).write_text("[tool.graphile-worker-py]\nconcurrency = 'broken'\n")
    os.kill(min(before), signal.SIGKILL)
    eventually(lambda: len(db.execute(living).fetchall()) == 3)  # the dead one is not found out yet
    assert {concurrency for _, concurrency in db.execute(living).fetchall()} == {3}
    parent.signal(signal.SIGTERM)
    code, errors = parent.end()
    assert code == 0
    assert "ended with -9" in errors
