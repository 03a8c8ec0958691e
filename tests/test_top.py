"""`top` as its users meet it: the program in a pseudo-terminal, a real worker, keys, signals and outages."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import COMMAND, DEADLINE, Daemon, assert_error, closed_pipe, environment, graphile, in_process
from drills.servers import Server, Unavailable, programs, scratch
from plain_sql import eventually
from screen import Screen
from tcp_proxy import TcpProxy

from graphile_worker_py import JobSpec, Queue

JOBS = "graphile_worker._private_jobs"
Top = Callable[..., Screen]


@pytest.fixture
def top(migrated_url: str) -> Iterator[Top]:
    """Return a function that starts `top` in a terminal."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, database: str = migrated_url, **options: Any) -> Screen:
            return stack.enter_context(
                Screen("top", "--interval", "0.2", "--database", database, *arguments, **options)
            )

        yield start


def fail(db: psycopg.Connection, id: int, error: str, *, attempts: int = 1) -> None:
    changes = "last_error = %s, attempts = %s, run_at = now() + interval '1 hour', updated_at = now()"
    db.execute(f"update {JOBS} set {changes} where id = %s", [error, attempts, id])  # noqa: S608


def end(screen: Screen, code: int, *, by: str | signal.Signals = "q") -> None:
    """End it, and check that it ends with this code and leaves the terminal as it was."""
    screen.press(by) if isinstance(by, str) else screen.signal(by)
    assert screen.end() == code
    assert screen.as_found


# Live.


def test_a_worker_is_watched(
    top: Top, queue: Queue, db: psycopg.Connection, daemon: Callable[..., Daemon], folder: Path
) -> None:
    worker = daemon("-c", "2", "--history", "1d")
    queue.add_job("wait", str(folder / "gate"))
    assert worker.next_line() == "waiting"
    for number in range(3):
        queue.add_job("note", number)
        worker.next_line()
    queue.add_job("later")
    screen = top(size=(90, 24))
    screen.until(r"primary  in \S+  out \S+  ready 1  oldest \S+  running 1  scheduled 0")
    seen = screen.until(r"(?m)^note +0 +0 +0 +0 +\S+ +\S+ms +\S+ms$")
    assert re.search(r"(?m)^wait +0 +1 +0 +0 +>\S+ +>\S+$", seen)
    assert re.search(r"(?m)^later +1 +0 +0 +0 +\S+$", seen)
    assert re.search(r"(?m)^\S+:\d+ +1 +2 +\S+ +\S+ +\S+ +0\.\d+\.0$", seen)
    queue.add_job("fail_once")
    screen.until(r"(?m)^\d\d:\d\d:\d\d +6 +1 +fail_once +ValueError: later$")
    screen.press("e")
    screen.until(r"(?m)^ +\S+ +1 +1 +wait +pool-\w+$")
    screen.press("\t\r")
    screen.until(r"(?m)^state +running$")
    (folder / "gate").write_text("go")
    screen.until("job 1 is not there: it is done")
    end(screen, 0)


def test_keys_choose_what_is_seen(top: Top, queue: Queue, db: psycopg.Connection) -> None:
    for task in ("alpha", "beta", "beta", "gamma"):
        queue.add_job(task, {"secret": "hidden"})
    fail(db, 1, "KeyError: 'a'\nTraceback of it")
    fail(db, 2, "boom", attempts=25)
    screen = top(size=(90, 24))
    screen.until(r"task, by ready .*\n(beta|gamma) +1 .*\n(beta|gamma) +1 .*\nalpha +0 +0 +1 +0")
    screen.press("sss")
    screen.until(r"task, by failed .*\nbeta +1 +0 +0 +1")
    screen.press("ssssr")
    screen.until(r"task, by task up .*\ngamma .*\nbeta .*\nalpha")
    screen.press("/be\r")
    seen = screen.until("only tasks with be")
    assert "gamma" not in seen
    assert "Traceback" not in seen
    screen.press("\x1b")
    screen.until(r"\nalpha")
    screen.press("\x1b[B\x1b[B\r")
    screen.until("only tasks with alpha")
    screen.press("\t\r")
    seen = screen.until("Traceback of it")
    assert re.search(r"(?m)^task +alpha$", seen)
    assert re.search(r"(?m)^attempts +1 of 25$", seen)
    assert "hidden" not in screen.sent.decode()
    screen.press("jj")
    screen.until(lambda: not re.search(r"(?m)^task +alpha$", screen.text))
    screen.press("\x1bo2\r")
    screen.until(r"(?m)^state +failed$")
    screen.press("o99\r")
    screen.until("job 99 is not there")
    screen.press("\x1b\x1bp")
    screen.until("PAUSED")
    queue.add_job("delta")
    screen.press("?")
    screen.until("sort tasks by the next figure")
    screen.press("?p")
    screen.until(r"\ndelta")
    assert "PAUSED" not in screen.text
    end(screen, 0)


def test_the_size_may_change_at_any_time(top: Top, queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("a_task_with_quite_a_long_name_for_a_terminal")
    fail(db, 1, "an error of one line that is much longer than any line of this terminal " * 3)
    screen = top(size=(40, 24), more={"COLUMNS": "200", "LINES": "100"})
    screen.until(r"(?m)^before +1  an error of one")
    assert max(map(len, screen.lines)) <= 40
    assert re.search(r"ready +run +wait +fail$", screen.text, re.M)
    screen.resize(120, 30)
    screen.until(r"(?m)^a_task_with_quite_a_long_name_for_a_terminal .* 0 +0 +1 +0")
    for size in ((10, 4), (1, 1), (300, 3), (80, 24)):
        screen.resize(*size)
        screen.signal(signal.SIGWINCH)
    screen.until(r"wait +fail +oldest +done/s +p95")
    end(screen, 0)


def test_what_jobs_say_does_not_reach_the_terminal(top: Top, queue: Queue, db: psycopg.Connection) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202e[red]x"
    queue.add_job(f"task {evil}", job_key=f"key {evil}")
    fail(db, 1, f"error {evil}\r\n\x9b31mTraceback {evil}")
    screen = top(size=(150, 24))
    screen.until(re.escape(r"error \x1b[2J\x1b]0;owned\x07\u202e[red]x"))
    screen.until(re.escape(r"task \x1b[2J"))
    screen.press("o1\r")
    screen.until(re.escape(r"key       key \x1b[2J"))
    screen.until(re.escape(r"\x9b31mTraceback"))
    end(screen, 0)
    for bad in ("\x1b[2J\x1b]0", "\x07", "\u202e", "\x9b"):
        assert bad not in screen.sent.decode()


def test_a_terminal_of_few_characters_is_no_error(top: Top, queue: Queue, db: psycopg.Connection) -> None:
    queue.add_job("a_task_with_a_name_that_is_cut_日本")
    fail(db, 1, "日本 " * 30)
    screen = top(size=(60, 24), more={"PYTHONIOENCODING": "latin-1"})
    screen.until(r"(?m)^before +1 +1 +a_task_with_a_nam\?  \?\? \?\?")
    end(screen, 0)


# How it ends, stops and goes on.


@pytest.mark.parametrize(
    ("by", "code"),
    [("\x03", 130), (signal.SIGINT, 130), (signal.SIGTERM, 143), ("\x1c", 143)],
    ids=["Ctrl-C", "SIGINT", "SIGTERM", "Ctrl-\\"],
)
def test_a_signal_leaves_the_terminal_as_it_was(top: Top, by: str | signal.Signals, code: int) -> None:
    screen = top()
    screen.until("primary")
    assert screen.is_taken
    end(screen, code, by=by)


def test_a_mistake_of_ours_leaves_the_terminal_as_it_was(migrated_url: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from graphile_worker_py import monitor\n"
        "look = monitor.Monitor.look\n"
        "looks = []\n"
        "def broken(self):\n"
        "    looks.append(1)\n"
        "    return look(self) if len(looks) < 3 else 1 / 0\n"
        "monitor.Monitor.look = broken\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    with Screen("top", "--interval", "0.2", "--database", migrated_url, more={"PYTHONPATH": path}) as screen:
        screen.until("primary")
        assert screen.end() == 1
        assert screen.as_found
        assert "Error: ZeroDivisionError: division by zero (--debug shows where)" in screen.text


def test_it_stops_and_goes_on_as_the_shell_says(top: Top, queue: Queue) -> None:
    screen = top(job_control=True)
    screen.until("primary")
    screen.press("\x1a")
    screen.until("stopped")
    assert screen.as_found
    queue.add_job("meanwhile")
    screen.press("fg\n")
    screen.until(r"\nmeanwhile +1")
    assert screen.is_taken
    screen.press("\x1a")
    screen.until("stopped")
    screen.press("fg\n")
    screen.until(r"\nmeanwhile +1")
    end(screen, 0)


def test_an_outage_is_told_and_outlived(
    top: Top, queue: Queue, proxy: TcpProxy, proxied_url: str, db: psycopg.Connection
) -> None:
    screen = top(database=proxied_url, size=(100, 24))
    screen.until("primary")
    proxy.refuse()
    proxy.reset()
    seen = screen.until(r"no answer since \d\d:\d\d:\d\dZ: cannot reach the database: ")
    assert "primary" in seen
    screen.press("?")
    screen.until("sort tasks by the next figure")  # keys are heeded meanwhile
    screen.press("?")
    queue.add_job("meanwhile")
    proxy.accept()
    screen.until(r"\nmeanwhile +1")
    assert "no answer" not in screen.text
    proxy.pause()  # half-open: nothing says that it is away
    screen.until("no answer since")
    end(screen, 0)


@pytest.mark.parametrize("arguments", [(), ("--once",), ("--json",)], ids=str)
def test_an_error_at_the_start_is_one_line(
    database_url: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    away = "host=127.0.0.1 port=1"
    assert_error(in_process(capsys, "top", *arguments, "--database", away), 3, "cannot reach the database")
    assert_error(in_process(capsys, "top", *arguments, "--database", database_url), 4, "graphile-worker-py migrate")
    for wrong in ("0", "soon", "1e9"):
        assert_error(in_process(capsys, "top", *arguments, "--interval", wrong), 2, "--interval", "--help)")


def test_a_table_that_is_locked_for_a_moment_is_looked_at_after_that(
    queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    queue.add_job("alpha")
    waiting = """
        select query_start from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query ~ 'pg_relation_size'
    """
    seen: set[Any] = set()
    command = [*COMMAND, "top", "--once", "--interval", "0.2", "--database", migrated_url]
    with psycopg.connect(migrated_url) as other:
        other.execute(f"lock table {JOBS}")
        with subprocess.Popen(command, text=True, env=environment(), stdout=subprocess.PIPE) as process:
            eventually(lambda: seen.update(db.execute(waiting).fetchall()) or len(seen) > 1)
            other.rollback()
            shown, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, "alpha" in shown) == (0, True)


def test_an_error_at_the_start_does_not_touch_the_terminal(top: Top, database_url: str) -> None:
    screen = top(database=database_url)
    assert screen.end() == 4
    assert screen.text.startswith("Error: schema 'graphile_worker' is not installed here")
    assert b"\x1b" not in screen.sent


# Without a terminal.


def test_without_a_terminal_it_is_a_look(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    for task in ("alpha", "beta"):
        queue.add_job(task)
    fail(db, 1, "boom\nTraceback")
    done = graphile("top", "--interval", "0.2", more={"DATABASE_URL": migrated_url})
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.sub(" +", " ", line).strip() for line in done.stdout.splitlines()]
    assert lines[1:9] == [
        "server primary",
        "in 0.0/s",
        "out 0.0/s",
        "ready 1",
        "running 0",
        "scheduled 0",
        "retrying 1",
        "failed 0",
    ]
    assert "alpha 0 0 0 1 0 - - - -" in lines
    assert "- 1 1 alpha boom" in lines
    only = graphile("top", "--once", "--task", "bet", "--interval", "0.2", "--database", migrated_url).stdout
    assert "beta" in only
    assert "alpha" not in only


def test_json_is_a_look_on_each_line(queue: Queue, proxy: TcpProxy, proxied_url: str, db: psycopg.Connection) -> None:
    queue.add_job("alpha")
    fail(db, 1, "boom")
    command = [*COMMAND, "top", "--json", "--interval", "0.2", "--database", proxied_url]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:
        assert process.stdout
        assert process.stderr
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        proxy.refuse()
        proxy.reset()
        assert process.stderr.readline().startswith("No answer: cannot reach the database")
        proxy.accept()
        assert process.stderr.readline() == "There is an answer again.\n"
        process.send_signal(signal.SIGINT)
        *_, last = process.communicate(timeout=DEADLINE)
    assert (process.returncode, last) == (130, "\nError: interrupted\n")
    assert first["rates"] == {"added": None, "removed": None, "seconds": 0.0}
    assert second["rates"]["added"] == 0
    (task,) = second["tasks"]
    assert (task["task"], task["retrying"], task["ready"]) == ("alpha", 1, 0)
    assert [failure["error"] for failure in second["errors"]] == ["boom"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", second["at"])
    once = graphile("top", "--json", "--once", "--interval", "0.2", "--database", proxied_url)
    assert json.loads(once.stdout)["rates"]["added"] == 0


def test_a_closed_pipe_ends_it(migrated_url: str) -> None:
    with closed_pipe() as pipe:
        done = graphile("top", "--json", "--database", migrated_url, stdout=pipe)
    assert_error(done, 1, "standard output was closed")
    command = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "top", "--json", "--database", migrated_url]
    never = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert_error(never, 1, "standard output is closed")


def test_a_standby_is_watched(top: Top) -> None:
    try:
        programs()
    except Unavailable as why:
        pytest.skip(str(why))
    with scratch() as folder, contextlib.ExitStack() as stack:
        primary = Server(folder / "primary")
        primary.initialize()
        stack.enter_context(primary)
        for statement in ("create role app login superuser", "create database app owner app"):
            primary.execute(statement, dbname="postgres")
        queue = stack.enter_context(Queue(primary.conninfo()))
        queue.migrate()
        standby = Server(folder / "standby")
        standby.copy_running(primary)
        stack.enter_context(standby)
        screen = top(database=standby.conninfo())
        screen.until(r"standby  in -|standby  in 0/s")
        queue.add_jobs(JobSpec("alpha") for _ in range(200))
        screen.until(r"standby  in \S*[1-9]\S*/s  out \S+  ready 200 .*(\n.*)+\nalpha +200")
        standby.promote()
        screen.until("primary  in")
        end(screen, 0)
