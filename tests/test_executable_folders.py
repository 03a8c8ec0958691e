"""Executable tasks: which files of a folder are tasks, what is refused, and the command line's --tasks."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, assert_error, graphile, in_process, listeners, locks, with_jobs
from plain_sql import eventually
from programs import program

from graphile_worker_py import DuplicateTask, InvalidJobSpec, Queue, UnknownTask, UnsafeExecutable, executable_tasks

STRANGER = 12345  # the number of a user that is neither root nor us


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


def found(folder: Path) -> list[str]:
    return executable_tasks(folder).identifiers()


# Which files are tasks


def test_the_path_without_its_extension_is_the_identifier(folder: Path) -> None:
    for name in ("plain", "script.py", "two.dots.sh", "deep/er/in.sh", "UPPER-and_under", "0", "-dash", "a.js.sh"):
        program(folder, name, "")
    expected = ["-dash", "0", "UPPER-and_under", "a", "deep/er/in", "plain", "script", "two"]
    assert found(folder) == expected
    assert found(Path(os.path.relpath(folder))) == expected


@pytest.mark.parametrize(
    "name", [".hidden", "with space", "ümlaut", "end.", "dots..sh", "back.sh~", ".git/hook", "a.d/x", "new\nline"]
)
def test_other_names_are_passed_over(folder: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.INFO)
    program(folder, "x", "")
    program(folder, name, "")
    assert found(folder) == ["x"]
    assert f"{folder / name.split('/', maxsplit=1)[0]} is no task: its name is not one" in caplog.text


def test_files_that_cannot_be_executed_are_passed_over_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "not-by-us")  # as on a noexec mount
    program(folder, "not-by-us", "")
    program(folder, "x", "")
    program(folder, "README.md", "", mode=0o644)
    program(folder, "group-only", "", mode=0o654)
    os.mkfifo(folder / "pipe", 0o755)
    assert found(folder) == ["x"]
    warned = [record.getMessage().split(" is no task")[0] for record in caplog.records]
    assert warned == [str(folder / name) for name in ("README.md", "group-only", "not-by-us", "pipe")]


def test_the_javascript_of_nodes_worker_is_left_to_it(folder: Path) -> None:
    """It imports these, whether they may be executed or not, before anything else of the same name."""
    for name in ("a.js", "b.mjs", "c.cjs", "d.ts", "e.mts", "deep/f.js", "g.mjs", "g.py", "h.d.mjs", "x"):
        program(folder, name, "", mode=0o644 if name.startswith("g.m") else 0o755)
    assert found(folder) == ["h", "x"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(folder: Path, tmp_path: Path) -> None:
    elsewhere = program(tmp_path / "elsewhere", "y.sh", "")
    program(folder, "x", "")
    (folder / "link.sh").symlink_to(elsewhere)
    (folder / "folder").symlink_to(elsewhere.parent)
    (folder / "loop").symlink_to(folder)
    (tmp_path / "current").symlink_to(folder)
    assert found(tmp_path / "current") == ["link", "x"]


# What is refused


def test_a_folder_must_be_there_and_hold_something(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        executable_tasks(folder)
    program(folder, "README.md", "", mode=0o644)
    with pytest.raises(UnknownTask, match=r"no executable task in .*: put programs there and chmod u\+x them"):
        executable_tasks(folder)
    with pytest.raises(NotADirectoryError):
        executable_tasks(folder / "README.md")
    (folder / "broken").symlink_to(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        executable_tasks(folder)


def test_two_of_one_identifier_are_refused(queue: Queue, folder: Path) -> None:
    program(folder, "x.py", "")
    queue.task("x")(lambda payload: None)
    with pytest.raises(DuplicateTask, match="'x' has a handler already"):
        queue.include(executable_tasks(folder))
    program(folder, "x.sh", "")
    with pytest.raises(DuplicateTask, match=r"x\.py and .*x\.sh are both task 'x': rename one"):
        executable_tasks(folder)


def test_an_identifier_too_long_for_the_table_is_refused(folder: Path) -> None:
    program(folder, "/".join(["a" * 63, "b" * 64]), "")
    assert len(found(folder)) == 1
    program(folder, "/".join(["a" * 63, "b" * 65]), "")
    with pytest.raises(InvalidJobSpec, match="identifier: expected 1 to 128 characters"):
        executable_tasks(folder)


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1), timedelta(hours=4, microseconds=1)])
def test_a_time_limit_has_limits(folder: Path, timeout: timedelta) -> None:
    program(folder, "x", "")
    with pytest.raises(ValueError, match="timeout: expected more than 0 and at most 4:00:00"):
        executable_tasks(folder, timeout=timeout)
    assert len(executable_tasks(folder, timeout=timedelta(hours=4))) == 1


@pytest.mark.parametrize("name", ["tasks/deep/x", "tasks/deep", "tasks", "", "elsewhere/y", "elsewhere"])
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_others_may_write_is_refused_with_what_mends_it(tmp_path: Path, name: str, bits: int) -> None:
    home = tmp_path / "it's home"
    program(home / "elsewhere", "y", "")
    program(home / "tasks", "deep/x", "")
    home.chmod(0o755)
    (home / "tasks" / "link").symlink_to(home / "elsewhere" / "y")
    assert found(home / "tasks") == ["deep/x", "link"]
    path = home / name
    path.chmod(path.stat().st_mode | bits)
    with pytest.raises(UnsafeExecutable) as refused:
        executable_tasks(home / "tasks")
    what, _, mend = str(refused.value).partition(": run ")
    assert what == "other users may write what would be run as a task, or its folder"
    assert mend == f"chmod go-w {shlex.quote(str(path))}"
    subprocess.run(["/bin/sh", "-c", mend], check=True)
    assert found(home / "tasks") == ["deep/x", "link"]


def test_a_sticky_folder_is_safe_above_but_not_to_keep_tasks_in(tmp_path: Path) -> None:
    home = tmp_path / "home"
    program(home / "tasks", "deep/x", "")
    home.chmod(0o1777)
    assert found(home / "tasks") == ["deep/x"]
    (home / "tasks").chmod(0o1777)
    with pytest.raises(UnsafeExecutable, match="tasks"):
        executable_tasks(home / "tasks")


def test_what_is_not_run_may_be_written_by_anyone(folder: Path) -> None:
    program(folder, "x", "")
    program(folder, "notes.txt", "", mode=0o666)
    program(folder, ".hidden/y", "", mode=0o777)
    assert found(folder) == ["x"]


def test_what_another_user_owns_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(folder, "x", "")
    if os.geteuid() == 0:
        os.chown(path, STRANGER, -1)
        assert found_by(STRANGER, folder, monkeypatch) == ["x"]
        monkeypatch.undo()
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(UnsafeExecutable) as refused:
        executable_tasks(folder)
    what, _, mend = str(refused.value).partition(": run ")
    assert what == "another user owns what would be run as a task, or its folder"
    assert mend.startswith("chown root ")
    assert shlex.split(mend)[-1] == str(path)


def found_by(user: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    return found(folder)


# The command line


def test_run_works_on_a_folder(folder: Path, migrated_url: str, queue: Queue) -> None:
    program(folder, "greet.sh", "cat; echo; echo careful >&2")
    queue.add_job("greet", {"name": "you"})
    done = graphile("run", "--tasks", "tasks", "--once", "--database", migrated_url, cwd=folder.parent)
    assert (done.returncode, done.stdout[:11]) == (0, "1 completed")
    assert 'INFO graphile_worker_py.task.greet: {"payload":{"name":"you"}}\n' in done.stderr
    assert "ERROR graphile_worker_py.task.greet: careful\n" in done.stderr


@pytest.mark.parametrize("target", ["jobs:queue", "jobs:tasks"])
def test_run_works_on_a_folder_and_a_module(folder: Path, migrated_url: str, queue: Queue, target: str) -> None:
    with_jobs(folder.parent)
    program(folder, "greet", "echo hello from $GRAPHILE_WORKER_TASK_IDENTIFIER")
    for identifier in ("greet", "note"):
        queue.add_job(identifier)
    done = graphile("run", target, "--tasks", "tasks", "--once", "--database", migrated_url, cwd=folder.parent)
    assert done.stdout.splitlines() == ["note {}", "2 completed, 0 failed and will be tried again, 0 failed for good"]
    assert "hello from greet" in done.stderr


def test_how_run_is_not_called_with_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = program(folder, "x", "")
    tasks = ["run", "--tasks", str(folder)]
    assert_error(in_process(capsys, "run"), 2, "nothing to run: give MODULE:ATTRIBUTE, --tasks DIR, or both")
    assert_error(in_process(capsys, "run", "--tasks", str(folder / "nowhere")), 2, "does not exist")
    assert_error(in_process(capsys, "run", "--tasks", str(path)), 2, "is a file")
    for timeout in ("0", "-1", "nan", "14401"):
        assert_error(in_process(capsys, *tasks, "--tasks-timeout", timeout), 2, "at most 14400 seconds")
    path.chmod(0o777)
    assert_error(in_process(capsys, *tasks), 69, f"run chmod go-w {path}")
    path.chmod(0o644)
    assert_error(in_process(capsys, *tasks), 69, "no executable task in")


def test_run_refuses_a_second_handler(folder: Path, migrated_url: str) -> None:
    with_jobs(folder.parent)
    program(folder, "note", "")
    done = graphile("run", "jobs:queue", "--tasks", "tasks", "--database", migrated_url, cwd=folder.parent)
    assert_error(done, 69, "task 'note' has a handler already")


Start = Callable[..., Daemon]


@pytest.fixture
def daemon(folder: Path, migrated_url: str) -> Iterator[Start]:
    """Return a function that starts a daemon on the folder, once its programs are there."""
    started: list[Daemon] = []

    def start(*arguments: str) -> Daemon:
        started.append(Daemon(folder.parent, "--tasks", "tasks", "--database", migrated_url, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


def test_a_time_limit_is_kept(folder: Path, migrated_url: str, queue: Queue) -> None:
    program(folder, "x", "exec sleep 1000")
    job = queue.add_job("x", max_attempts=1)
    arguments = ["--tasks", "tasks", "--tasks-timeout", "0.2", "--once", "--database", migrated_url]
    assert graphile("run", *arguments, cwd=folder.parent).returncode == 1
    stored = queue.job(job.id)
    assert stored
    assert (stored.last_error or "").endswith("Process was stopped: it ran for longer than 0:00:00.200000")


@pytest.mark.parametrize("signals", [1, 2])
def test_a_daemon_that_stops_ends_its_programs_first(
    daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection, signals: int
) -> None:
    up = folder.parent / "up"
    program(folder, "x", f"touch '{up}'; exec sleep 1000")
    job = queue.add_job("x")
    worker = daemon("--grace", "0.1" if signals == 1 else "3600")
    eventually(up.exists)
    eventually(lambda: listeners(db))
    worker.signal(signal.SIGTERM)
    if signals == 2:
        eventually(lambda: not listeners(db))
        worker.signal(signal.SIGTERM)
    code, errors = worker.end()
    assert code == 0, errors
    assert locks(db) == [(False, 1)]
    stored = queue.job(job.id)
    assert stored
    assert (stored.last_error or "").endswith("Process was stopped with its worker")


def test_a_program_of_a_daemon_may_finish_within_the_grace(daemon: Start, folder: Path, queue: Queue) -> None:
    up, answer = folder.parent / "up", folder.parent / "answer"
    os.mkfifo(answer)
    program(folder, "x", f"touch '{up}'; read go < '{answer}'; exit $go")
    queue.add_job("x")
    worker = daemon()
    eventually(up.exists)
    worker.signal(signal.SIGTERM)
    answer.write_text("0\n")
    assert worker.end()[0] == 0
    assert not queue.jobs()
