"""`graphile-worker-py jobs`, by the real program: in pipes, and in a terminal where it asks."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from command_line import assert_error, closed_pipe, graphile, in_process
from rights import staged
from terminal import on_a_terminal, terminal

from graphile_worker_py import JobSpec, Queue

HELD = "locked_at = now(), locked_by = 'w', attempts = 1"
EVIL = "\x1b[2J[bold]evil\x07"


@pytest.fixture
def jobs(queue: Queue, db: psycopg.Connection) -> dict[str, int]:
    """Return the ids of five jobs by their states; the failed one has an error that plays with terminals."""
    specs = [
        JobSpec("send", {"n": 1}, priority=2, job_key="k"),
        JobSpec("send", [1], run_at=timedelta(hours=1), queue_name="mail"),
        JobSpec("charge"),
        JobSpec("send", run_at=timedelta(hours=1)),
        JobSpec(EVIL, flags=["f"]),
    ]
    ids = dict(
        zip(
            ("ready", "scheduled", "running", "retrying", "failed"),
            (job.id for job in queue.add_jobs(specs)),
            strict=True,
        )
    )
    for state, what in {
        "running": HELD,
        "retrying": "attempts = 2, last_error = E'later\nwith a trace'",
        "failed": f"attempts = max_attempts, last_error = E'no {EVIL}\nsecond line'",
    }.items():
        db.execute(f"update graphile_worker._private_jobs set {what} where id = {ids[state]}")  # noqa: S608
    return ids


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs a command in this process: for what is alike in both."""
    return functools.partial(in_process, capsys)


def listed(cli: Cli, *arguments: str) -> list[int]:
    done = cli("jobs", "list", "--json", *arguments)
    assert done.returncode == 0
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def at_the_database(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all commands of this module find their database in the environment."""
    monkeypatch.setattr("command_line.ALWAYS", {"DATABASE_URL": migrated_url})
    monkeypatch.setenv("DATABASE_URL", migrated_url)


# Looking.


def test_list_has_a_line_for_each_job_and_names_the_next_page(jobs: dict[str, int]) -> None:
    done = graphile("jobs", "list", "--limit", "4", "--patience", "1m")
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
    assert rows[0] == ["id", "task", "state", "run at", "tried", "priority", "queue", "key", "error"]
    assert [row[:3] for row in rows[1:]] == [
        ["1", "send", "ready"],
        ["2", "send", "scheduled"],
        ["3", "charge", "running"],
        ["4", "send", "retrying"],
    ]
    assert rows[4][4:] == ["2/25", "0", "-", "-", "later"]
    assert done.stderr == "And 1 job more: go on with --after 4.\n"
    last = graphile("jobs", "list", "--after", "4")
    assert last.stdout.splitlines()[1].endswith("no \\x1b[2J[bold]evil\\x07")
    assert (last.returncode, last.stderr) == (0, "")


def test_every_filter(cli: Cli, jobs: dict[str, int]) -> None:
    for state, id in jobs.items():
        assert listed(cli, "--state", state) == [id]
    assert listed(cli, "--task", "send", "--state", "retrying") == [jobs["retrying"]]
    assert listed(cli, "--queue", "mail") == [jobs["scheduled"]]
    assert listed(cli, "--key", "k") == listed(cli, "--priority", "2") == [jobs["ready"]]
    assert listed(cli, "--error", "SECOND") == [jobs["failed"]]


def test_what_matches_nothing_is_said(cli: Cli, queue: Queue) -> None:
    done = cli("jobs", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "There are no jobs.\n")
    done = cli("jobs", "list", "--task", "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No job matches.\n")
    assert listed(cli, "--task", "none") == []


def test_counts_are_capped(cli: Cli, queue: Queue) -> None:
    queue.add_jobs((JobSpec("many") for _ in range(10_002)), return_jobs=False)
    done = cli("jobs", "list", "--limit", "1", "--patience", "1m")
    assert done.stderr == "And more than 10,000 jobs more: go on with --after 1.\n"
    assert (
        cli("jobs", "list", "--limit", "2", "--patience", "1m").stderr
        == "And 10,000 jobs more: go on with --after 2.\n"
    )
    question = cli("jobs", "complete", "--task", "many", "--patience", "1m").stderr
    assert "Delete, as if done, 1,000 of 10,002 jobs (many 1,000)? Nobody can be asked" in question


def test_a_search_that_gives_up_says_so(cli: Cli, jobs: dict[str, int], migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as other:
        other.execute("lock table graphile_worker._private_jobs")
        done = cli("jobs", "list", "--error", "x", "--patience", "0.1s")
        gave_up = "Looked at the jobs up to id 0 only, in 0.1s: --patience 1m looks for longer."
        assert (done.returncode, done.stderr) == (0, f"{gave_up} Go on with --after 0.\n")
        assert cli("jobs", "complete", "--error", "x", "--patience", "0.1s").stderr.splitlines() == [
            gave_up,
            "No job matches; nothing was changed.",
        ]


def test_show_prints_all_there_is(cli: Cli, jobs: dict[str, int], db: psycopg.Connection) -> None:
    db.execute(
        "insert into graphile_worker._private_py_progress (job_id, attempt, done, total, message, updated_at) "
        "values (3, 1, 1, 4, %s, now())",
        [EVIL],
    )
    shown = cli("jobs", "show", "3").stdout
    assert re.search(r"(?m)^held by +w$", shown)
    assert re.search(r"(?m)^progress +1 of 4 \(25%\), attempt 1, .*Z: \\x1b\[2J\[bold\]evil\\x07$", shown)
    assert re.search(r"(?m)^last error +no .*\n +second line$", cli("jobs", "show", "5").stdout)
    said = json.loads(cli("jobs", "show", "3", "--json").stdout)
    assert (said["payload"], said["progress"]["message"], said["state"]) == ({}, EVIL, "running")
    assert json.loads(cli("jobs", "show", "1", "--json").stdout)["payload"] == {"n": 1}
    assert_error(cli("jobs", "show", "99"), 1, "there is no job 99: it is done, was removed, or never was")
    db.execute("drop table graphile_worker._private_py_progress")
    assert re.search(r"(?m)^progress +-$", cli("jobs", "show", "3").stdout)


def test_who_may_only_look_sees_all_but_payloads(
    cli: Cli, jobs: dict[str, int], queue: Queue, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = (["jobs", "list"], ["queues"], ["tasks"], ["workers"], ["stats"], ["history"], ["crontab", "list"])
    before = [re.sub(r" *\d+\.\d+s", "", cli(*look).stdout) for look in looks]
    with staged(migrated_url) as stage:
        stage.set_up()
        monkeypatch.setenv("DATABASE_URL", stage.url("viewer"))
        assert [re.sub(r" *\d+\.\d+s", "", cli(*look).stdout) for look in looks] == before
        done = cli("jobs", "show", "5")
        assert (done.returncode, done.stderr) == (0, "This role may not see payloads.\n")
        assert re.search(r"(?m)^payload +-$", done.stdout)
        assert json.loads(cli("jobs", "show", "1", "--json").stdout)["payload"] is None
        for change in (["run-now", "2"], ["cancel", "2"], ["complete", "--task", "send", "--yes"]):
            assert_error(cli("jobs", *change), 69, "permission denied")
        assert queue.jobs.count().number == 5


@pytest.mark.parametrize("columns", [120, 40])
def test_a_terminal_shows_a_table_that_fits(jobs: dict[str, int], columns: int) -> None:
    code, shown = on_a_terminal("jobs", "list", "--state", "failed", columns=columns)
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert code == 0
    assert max(map(len, plain.splitlines())) <= columns
    assert all(one.isprintable() for one in plain.replace("\n", ""))
    assert ("priority" in plain, "key" in plain, "no \\x1b" in plain.replace("\n", "")) == (False, False, True)
    assert plain.splitlines()[0].split()[:2] == (["id", "task"] if columns == 120 else ["id", "5"])


# Changing.


def test_run_now_reschedule_fail_complete_by_ids(cli: Cli, jobs: dict[str, int], queue: Queue) -> None:
    assert cli("jobs", "run-now", "2", "4", "5", "2").stdout == "3 jobs may run now.\n"
    assert {info.id: info.state for info in queue.jobs()} == {
        **dict.fromkeys([1, 2, 4, 5], "ready"),
        jobs["running"]: "running",
    }
    options = ["--run-at", "2031-02-03T04:05:06Z", "--new-priority", "-7", "--attempts", "1", "--max-attempts", "9"]
    assert cli("jobs", "reschedule", "1", *options).stdout == "1 job rescheduled.\n"
    job = queue.job(1)
    assert (job.priority, job.attempts, job.max_attempts) == (-7, 1, 9)
    assert job.run_at == datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    assert cli("jobs", "fail", "1", "--reason", "the customer has left").stdout == "1 job failed for good.\n"
    assert queue.job(1).last_error == "the customer has left"
    assert cli("jobs", "complete", "1", "4").stdout == "2 jobs deleted, as if done.\n"
    assert [info.id for info in queue.jobs()] == [2, 3, 5]


def test_cancel_and_remove(cli: Cli, jobs: dict[str, int], queue: Queue) -> None:
    done = cli("jobs", "cancel", "2", "3", "--reason", "no longer wanted")
    assert done.stdout == "2 jobs cancelled: 1 running, told to end.\n"
    assert queue.job(2).last_error == "cancelled: no longer wanted"
    assert_error(cli("jobs", "cancel", "5", "99"), 1, "left alone: 5 (failed), 99 (not there)")
    assert cli("jobs", "remove", "k").stdout == "Job 1 (send) removed.\n"
    assert_error(cli("jobs", "remove", "k"), 1, "no job has the key k")


@pytest.mark.parametrize(
    "command", [["run-now"], ["reschedule", "--run-at", "1h"], ["fail"], ["complete"], ["cancel"]], ids=lambda c: c[0]
)
def test_ids_that_are_left_alone_are_named(cli: Cli, jobs: dict[str, int], queue: Queue, command: list[str]) -> None:
    done = cli("jobs", *command, "2", "99", *(["3"] if command != ["cancel"] else []))
    assert done.returncode == 1
    assert done.stdout.startswith("1 job ")
    (line,) = done.stderr.splitlines()
    assert line == f"Error: left alone: 99 (not there){', 3 (running)' if command != ['cancel'] else ''}"
    assert_error(cli("jobs", *command, *map(str, range(90, 97))), 1, "94 (not there) and 2 more")


def test_why_a_job_is_left_alone_is_told_among_very_many(cli: Cli, queue: Queue, db: psycopg.Connection) -> None:
    queue.add_jobs((JobSpec("many") for _ in range(10_001)), return_jobs=False)
    db.execute(f"update graphile_worker._private_jobs set {HELD}")  # noqa: S608
    left = cli("jobs", "complete", *map(str, range(10_001, 0, -1))).stderr
    assert left.startswith("Error: left alone: 10001 (running), 10000 (running), ")


def test_what_filters_find_is_asked_about_and_can_be_declined(jobs: dict[str, int], queue: Queue) -> None:
    with terminal("jobs", "complete", "--task", "send") as screen:
        screen.wait_for("Delete, as if done, 3 jobs (send 3)? [y/N]: ")
        screen.type("n\n")
        code, shown = screen.close()
    assert (code, shown.splitlines()[-1]) == (1, "Error: nothing was changed")
    assert len(queue.jobs()) == 5
    with terminal("jobs", "complete", "--task", "send") as screen:
        screen.wait_for("[y/N]: ")
        screen.interrupt("Error: interrupted")
        code, shown = screen.close()
    assert (code, shown.splitlines()[-1]) == (130, "Error: interrupted")
    with terminal("jobs", "cancel", "--limit", "2", "--task", EVIL) as screen:
        screen.wait_for("Cancel")
        screen.type("y\n")
        code, shown = screen.close()
    assert code == 0
    assert "\x1b[2J" not in shown
    assert shown.endswith("No job matches; nothing was changed.\n") is False


def test_what_has_changed_since_the_question_is_left_alone(
    jobs: dict[str, int], queue: Queue, db: psycopg.Connection
) -> None:
    with terminal("jobs", "complete", "--task", "send", "--limit", "2", "--patience", "1m") as screen:
        screen.wait_for("Delete, as if done, 2 of 3 jobs (send 2)? [y/N]: ")
        db.execute(f"update graphile_worker._private_jobs set {HELD} where id = 1")  # noqa: S608
        db.execute(
            "update graphile_worker._private_jobs set task_id = (select task_id from graphile_worker._private_jobs "
            "where id = 3) where id = 2"
        )
        screen.type("y\n")
        code, shown = screen.close()
    assert code == 0
    assert shown.splitlines()[-2:] == [
        "0 jobs deleted, as if done.",
        "2 jobs left alone, running or changed meanwhile.",
    ]
    assert len(queue.jobs()) == 5


def test_without_a_terminal_somebody_has_to_have_said_yes(jobs: dict[str, int], queue: Queue) -> None:
    refused = graphile("jobs", "run-now", "--task", "send")
    assert_error(refused, 2, "Run now 3 jobs (send 3)? Nobody can be asked without a terminal: add --yes to go on")
    assert queue.job(2).run_at > datetime.now(timezone.utc)
    done = graphile("jobs", "run-now", "--task", "send", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 jobs may run now.\n", "")
    done = graphile("jobs", "fail", "--task", "none", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No job matches; nothing was changed.\n")


def test_more_than_a_page_can_be_changed(cli: Cli, queue: Queue) -> None:
    queue.add_jobs((JobSpec("ab"[number % 2]) for number in range(23_000)), return_jobs=False)
    done = cli("jobs", "fail", "--state", "ready", "--limit", "11500", "--yes", "--patience", "1m")
    assert (done.returncode, done.stdout, done.stderr) == (0, "11,500 jobs failed for good.\n", "")
    assert queue.jobs.count(state="failed", at_most=20_000).number == 11_500


def test_what_was_changed_before_it_went_wrong_is_told(cli: Cli, queue: Queue, db: psycopg.Connection) -> None:
    queue.add_jobs((JobSpec("a") for _ in range(1_500)), return_jobs=False)
    db.execute("alter table graphile_worker._private_jobs add check (id <= 1200 or attempts < max_attempts)")
    done = cli("jobs", "fail", "--task", "a", "--limit", "2000", "--yes", "--patience", "1m")
    said, error = done.stderr.splitlines()
    assert said == "Before it went wrong: 1,000 jobs failed for good."
    assert (done.returncode, done.stdout, error.startswith("Error: the database refused: ")) == (1, "", True)
    assert queue.jobs.count(state="failed").number == 1_000


# What is wrong.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["complete"], "which jobs? give ids, or filters"),
        (["complete", "1", "--task", "x"], "give ids or filters, not both"),
        (["complete", "one"], "'one' is not a valid integer"),
        (["complete", "--state", "done"], "'done' is not one of"),
        (["run-now", str(2**63)], "ids: expected"),
        (["list", "--limit", "0"], "--limit"),
        (["list", "--after", "-1"], "after: expected 0"),
        (["list", "--priority", "40000"], "priority: expected -32768"),
        (["list", "--task", "x" * 513], "task: expected 0 to 512"),
        (["list", "--patience", "soon"], "expected a time of at most a day"),
        (["list", "--patience", "0s"], "expected a time of at most a day"),
        (["reschedule", "1"], "nothing to change"),
        (["reschedule", "1", "--run-at", "soon"], "expected a time such as"),
        (["reschedule", "1", "--attempts", "-1"], "attempts: expected 0"),
        (["show", "x"], "'x' is not a valid integer"),
        (["show"], "Missing argument"),
        (["remove", ""], "job_key: expected 1 to 512"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_one_line(cli: Cli, arguments: list[str], says: str) -> None:
    assert_error(cli("jobs", *arguments), 2, says)


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    done = cli("jobs")
    assert (done.returncode, "run-now" in done.stdout, done.stderr) == (2, True, "")


COMMANDS = [
    *(
        ["jobs", "list"],
        ["jobs", "show", "1"],
        ["jobs", "run-now", "1"],
        ["jobs", "reschedule", "1", "--attempts", "0"],
    ),
    *(["jobs", "fail", "1"], ["jobs", "complete", "--task", "x", "--yes"], ["jobs", "cancel", "1"]),
    *(["jobs", "remove", "k"], ["queues"], ["tasks"], ["workers"], ["stats"], ["unlock", "w", "--yes"]),
    *(["cleanup"], ["progress", "1"], ["history"], ["crontab", "list"]),
]


def test_every_command_without_a_server_a_schema_or_rights(cli: Cli, database_url: str, migrated_url: str) -> None:
    other = psycopg.conninfo.make_conninfo(migrated_url, options="-c role=pg_monitor")
    for command in COMMANDS:
        away = cli(*command, "--database", "host=127.0.0.1 port=1 password=hunter2")
        assert_error(away, 3, "cannot reach the database")
        assert "hunter2" not in away.stderr
        assert_error(cli(*command, "--database", database_url), 4, "graphile-worker-py migrate")
        assert_error(cli(*command, "--database", other), 69, "permission denied")


@pytest.mark.parametrize("command", [["jobs", "list"], ["jobs", "list", "--json"], ["jobs", "show", "1"]])
def test_a_pipe_that_nobody_reads(jobs: dict[str, int], command: list[str]) -> None:
    with closed_pipe() as pipe:
        assert_error(graphile(*command, stdout=pipe), 1, "standard output")
