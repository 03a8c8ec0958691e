"""add-many: a job for each line, all or none; ids on standard output and nothing else, and a meter on a terminal."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from command_line import assert_error, closed_pipe, graphile
from plain_sql import eventually
from terminal import terminal

from graphile_worker_py import Queue

Database = psycopg.Connection


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Return a file of 4,500 payloads, with empty lines between some of them."""
    path = tmp_path / "payloads.jsonl"
    path.write_text("\ufeff" + "".join(f'{{"n": {n}}}\n' + "\n  \n" * (n % 1000 == 0) for n in range(4500)), "utf-8")
    return path


def payloads(db: Database) -> list[str]:
    query = "select payload ->> 'n' from graphile_worker._private_jobs order by id"
    return [payload for (payload,) in db.execute(query).fetchall()]


def test_a_job_for_each_line_and_an_id_for_each_job(lines: Path, migrated_url: str, db: Database) -> None:
    more = {"DATABASE_URL": migrated_url}
    done = graphile("add-many", "task", str(lines), more=more)
    assert (done.returncode, done.stderr) == (0, "")
    ids = [id for (id,) in db.execute("select id from graphile_worker.jobs order by id").fetchall()]
    assert [int(line) for line in done.stdout.splitlines()] == ids
    assert payloads(db) == [str(n) for n in range(4500)]
    options = ["--queue-name", "q", "--priority", "-3", "--max-attempts", "7", "--flag", "slow", "--flag", "big"]
    for source in ([], ["-"]):
        done = graphile("add-many", "other", *source, *options, "--run-at", "1h", input='[1]\n{"a": "ä"}', more=more)
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)
    with Queue(migrated_url) as queue:
        first, second, *_ = (queue.job(job.id) for job in queue.jobs(task="other").items)
    assert first is not None
    assert second is not None
    assert (first.payload, second.payload) == ([1], {"a": "ä"})
    assert (first.queue_name, first.priority, first.max_attempts, set(first.flags)) == ("q", -3, 7, {"slow", "big"})
    assert (first.run_at - first.created_at).total_seconds() == 3600


def test_without_ids_or_lines_nothing_is_printed(lines: Path, migrated_url: str, db: Database) -> None:
    for arguments, text in (([str(lines), "--no-ids"], ""), ([], ""), ([], "\n \n")):
        done = graphile("add-many", "task", *arguments, "--database", migrated_url, input=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(payloads(db)) == 4500


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"secret": 1', "line 4503: not JSON: Expecting ',' delimiter at column 13"),
        (b'{"secret": "\xff"}', "line 4503: not UTF-8 at byte 12"),
        (b'{"secret": "\\u0000"}', "line 4503: payload.secret: holds a NUL character; remove it"),
        (b"NaN", "line 4503: payload: nan is not JSON"),
        (b"1" * 5000, "line 4503: holds an integer of more digits than Python reads"),
        (b"[" * 100_000, "line 4503: nested too deeply"),
        (b'{"secret": 1}{}', "line 4503: not JSON: Extra data at column 14"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_line_is_named_and_nothing_is_added(
    lines: Path, migrated_url: str, db: Database, line: bytes, message: str
) -> None:
    before = lines.read_bytes()
    lines.write_bytes(before.rstrip(b"\n \t") + b"\n\n\n\n\n" + line + b"\n{}\n")
    number = lines.read_bytes().split(b"\n").index(line) + 1
    done = graphile("add-many", "task", str(lines), "--database", migrated_url)
    assert_error(done, 2, message.replace("4503", str(number)))
    assert "secret" not in done.stderr.replace("payload.secret", "")
    assert payloads(db) == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["task", "no such file"], 2, "cannot read no such file: No such file or directory"),
        (["task", "."], 2, "cannot read .: Is a directory"),
        (["task", "--priority", "40000"], 2, "priority: expected -32768 to 32767"),
        (["x" * 200], 2, "identifier: expected 1 to 128 characters"),
        (["task", "--schema", "not there"], 4, "'not there' is not installed"),
        (["task", "--database", "host=127.0.0.1 port=1"], 3, "cannot reach the database"),
        ([], 2, "Missing argument 'TASK'"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], code: int, text: str, migrated_url: str) -> None:
    assert_error(graphile("add-many", *arguments, input="{}\n", more={"DATABASE_URL": migrated_url}), code, text)


def test_ids_that_nobody_reads_are_told_of(migrated_url: str, db: Database) -> None:
    with closed_pipe() as nowhere:
        done = graphile("add-many", "task", "--database", migrated_url, input='{"n": 1}\n{"n": 2}\n', stdout=nowhere)
    assert_error(done, 1, "2 jobs were added, but not all of their ids could be printed")
    assert payloads(db) == ["1", "2"]


def test_a_terminal_shows_how_far_it_is_and_takes_lines(lines: Path, migrated_url: str, db: Database) -> None:
    with terminal("add-many", "task", str(lines), "--no-ids", "--database", migrated_url, columns=40) as screen:
        code, shown = screen.close()
    assert code == 0
    drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown))
    assert [found[1] for line in drawn if (found := re.fullmatch(r"━+ ([\d,]+) jobs +[\d,]+/s *", line))][-1] == "4,500"
    assert max(map(len, drawn)) <= 40
    with terminal("add-many", "task", "--database", migrated_url) as screen:
        screen.wait_for("Ctrl-D ends them:")
        screen.type('{"n": "typed"}\n')
        screen.type("\x04")
        code, shown = screen.close()
    assert (code, payloads(db)[4500:]) == (0, ["typed"])
    assert shown.endswith("4501\n")


def test_an_interrupt_adds_nothing(migrated_url: str, db: Database) -> None:
    with terminal("add-many", "task", "--database", migrated_url) as screen:
        screen.wait_for("Ctrl-D ends them:")
        screen.type('{"n": 1}\n')
        screen.signal(signal.SIGINT)
        assert screen.close()[0] == 130
    assert payloads(db) == []


def test_a_connection_that_is_killed_adds_nothing(migrated_url: str, db: Database, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lines")
    arguments = ("add-many", "task", str(tmp_path / "lines"), "--database", migrated_url)
    kill = """
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and query like '%add_jobs%' and pid <> pg_backend_pid()
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(graphile, *arguments)
        with (tmp_path / "lines").open("w") as pipe:
            pipe.writelines(f'{{"n": {n}}}\n' for n in range(5000))
            pipe.flush()
            eventually(lambda: db.execute(kill).fetchall())
        assert_error(done.result(30), 3, "cannot reach the database")
    assert payloads(db) == []
