"""One folder of programs, run by Node's worker and by ours: the same files are tasks, and they are given the same."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import graphile
from plain_sql import Connection, add, call, connect
from programs import DUMP, program, python_program

from graphile_worker_py import executable_tasks
from interop import node

pytestmark = pytest.mark.usefixtures("packages")

JAVASCRIPT = "#!/usr/bin/env node\nexport default () => {};\n"
RUN_AT = "2021-03-04 05:06:07.89+02"

# The name of the program, its payload, and what else add_job is given.
JOBS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("dump", '{"to": "someone"}', {}),
    "no payload": ("dump", "{}", {}),
    "options": ("dump", "{}", {"job_key": 'ключ "1"\n', "max_attempts": 3, "priority": -7, "queue_name": "q"}),
    "microseconds": ("dump", "{}", {"run_at": "2001-02-03 04:05:06.789999+00"}),
    "long ago": ("dump", "{}", {"run_at": "0099-12-31 23:59:59.9996+00"}),
    "a batch": ("dump", '[{"n": 1}, null, "ü"]', {}),
    "a text": ("dump", r'"with \"quotes\", \u2028, \\ and \ud83d\ude00"', {}),
    "numbers": ("dump", "[0, -1.5, 1e300, 9007199254740991, 2.0]", {}),
    "null": ("dump", "null", {}),
    "nested": ("deep/er/dump", '{"a": {"b": [[], {}]}}', {}),
    "a link": ("link", "{}", {}),
}

TASKS = (
    *("plain", "script.py", "a.b.c", "a-b_C9", "0", "deep/er/in.sh", "-dash", "x.js.sh", "y.d.mjs", "index.sh"),
    "f.json",
)
NO_TASKS = (
    *(".hidden", "with space", "ümlaut", "end.", "dots..sh", "old.sh~", "a.d/x", "new\nline", "b c/x", ".git/x"),
    "@.sh",
)


@pytest.fixture
def db(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url) as connection:
        yield connection


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Return a folder to run workers in, with tasks/ in it."""
    tasks = tmp_path / "tasks"
    python_program(tasks, "dump.py", DUMP)
    python_program(tasks, "deep/er/dump", DUMP)
    (tasks / "link").symlink_to(tasks / "dump.py")
    return tmp_path


def run_theirs(version: str, room: Path, url: str) -> None:
    environment = node.environment(version, url, {"DUMP": str(room / "dump")})
    command = [*node.cli(version), "--once"]
    done = subprocess.run(command, cwd=room, env=environment, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def run_ours(room: Path, url: str) -> None:
    more = {"DUMP": str(room / "dump")}
    done = graphile("run", "--tasks", "tasks", "--once", "--database", url, cwd=room, more=more)
    assert done.returncode == 0, done.stderr


def given(room: Path, number: int) -> dict[str, Any]:
    """Return what a program was given, without the number of the job, and forget it."""
    dump = json.loads((room / "dump").read_text())
    (room / "dump").unlink()
    dump["environment"].pop("GRAPHILE_WORKER_PACKAGE", None)  # what the tests tell Node
    assert dump["environment"].pop("GRAPHILE_WORKER_JOB_ID") == str(number)
    assert (dump["input"][:11], dump["input"][-1]) == ('{"payload":', "}")
    return {**dump, "input": json.loads(dump["input"])}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("version", node.LIVING)
def test_a_program_is_given_the_same_by_both(
    version: str, job: str, room: Path, db: Connection, migrated_url: str
) -> None:
    name, payload, options = JOBS[job]
    arguments = {"payload": payload, "run_at": RUN_AT, **options}
    first = add(db, name, **arguments)["id"]
    run_theirs(version, room, migrated_url)
    theirs = given(room, first)
    second = add(db, name, **arguments)["id"]
    run_ours(room, migrated_url)
    ours = given(room, second)
    assert ours == theirs
    assert (ours["folder"], ours["arguments"]) == (os.path.realpath(room), [])
    assert ours["input"] == {"payload": json.loads(payload)}
    assert not db.execute("select from graphile_worker.jobs").fetchall()


@pytest.mark.parametrize("version", node.LIVING)
def test_a_failed_attempt_leaves_the_same_behind(version: str, room: Path, db: Connection, migrated_url: str) -> None:
    python_program(room / "tasks", "fail", f"{DUMP}\nsys.exit(3)")
    stored = "select attempts, locked_by, payload::text, last_error <> '' as error from graphile_worker._private_jobs"
    later = "select run_at - now() between '140 s' and '150 s' as later from graphile_worker.jobs"  # e^5 is 148
    seen = []
    for run in (lambda: run_theirs(version, room, migrated_url), lambda: run_ours(room, migrated_url)):
        number = add(db, "fail", payload='{"n": 1}', max_attempts=9)["id"]
        db.execute("update graphile_worker._private_jobs set attempts = 4, run_at = %s", [RUN_AT])
        run()
        seen.append((given(room, number), db.execute(stored).fetchall(), db.execute(later).fetchall()))
        call(db, "complete_jobs", job_ids=[number])
    assert seen[0] == seen[1]
    dump, rows, delayed = seen[1]
    assert dump["environment"]["GRAPHILE_WORKER_JOB_ATTEMPTS"] == "5"
    assert rows == [{"attempts": 5, "locked_by": None, "payload": '{"n": 1}', "error": True}]
    assert delayed == [{"later": True}]


@pytest.mark.parametrize("version", node.LIVING)
def test_the_same_files_are_tasks_for_both(version: str, tmp_path: Path, db: Connection, migrated_url: str) -> None:
    tasks = tmp_path / "tasks"
    for name in (*TASKS, *NO_TASKS, "pair.sh"):
        program(tasks, name, "")
    for name in ("not", "not-either.py"):
        program(tasks, name, "", mode=0o644)
    program(tasks, "of-the-group", "", mode=0o654)
    (tasks / "link.sh").symlink_to(tasks / "script.py")
    (tasks / "folder").symlink_to(tasks / "deep")
    for name in ("module.mjs", "pair.mjs"):
        program(tasks, name, "").write_text(JAVASCRIPT)
    run_theirs(version, tmp_path, migrated_url)
    theirs = {row["identifier"] for row in db.execute("select identifier from graphile_worker._private_tasks")}
    ours = set(executable_tasks(tasks).identifiers())
    assert theirs - ours == {"module", "pair"}, "its JavaScript, which we leave to it"
    assert ours == {name.split(".")[0] for name in TASKS} | {"link"}
