"""What commands print: tables on a terminal, lines in a pipe, JSON for programs, and nothing that plays with either."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import click
import psycopg
import pytest
from command_line import assert_error, closed_pipe, graphile
from terminal import on_a_terminal

from graphile_worker_py import Queue
from graphile_worker_py.cli import _output
from graphile_worker_py.jobs import JobInfo

EVIL = "\x1b[2J\x07[red]\nnext\r\u202eabc\x9b31m"
COLUMNS = (
    _output.Column("id", lambda job: job.id),
    _output.Column("task", lambda job: job.task_identifier),
    _output.Column("run at", lambda job: job.run_at),
    _output.Column("error", lambda job: job.last_error, long=True),
)


def info(id: int, task: str, error: str | None) -> JobInfo:
    return JobInfo(id, task, "", "failed", 0, 0, 1, 2, error, 0, 0, None, None, None, 0, ["a", "b"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        ("", '""'),
        ((), "-"),
        (("a", "b\n"), "a, b\\n"),
        (1234, "1234"),
        (EVIL, "\\x1b[2J\\x07[red]\\nnext\\r\\u202eabc\\x9b31m"),
        ("日本\u3000語 é", "日本\u3000語 é"),
        (datetime(1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))), "0001-02-03 02:00:00Z"),
        (timedelta(seconds=-3.21), "-3.2s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=3599.6), "1h"),
        (timedelta(days=4, hours=3, minutes=2), "4d3h"),
    ],
)
def test_values_as_people_read_them(value: object, shown: str) -> None:
    assert _output.text_of(value) == shown


def test_a_pipe_gets_a_line_for_each_row_with_nothing_cut(capsys: pytest.CaptureFixture[str]) -> None:
    _output.show([info(9, "日本", "x" * 300), info(10, "[b]t[/b]", EVIL)], COLUMNS, as_json=False)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == "id  task      run at                error"
    assert first == f" 9  日本      2000-01-01 00:00:00Z  {'x' * 300}"
    assert second == f"10  [b]t[/b]  2000-01-01 00:00:00Z  {_output.safe(EVIL)}"


def test_json_is_an_object_a_line_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    _output.show([info(9, "日本", None), info(10, "t", EVIL)], COLUMNS, as_json=True)
    _output.show_json({"payload": _output.RawJson('{"a" : [1e400,\n "ä \\" \x9b"], "a": 12345678901234567890.10}')})
    first, second, payload = capsys.readouterr().out.splitlines()
    assert all(line.isascii() and line.isprintable() for line in (first, second, payload))
    assert json.loads(first)["task_identifier"] == "日本"
    assert {"id": 10, "last_error": EVIL, "run_at": "2000-01-01T00:00:00Z"}.items() <= json.loads(second).items()
    assert json.loads(second)["flags"] == ["a", "b"]
    assert payload == '{"payload": {"a":[1e400,"\\u00e4 \\" \\u009b"],"a":12345678901234567890.10}}'


def test_an_encoding_that_lacks_a_character_gets_an_escape(migrated_url: str, queue: Queue) -> None:
    queue.add_job("日本")
    done = graphile("tasks", "--database", migrated_url, more={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, "\\u65e5\\u672c  " in done.stdout) == (0, True)


def test_an_error_may_begin_with_an_empty_line() -> None:
    errors = (None, "", "\n", "one\ntwo", "\n \n  one\ntwo")
    assert [_output.first_line(error) for error in errors] == [None, "", "", "one", "one"]


def test_fields_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    _output.show_fields({"id": 1, "last error": "a\nb\x1b", "key": None})
    assert capsys.readouterr().out == "id          1\nlast error  a\n            b\\x1b\nkey         -\n"


def test_nobody_can_be_asked_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.UsageError, match="Delete 2 jobs\\? Nobody can be asked without a terminal: add --yes"):
        _output.confirm("Delete 2 jobs?", yes=False)
    _output.confirm("Delete 2 jobs?", yes=True)
    assert capsys.readouterr() == ("", "")


# The real program, by its first two users.


@pytest.fixture
def busy(queue: Queue, db: psycopg.Connection) -> Queue:
    """Return a queue with a job in each state, tasks that have none, and names that nobody should give a task."""
    for task in ["ready", "scheduled", "running", "retrying", "failed", EVIL]:
        queue.add_job(task, run_at=timedelta(hours=task in ("scheduled", "retrying")))
    for task, change in {
        "running": "locked_at = now(), locked_by = 'w', attempts = 1",
        "retrying": "attempts = 1",
        "failed": "attempts = max_attempts",
    }.items():
        db.execute(
            f"update graphile_worker._private_jobs set {change} where task_id = "  # noqa: S608
            f"(select id from graphile_worker._private_tasks where identifier = '{task}')"
        )
    queue.complete_jobs([queue.add_job("idle").id])
    return queue


def test_tasks_in_a_pipe_and_as_json(busy: Queue, migrated_url: str) -> None:
    done = graphile("tasks", "--database", migrated_url)
    lines = [re.split(r"\s{2,}", line) for line in done.stdout.splitlines()]
    assert lines[0] == ["task", "ready", "scheduled", "running", "retrying", "failed", "oldest ready"]
    assert {row[0]: row[1:6] for row in lines[1:]} == {
        _output.safe(EVIL): ["1", "0", "0", "0", "0"],
        "failed": ["0", "0", "0", "0", "1"],
        "idle": ["0", "0", "0", "0", "0"],
        "ready": ["1", "0", "0", "0", "0"],
        "retrying": ["0", "0", "0", "1", "0"],
        "running": ["0", "0", "1", "0", "0"],
        "scheduled": ["0", "1", "0", "0", "0"],
    }
    said = [json.loads(line) for line in graphile("tasks", "--json", "--database", migrated_url).stdout.splitlines()]
    assert {task["identifier"] for task in said} == {stats.identifier for stats in busy.stats(idle=True)}
    assert [stats.identifier for stats in busy.stats(idle=True)] != [stats.identifier for stats in busy.stats()]


def test_stats_add_up(busy: Queue, migrated_url: str) -> None:
    done = graphile("stats", "--database", migrated_url)
    shown = dict(re.split(r"\s{2,}", line) for line in done.stdout.splitlines())
    assert re.fullmatch(r"[\d.]+s", shown.pop("oldest ready"))
    assert shown == {"ready": "2", "scheduled": "1", "running": "1", "retrying": "1", "failed": "1"}
    said = json.loads(graphile("stats", "--json", "--database", migrated_url).stdout)
    assert (said["ready"], len(said["tasks"]), said["tasks"][1]["failed"]) == (2, 6, 1)


@pytest.mark.parametrize(("columns", "more"), [(100, {}), (100, {"NO_COLOR": "1"}), (40, {}), (20, {"TERM": "dumb"})])
def test_on_a_terminal(busy: Queue, migrated_url: str, columns: int, more: dict[str, Any]) -> None:
    code, shown = on_a_terminal("tasks", "--database", migrated_url, columns=columns, **more)
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert code == 0
    assert all(one.isprintable() for one in plain.replace("\n", ""))
    assert max(map(len, plain.splitlines())) <= columns
    if columns == 100:
        assert re.match(r"task +ready  scheduled  running  retrying  failed  oldest ready\n", plain)
        assert ("\x1b[31m" in shown) == (not more)
    else:
        assert "\n\ntask          failed" in plain
        assert ("\x1b[" in shown) == (columns == 40)


def test_nothing_is_said_in_a_line(queue: Queue, migrated_url: str) -> None:
    done = graphile("tasks", "--database", migrated_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No task is known here yet.\n")
    assert "ready         0\n" in graphile("stats", "--database", migrated_url).stdout


@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--json"], ["stats"], ["stats", "--json"]])
def test_a_pipe_that_nobody_reads(busy: Queue, migrated_url: str, arguments: list[str]) -> None:
    with closed_pipe() as pipe:
        assert_error(graphile(*arguments, "--database", migrated_url, stdout=pipe), 1, "standard output")


@pytest.mark.parametrize(
    ("line", "offered"),
    [("j", ["jobs"]), ("jobs r", ["remove", "reschedule", "run-now"]), ("jobs list --state f", ["failed"])],
)
def test_the_shell_is_told_how_to_go_on(line: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": f"graphile-worker-py {line}", "COMP_CWORD": str(len(line.split()))}
    done = graphile(more={"_GRAPHILE_WORKER_PY_COMPLETE": "bash_complete", **words})
    assert (done.returncode, sorted(done.stdout.split())) == (0, [f"plain,{word}" for word in offered])
