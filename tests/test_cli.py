"""The command line as its users meet it: help, migrate and add, and what each error ends with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click
import psycopg
import pytest
from command_line import (
    COMMAND,
    ROOT,
    assert_error,
    closed_pipe,
    environment,
    graphile,
    in_process,
    locks,
    server_that_asks_for_a_password,
    with_jobs,
)

from graphile_worker_py import Queue
from graphile_worker_py.cli import COMMANDS, _options, add


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module jobs, and a named pipe called gate."""
    return with_jobs(tmp_path)


# Help and version.


@pytest.mark.parametrize("arguments", [["-h"], ["migrate", "-h"], ["add", "-h"]])
def test_help_may_be_asked_for_in_short(arguments: list[str]) -> None:
    assert graphile(*arguments).stdout == graphile(*arguments[:-1], "--help").stdout != ""


def test_no_description_is_cut() -> None:
    assert "..." not in graphile(more={"COLUMNS": "60"}).stdout.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("command", "database", "schema"),
    [
        ("add", "else DATABASE_URL, else libpq's PG* variables", "else GRAPHILE_WORKER_SCHEMA, else graphile_worker"),
        ("run", "else that of the queue", "else that of the queue"),
        ("demo", "else DATABASE_URL, else a server of its own", "else one with a random name"),
    ],
)
def test_help_says_where_each_command_finds_its_database(command: str, database: str, schema: str) -> None:
    said = " ".join(graphile(command, "--help").stdout.split())
    assert re.search(f"--database URL Connection string or URL; {re.escape(database)}", said)
    assert re.search(f"--schema NAME Schema of the tables; {schema}", said)


@pytest.mark.parametrize("arguments", [[], ["migrate"], ["add"], ["run"], ["history"], ["demo"]])
def test_help_names_every_exit_code_and_fits_into_40_columns(arguments: list[str]) -> None:
    done = graphile(*arguments, "--help", more={"COLUMNS": "40"})
    assert (done.returncode, done.stderr) == (0, "")
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 40
    codes = [int(code) for code in re.findall(r"(?m)^  (\d+) ", done.stdout.partition("Exit codes:")[2])]
    assert codes == list(_options.ExitCode) == list(_options.MEANINGS)


def test_without_a_command_the_help_is_shown() -> None:
    done = graphile()
    assert done.returncode == 2
    assert all(f"\n  {name}" in done.stdout for name in COMMANDS)


def test_version() -> None:
    assert re.fullmatch(r"graphile-worker-py, version \d+\.\d+\.\d+\n", graphile("--version").stdout)


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["--frobnicate"], ["add"], ["add", "x", "--frobnicate"], ["add", "x", "1", "2"], ["run"]],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str]) -> None:
    assert_error(graphile(*arguments), 2, "--help)")


def test_add_loads_nothing_that_it_does_not_need() -> None:
    code = "import sys, graphile_worker_py.cli.add; print({'rich', 'aiosmtpd'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment(), text=True) == "set()\n"


# migrate


def test_migrate_says_what_it_did(database_url: str) -> None:
    done = graphile("migrate", "--database", database_url)
    assert (done.returncode, done.stdout) == (0, "Schema 'graphile_worker': migrations 1 to 20 applied.\n")
    done = graphile("migrate", more={"DATABASE_URL": database_url})
    assert (done.returncode, done.stdout) == (0, "Schema 'graphile_worker': nothing to do, all is up to date.\n")


def test_migrate_prints_its_sql_without_a_database(database_url: str) -> None:
    done = graphile(
        "migrate", "--sql", more={"GRAPHILE_WORKER_SCHEMA": "Odd name", "DATABASE_URL": "host=nowhere.invalid"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(database_url) as connection:
        connection.execute(done.stdout.encode())
    with Queue(database_url, schema="Odd name") as queue:
        assert queue.add_job("x").id == 1


def test_schema_from_the_option_and_from_the_environment(database_url: str) -> None:
    graphile("migrate", "--schema", "one", "--database", database_url)
    more = {"DATABASE_URL": database_url, "GRAPHILE_WORKER_SCHEMA": "one"}
    assert graphile("add", "x", more=more).stdout == "1\n"
    assert_error(graphile("add", "x", "--schema", "two", more=more), 4, "'two'")


def test_pg_variables(migrated_url: str) -> None:
    server = psycopg.conninfo.conninfo_to_dict(migrated_url)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE", "password": "PGPASSWORD"}
    assert graphile("add", "x", more={names[name]: str(value) for name, value in server.items()}).stdout == "1\n"


# add


def test_add_prints_the_id_and_takes_every_option(migrated_url: str, queue: Queue) -> None:
    done = graphile(
        *[
            "add",
            "send",
            '{"to": "ä"}',
            "--queue-name",
            "q",
            "--run-at",
            "2030-01-31T09:00:00+02:00",
            "--priority",
            "-5",
        ],
        *["--max-attempts", "3", "--job-key", "k", "--job-key-mode", "preserve_run_at", "--flag", "a", "--flag", "b"],
        *["--database", migrated_url],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    job = queue.job(1)
    assert job is not None
    assert (job.task_identifier, job.payload, job.queue_name, job.priority) == ("send", {"to": "ä"}, "q", -5)
    assert (job.max_attempts, job.key, set(job.flags)) == (3, "k", {"a", "b"})
    assert job.run_at == datetime(2030, 1, 31, 7, tzinfo=timezone.utc)


def test_add_replaces_by_key(migrated_url: str) -> None:
    more = {"DATABASE_URL": migrated_url}
    assert [graphile("add", "x", "[1]", "--job-key", "k", more=more).stdout for _ in range(2)] == ["1\n", "1\n"]


@pytest.mark.parametrize("given", ["nothing", "argument", "input", "file", "dash"])
def test_where_the_payload_comes_from(migrated_url: str, queue: Queue, tmp_path: Path, given: str) -> None:
    (tmp_path / "payload.json").write_bytes(b'\xef\xbb\xbf{"from": "file"}')
    arguments = {"nothing": [], "argument": ["[1, 2]"], "input": ["-"], "file": ["@payload.json"], "dash": ["--", "-7"]}
    graphile("add", "x", "--database", migrated_url, *arguments[given], cwd=tmp_path, input='"piped"')
    job = queue.job(1)
    expected = {"nothing": {}, "argument": [1, 2], "input": "piped", "file": {"from": "file"}, "dash": -7}
    assert job is not None
    assert job.payload == expected[given]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (['{"password": "hunter2"'], "not JSON: Expecting ',' delimiter at line 1, column 23"),
        (["hunter2"], "not JSON"),
        ([""], "not JSON"),
        (["NaN"], "payload"),
        (["9" * 5000], "more digits"),
        (["[" * 100_000], "nested too deeply"),
        (['"\\ud800 hunter2"'], "lone surrogate"),
        (['"\\u0000 hunter2"'], "NUL"),
        (["@missing.json"], "missing.json: No such file"),
        (["@."], "Is a directory"),
        (["@latin1.json"], "not UTF-8 at byte 1"),
        (["--run-at", "2030-01-31T09:00:00"], "names no time zone"),
        (["--run-at", "soon"], "expected a time such as"),
        (["--run-at", ""], "expected a time such as"),
        (["--run-at", "99999999999d"], "longer"),
        (["--run-at", "9999-06-01T00:00:00Z"], "run_at"),
        (["--priority", "32768"], "priority: expected -32768 to 32767"),
        (["--priority", "high"], "--priority"),
        (["--max-attempts", "0"], "max_attempts: expected 1 to 32767"),
        (["--job-key", ""], "job_key: expected 1 to 512 characters"),
        (["--job-key-mode", "replace"], "job_key_mode: has no meaning without a job_key"),
        (["--job-key", "k", "--job-key-mode", "other"], "--job-key-mode"),
        (["--queue-name", "q" * 129], "queue_name: expected 0 to 128"),
        (["--schema", "pg_mine"], "pg_"),
        (["--database", "postgres//hunter2"], "cannot read"),
        (["--database", "postgresql://me:hunter2@0@nowhere.invalid/app"], "write @, : and / of a password as %40"),
        (["--database", "host=127.0.0.1 sslmode=hunt"], "invalid sslmode value"),
    ],
)
def test_add_refuses_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    migrated_url: str,
    db: psycopg.Connection,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.json").write_bytes(b'"\xe4"')
    done = in_process(capsys, "add", "x", "--database", migrated_url, *arguments)
    assert_error(done, 2, says)
    assert "hunter2" not in done.stderr
    assert locks(db) == []


@pytest.mark.parametrize("arguments", [["{"], ["--run-at", "soon"], ["--schema", "pg_mine"]])
def test_the_program_ends_as_it_does_in_process(arguments: list[str]) -> None:
    assert_error(graphile("add", "x", *arguments), 2)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("1.5h", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("2030-01-31T09:00:00Z", datetime(2030, 1, 31, 9, tzinfo=timezone.utc)),
        ("2030-01-31 09:00z", datetime(2030, 1, 31, 9, tzinfo=timezone.utc)),
        ("2030-01-31T09:00:00.250-01:00", datetime(2030, 1, 31, 10, 0, 0, 250_000, tzinfo=timezone.utc)),
    ],
)
def test_times_and_delays(text: str, meaning: datetime | timedelta) -> None:
    context = click.Context(add.command)
    assert add.read_run_at(context, add.command.params[0], text) == meaning


@pytest.mark.parametrize("text", ["s", "-5m", "5", "5m2h", "5 m", "1w", "٣s", "1e3s"])
def test_what_is_no_delay(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a time such as"):
        add.read_run_at(click.Context(add.command), add.command.params[0], text)


# Errors of all commands.


@pytest.mark.parametrize("command", [["migrate"], ["add", "x"], ["run", "jobs:queue"], ["history"], ["demo"]])
@pytest.mark.parametrize("option", ["--database", "--schema"])
def test_an_empty_name_is_refused(capsys: pytest.CaptureFixture[str], command: list[str], option: str) -> None:
    assert_error(in_process(capsys, *command, option, ""), 2, option, "is empty")


HINT = "(DATABASE_URL is not set; libpq's defaults were used)"


@pytest.mark.parametrize(
    ("command", "more", "expected"),
    [
        (["migrate"], {}, True),
        (["add", "x"], {"DATABASE_URL": ""}, True),
        (["run", "jobs:queue"], {}, True),
        (["run", "jobs:tasks"], {}, True),
        (["run", "away:queue"], {}, False),
        (["migrate"], {"DATABASE_URL": "host=127.0.0.1 port=1"}, False),
        (["migrate"], {"PGHOST": "127.0.0.1", "PGPORT": "1"}, False),
        (["add", "x", "--database", "host=127.0.0.1 port=1"], {}, False),
    ],
)
def test_a_forgotten_database_is_said_so(
    folder: Path, command: list[str], more: dict[str, str], expected: bool
) -> None:
    (folder / "away.py").write_text("from jobs import *\nqueue.point_at('host=127.0.0.1 port=1')")
    # A server where libpq looks by itself would be somebody else's: nothing is to reach it.
    nowhere = "def connect(*_, **__): raise psycopg.OperationalError('nobody is there')"
    (folder / "sitecustomize.py").write_text(f"import psycopg\n{nowhere}\npsycopg.Connection.connect = connect")
    done = graphile(*command, cwd=folder, more={"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **more})
    assert_error(done, 3, "cannot reach the database: nobody is there")
    assert done.stderr.rstrip().endswith(HINT) == expected


@pytest.mark.parametrize("command", [["migrate"], ["add", "x"], ["run", "jobs:queue"], ["run", "jobs:queue", "--once"]])
@pytest.mark.parametrize(
    ("database", "says"),
    [
        ("host=127.0.0.1 port=1 password=hunter2", "Connection refused"),
        ("postgresql://me:hunter2@nowhere.invalid/app", "nowhere.invalid"),
    ],
)
def test_a_server_that_cannot_be_reached(folder: Path, command: list[str], database: str, says: str) -> None:
    done = graphile(*command, "--database", database, cwd=folder)
    assert_error(done, 3, "cannot reach the database", says)
    assert "hunter2" not in done.stderr


def test_a_database_that_does_not_exist(migrated_url: str) -> None:
    done = graphile("add", "x", "--database", psycopg.conninfo.make_conninfo(migrated_url, dbname="no such"))
    assert_error(done, 3, 'database "no such" does not exist')


@pytest.mark.parametrize("command", [["migrate"], ["add", "x"], ["run", "jobs:queue"]])
def test_a_wrong_password(folder: Path, command: list[str]) -> None:
    with server_that_asks_for_a_password() as port:
        url = f"postgresql://me:hunter2@127.0.0.1:{port}/app?sslmode=disable&gssencmode=disable"
        done = graphile(*command, "--database", url, cwd=folder)
    assert_error(done, 3, "password authentication failed for user")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("command", [["add", "x"], ["run", "jobs:queue"], ["run", "jobs:queue", "--once"]])
def test_a_missing_schema(folder: Path, database_url: str, command: list[str]) -> None:
    assert_error(graphile(*command, "--database", database_url, cwd=folder), 4, "graphile-worker-py migrate")


@pytest.mark.parametrize("command", [["migrate"], ["add", "x"], ["run", "jobs:queue"]])
def test_a_role_that_may_not(folder: Path, migrated_url: str, db: psycopg.Connection, command: list[str]) -> None:
    db.execute("delete from graphile_worker.migrations where id = 20")
    other = psycopg.conninfo.make_conninfo(migrated_url, options="-c role=pg_monitor")
    done = graphile(*command, "--database", other, cwd=folder)
    assert_error(done, 69, "in schema 'graphile_worker'", "permission denied")


def test_a_role_that_may_look_and_not_claim(folder: Path, migrated_url: str, db: psycopg.Connection) -> None:
    db.execute("grant usage on schema graphile_worker to pg_monitor")
    db.execute("grant select on graphile_worker.migrations to pg_monitor")
    other = psycopg.conninfo.make_conninfo(migrated_url, options="-c role=pg_monitor")
    done = graphile("run", "jobs:queue", "--once", "--log-level", "error", "--database", other, cwd=folder)
    assert (done.returncode, "permission denied" in done.stderr) == (69, True)


def test_a_schema_that_is_too_old(folder: Path, migrated_url: str, db: psycopg.Connection) -> None:
    db.execute("delete from graphile_worker.migrations where id > 18")
    assert_error(graphile("run", "jobs:queue", "--database", migrated_url, cwd=folder), 4, "migration 18")


@pytest.mark.parametrize("command", [["migrate"], ["run", "jobs:queue"], ["run", "jobs:queue", "--once"]])
def test_a_schema_that_is_too_new(folder: Path, migrated_url: str, db: psycopg.Connection, command: list[str]) -> None:
    db.execute("insert into graphile_worker.migrations (id, breaking) values (21, true)")
    assert_error(graphile(*command, "--database", migrated_url, cwd=folder), 57, "upgrade graphile-worker-py")


def test_what_the_database_refuses(migrated_url: str, db: psycopg.Connection) -> None:
    db.execute("drop function graphile_worker.add_job cascade")
    db.execute(
        "create function graphile_worker.add_job(identifier text, payload json = null, queue_name text = null, "
        "run_at timestamptz = null, max_attempts integer = null, job_key text = null, priority integer = null, "
        "flags text[] = null, job_key_mode text = 'replace') returns graphile_worker._private_jobs "
        "language plpgsql as $$ begin raise 'not today' using detail = 'hunter2'; end $$"
    )
    done = graphile("add", "x", "--database", migrated_url)
    assert_error(done, 1, "the database refused: not today")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("arguments", [["--debug", "add", "x"], ["add", "x", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str]) -> None:
    done = graphile(*arguments, "--database", "host=127.0.0.1 port=1 password=hunter2")
    assert done.returncode == 3
    assert "Traceback (most recent call last)" in done.stderr
    assert "cannot reach the database" in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("output", ["closed", "never open", *["full"] * os.path.exists("/dev/full")])
def test_a_job_whose_id_cannot_be_printed_is_told(migrated_url: str, queue: Queue, output: str) -> None:
    add = ["add", "x", "--database", migrated_url]
    with closed_pipe() as pipe, open("/dev/full" if output == "full" else os.devnull, "w") as full:
        if output == "never open":
            command = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *add]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        else:
            done = graphile(*add, stdout=pipe if output == "closed" else full)
    assert_error(done, 1, "job 1 was added, but its id could not be printed")
    assert queue.job(1) is not None


@pytest.mark.parametrize("arguments", [["migrate"], ["migrate", "--sql"], ["--help"], ["--version"]])
def test_a_closed_standard_output(migrated_url: str, arguments: list[str]) -> None:
    with closed_pipe() as pipe:
        done = graphile(*arguments, stdout=pipe, more={"DATABASE_URL": migrated_url})
    assert_error(done, 1, "standard output")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(migrated_url: str) -> None:
    with open("/dev/full", "w") as full:
        assert_error(graphile("migrate", "--sql", stdout=full), 1, "No space left on device")
