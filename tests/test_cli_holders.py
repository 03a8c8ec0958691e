"""`queues`, `workers`, `unlock` and `cleanup` on the command line: who holds what, and how it is freed."""

from __future__ import annotations

import json
import re
import shlex

import psycopg
import pytest
from command_line import assert_error, in_process

from graphile_worker_py import Queue

HELD = "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'dead'"


def test_what_a_dead_worker_holds_is_shown_and_freed(
    capsys: pytest.CaptureFixture[str], queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    for name in ("a", "b"):
        queue.add_job("task", queue_name=name)
    db.execute(f"{HELD} where queue_name = 'b'")
    db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'dead' where id = 2")

    def run(*arguments: str) -> list[list[str]]:
        done = in_process(capsys, *arguments, "--patience", "1m", "--database", migrated_url)
        assert done.returncode == 0
        return [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]

    assert [row[:1] + row[4:5] for row in run("queues")[1:]] == [["a", "-"], ["b", "dead"]]
    assert [[row[0] for row in run("queues", way)[1:]] for way in ("--held", "--free")] == [["b"], ["a"]]
    assert [row[0] for row in run("queues", "--after", "a")[1:]] == ["b"]
    (worker,) = run("workers")[1:]
    assert (worker[:2], worker[6:8]) == (["dead", "not ours"], ["1", "1"])
    said = json.loads(in_process(capsys, "workers", "--json", "--database", migrated_url).stdout)
    assert (said["id"], said["alive"], said["running"]) == ("dead", None, 1)
    refused = in_process(capsys, "unlock", "dead", "--patience", "1m", "--database", migrated_url)
    assert_error(refused, 2, "Free jobs of dead: 1, queues: 1 (not ours)? Nobody can be asked")
    assert_error(in_process(capsys, "unlock", "dead", "other", "--yes", "--database", migrated_url), 1, "called other")
    assert queue.jobs(state="running").items
    assert run("unlock", "dead", "--yes") == [["Freed what dead held."]]
    assert queue.workers() == []


def test_the_next_page_can_be_asked_for_as_is_said(
    capsys: pytest.CaptureFixture[str], queue: Queue, migrated_url: str
) -> None:
    for name in ("a 'b' \"$c\"", "d"):
        queue.add_job("task", queue_name=name)
    first = in_process(capsys, "queues", "--limit", "1", "--patience", "1m", "--database", migrated_url)
    said = first.stderr.removeprefix("There may be more: go on with ").removesuffix(".\n")
    second = in_process(capsys, "queues", *shlex.split(said), "--patience", "1m", "--database", migrated_url)
    assert second.stdout.splitlines()[1].startswith("d ")


def test_cleanup_that_has_to_wait_says_for_what(
    capsys: pytest.CaptureFixture[str], queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    with db.transaction():
        queue.add_job("task", connection=db)
        done = in_process(capsys, "cleanup", "--database", migrated_url)
        assert_error(done, 1, "nothing was deleted", "transaction", "try again")


def test_cleanup_asks_before_it_deletes_jobs(
    capsys: pytest.CaptureFixture[str], queue: Queue, migrated_url: str
) -> None:
    queue.permanently_fail_jobs([queue.add_job("task", queue_name="q").id])
    what = ("cleanup", "delete_permafailed_jobs", "GC_JOB_QUEUES", "--patience", "1m", "--database", migrated_url)
    assert_error(in_process(capsys, *what), 2, "Delete 1 job that failed for good? Nobody can be asked")
    assert_error(in_process(capsys, "cleanup", "GC_TASK_IDENTIFIERS", "--database", migrated_url), 2, "Node's")
    assert queue.jobs().items
    done = in_process(capsys, *what, "--yes", "--json")
    assert json.loads(done.stdout) == {"DELETE_PERMAFAILED_JOBS": 1, "GC_JOB_QUEUES": 1}
    assert in_process(capsys, *what).returncode == 0  # nothing to ask about
    assert_error(in_process(capsys, *what, "GC_TASK_IDENTIFIERS"), 2, "Node's")
