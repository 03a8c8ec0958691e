"""The command doctor, as people and programs meet it."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import psycopg
from command_line import assert_error, graphile
from terminal import on_a_terminal

from graphile_worker_py import Queue
from graphile_worker_py.doctor import CHECKS

FOR_TESTS = ["--skip", "durability", "--skip", "synchronous-commit"]  # whatever this server is


def test_what_is_found_is_said_the_worst_first(
    folder: Path, migrated_url: str, queue: Queue, db: psycopg.Connection
) -> None:
    queue.add_job("strange\x1b[2J", {"iban": "DE1234"}, run_at=timedelta(hours=1))
    db.execute("alter table graphile_worker._private_jobs set (autovacuum_enabled = off)")
    more = {"DATABASE_URL": migrated_url}
    done = graphile("doctor", "jobs:queue", *FOR_TESTS, cwd=folder, more=more)
    assert (done.returncode, done.stderr) == (1, "")
    levels = re.findall(r"(?m)^(problem|warning|note)  [a-z-]+$", done.stdout)
    assert levels == sorted(levels, key=["problem", "warning", "note"].index)
    assert "    alter table graphile_worker._private_jobs reset (autovacuum_enabled);\n" in done.stdout
    assert "tasks that have no handler here: strange\\x1b[2J\n" in done.stdout
    assert re.search(r"\n\n1 problem, 1 warning, \d notes; \d+ checks found nothing\.\n$", done.stdout)
    assert "DE1234" not in done.stdout
    db.execute("alter table graphile_worker._private_jobs reset (autovacuum_enabled)")
    (folder / "programs").mkdir()
    program = folder / "programs" / "strange"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    queue.complete_jobs([1])
    queue.add_job("strange")
    done = graphile("doctor", "-v", "--tasks", "programs", "--listen", "off", *FOR_TESTS, cwd=folder, more=more)
    assert done.returncode == 0
    assert "\nok  unknown-tasks: all jobs that wait are of tasks that have a handler here\n" in done.stdout
    assert "\nok  notifications: not tried: workers are to poll\n" in done.stdout


def test_json_is_a_finding_a_line(migrated_url: str) -> None:
    done = graphile("doctor", "--json", "--database", migrated_url, *FOR_TESTS)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(dict.fromkeys(finding["check"] for finding in found)) == [
        check for check in CHECKS if check not in FOR_TESTS
    ]
    assert all(finding.keys() == {"check", "level", "what", "do", "sql"} for finding in found)


def test_a_narrow_terminal(migrated_url: str) -> None:
    code, shown = on_a_terminal("doctor", "--database", migrated_url, *FOR_TESTS, columns=40, NO_COLOR="1")
    assert code == 0
    lines = [line for line in shown.splitlines() if not line.startswith("    ")]  # statements are not broken
    assert max(map(len, lines)) <= 40
    assert "\x1b[36mnote" in on_a_terminal("doctor", "--database", migrated_url, *FOR_TESTS)[1]


def test_what_goes_wrong_is_a_line(folder: Path, database_url: str) -> None:
    assert_error(graphile("doctor", "--skip", "nothing"), 2, "'nothing' is not one of", "'index-bloat'")
    assert_error(graphile("doctor", "--database", "host=127.0.0.1 port=1 password=see-cret"), 3, "cannot reach")
    assert_error(graphile("doctor", "jobs:nothing", cwd=folder), 69, "it has queue, tasks")
    done = graphile("doctor", "--database", database_url, *FOR_TESTS)
    assert done.returncode == 1
    assert (
        "problem  schema\n  schema 'graphile_worker' is not installed in this database\n  Run queue.migrate()"
        in done.stdout
    )
