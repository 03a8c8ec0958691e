"""Crontabs where users give them: on tasks, to worker pools, and on the command line."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon, assert_error, graphile, in_process, with_jobs
from plain_sql import eventually

from graphile_worker_py import CronItem, InvalidCrontab, InvalidHandler, Queue, Tasks, WorkerPool
from graphile_worker_py.cron.crontab import parse_crontab
from graphile_worker_py.cron.schedule import next_times

KNOWN = "graphile_worker._private_known_crontabs"
LATE = timedelta(minutes=30)


def know(db: psycopg.Connection, *identifiers: str) -> None:
    """Make items known half an hour ago, so that one with a backfill has work to make up for at once."""
    for identifier in identifiers:
        db.execute(f"insert into {KNOWN} values (%s, now() - interval '30 minutes', null)", [identifier])  # noqa: S608


def known(db: psycopg.Connection) -> set[str]:
    return {row[0] for row in db.execute(f"select identifier from {KNOWN}")}  # noqa: S608


# On tasks


def test_items_on_tasks(queue: Queue) -> None:
    @queue.cron("@daily", {"to": "all"}, identifier="second", tz="Europe/Paris", job_key="k")
    @queue.cron("0 4 * * *", backfill=timedelta(days=1), priority=3)
    @queue.task
    def report(payload: object) -> str:
        return f"reported {payload}"

    assert report(1) == "reported 1"
    assert queue.tasks.cron_items() == [
        CronItem("0 4 * * *", "report", backfill=timedelta(days=1), priority=3),
        CronItem("@daily", "report", {"to": "all"}, identifier="second", tz="Europe/Paris", job_key="k"),
    ]


def test_a_second_item_of_an_identifier_is_refused(queue: Queue) -> None:
    task = queue.cron("@daily")(queue.task("a")(print))
    with pytest.raises(InvalidCrontab, match="two items have the identifier 'a'"):
        queue.cron("@hourly")(task)
    assert len(queue.tasks.cron_items()) == 1


def test_an_item_needs_a_task(queue: Queue) -> None:
    with pytest.raises(InvalidHandler, match="above the @task"):
        queue.cron("@daily")(print)  # type: ignore[arg-type]
    with pytest.raises(InvalidCrontab, match="expected 0 to 59"):
        queue.cron("60 * * * *")(queue.task("a")(print))


def test_items_of_a_registry_are_included(queue: Queue) -> None:
    """Those it has and those it will have."""
    tasks = Tasks()
    tasks.cron("@daily")(tasks.task("a")(print))
    queue.include(tasks)
    queue.include(tasks)
    tasks.cron("@hourly")(tasks.task("b")(print))
    assert [item.identifier for item in queue.tasks.cron_items()] == ["a", "b"]
    other = Tasks()
    other.cron("@daily", identifier="a")(other.task("c")(print))
    with pytest.raises(InvalidCrontab, match="identifier 'a'"):
        queue.include(other)
    assert queue.tasks.identifiers() == ["a", "b"]


# In worker pools


def test_a_pool_adds_jobs_and_works_on_them(
    queue: Queue, db: psycopg.Connection, pools: Callable[..., WorkerPool], tmp_path: Path
) -> None:
    """Of all three sources; what is made up for at the start shows it without waiting for a minute to pass."""
    seen = {"task": threading.Event(), "file": threading.Event()}

    def handle(payload: dict[str, str]) -> None:
        seen[payload["from"]].set()

    queue.cron("* * * * *", {"from": "task"}, identifier="b", backfill=LATE)(queue.task("a")(handle))
    (tmp_path / "crontab").write_text("* * * * * a ?id=c&fill=30m {from: 'file'}")
    know(db, "b", "c")
    pools(1, crontab=tmp_path / "crontab")
    assert all(event.wait(timeout=30) for event in seen.values())
    assert known(db) == {"b", "c"}


def test_a_pool_without_a_crontab_has_no_scheduler(queue: Queue, pools: Callable[..., WorkerPool]) -> None:
    queue.task("a")(print)
    pools()
    assert "graphile-worker-py cron" not in [thread.name for thread in threading.enumerate()]


def test_items_given_to_a_pool(queue: Queue, db: psycopg.Connection, pools: Callable[..., WorkerPool]) -> None:
    queue.task("a")(print)
    pools(crontab=iter([CronItem("@yearly", "for_node"), CronItem("@yearly", "a")]))
    eventually(lambda: known(db) == {"for_node", "a"})


def test_run_once_follows_no_crontab(queue: Queue, db: psycopg.Connection) -> None:
    queue.cron("* * * * *", backfill=LATE)(queue.task("a")(print))
    know(db, "a")
    assert WorkerPool(queue, crontab="none").run_once().completed == 0


def test_a_pool_with_a_wrong_crontab_does_not_start(queue: Queue, tmp_path: Path) -> None:
    queue.cron("@daily")(queue.task("a")(print))
    (tmp_path / "wrong").write_text("60 * * * * a\n* * * * * a ?max=0")
    with pytest.raises(InvalidCrontab, match=r"(?s)wrong:1:1: .*wrong:2:14: "):
        WorkerPool(queue, crontab=tmp_path / "wrong").start()
    (tmp_path / "double").write_text("0 4 * * * a")
    with pytest.raises(InvalidCrontab, match="two items have the identifier 'a'"):
        WorkerPool(queue, crontab=str(tmp_path / "double")).start()
    with pytest.raises(InvalidCrontab, match="two items have the identifier 'a'"):
        WorkerPool(queue, crontab=[CronItem("@daily", "a")]).start()
    with pytest.raises(InvalidCrontab, match="cannot be read"):
        queue.run_worker(crontab=tmp_path / "none")
    with pytest.raises(InvalidCrontab, match="expected a path or CronItem objects, got int"):
        WorkerPool(queue, crontab=5).start()  # type: ignore[arg-type]
    with pytest.raises(InvalidCrontab, match="expected CronItem objects, got str"):
        WorkerPool(queue, crontab=["0 4 * * * a"]).start()  # type: ignore[list-item]


# On the command line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_jobs(tmp_path)


@pytest.fixture
def daemon(folder: Path, migrated_url: str) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts a daemon on jobs:queue."""
    started: list[Daemon] = []

    def start(*arguments: str) -> Daemon:
        started.append(Daemon(folder, "jobs:queue", "--database", migrated_url, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.mark.parametrize("arguments", [[], ["--crontab", "other"]])
def test_run_follows_a_crontab(
    daemon: Callable[..., Daemon], folder: Path, db: psycopg.Connection, arguments: list[str]
) -> None:
    """./crontab, unless another is given; at SIGHUP it is read again, and stays what it was if it is wrong by then."""
    file = folder / (arguments or ["crontab"])[-1]
    (folder / "crontab").write_text("@yearly from_crontab")
    file.write_text("* * * * * note ?fill=30m {n: 1}\n@yearly two")
    know(db, "note")
    process = daemon(*arguments)
    assert "'n': 1" in process.next_line()
    assert known(db) == {"note", "two"}
    file.write_text("60 * * * * note {password: 'hunter2'}")
    process.signal(signal.SIGHUP)
    eventually(lambda: "the old one stays" in (folder / "stderr").read_text())
    file.write_text("@yearly two\n@yearly three")
    process.signal(signal.SIGHUP)
    eventually(lambda: "three" in known(db))
    process.signal(signal.SIGTERM)
    code, errors = process.end()
    assert code == 0
    assert f"{file.name}:1:1: minute: expected 0 to 59, got 60" in errors
    assert "hunter2" not in errors


def test_run_refuses_a_wrong_crontab(folder: Path, migrated_url: str) -> None:
    (folder / "crontab").write_text("60 * * * * note\n* * * * * note ?max=0\n")
    done = graphile("run", "jobs:queue", "--database", migrated_url, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: crontab:1:1: minute: expected 0 to 59, got 60\n    60 * * * * note\n    ^\n"
        "crontab:2:17: max: expected 1 to 32767, got 0\n    * * * * * note ?max=0\n                    ^\n"
    )
    assert_error(graphile("run", "jobs:queue", "--crontab", "none", cwd=folder), 2, "none: cannot be read")
    assert_error(graphile("run", "jobs:queue", "--once", "--crontab", "crontab", cwd=folder), 2, "follows no --crontab")
    done = graphile("run", "jobs:queue", "--once", "--database", migrated_url, cwd=folder)
    assert (done.returncode, done.stdout[:11]) == (0, "0 completed")


def test_crontab_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "crontab"
    file.write_text("0 4 * * * a\n")
    assert in_process(capsys, "crontab", "check", str(file)).stdout == f"{file}: 1 item, no mistakes\n"
    file.write_text("0 4 * * * a\n1-9/2 * * * mon b ?tz=UTC\n\n0 0 30 2 * c\n")
    done = in_process(capsys, "crontab", "check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{file}:2: b: Node's worker does not read a step on a range, the name mon, the option tz",
        f"{file}:4: c: this date never comes",
        f"{file}: 3 items, no mistakes",
    ]
    file.write_text("0 4 * * * a\n0 4 * * a\n@noon b")
    done = in_process(capsys, "crontab", "check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.findall(r":([0-9]+:[0-9]+): ", done.stderr) == ["2:10", "3:1"]
    assert_error(in_process(capsys, "crontab", "check", str(tmp_path / "none")), 2, "cannot be read")


def test_crontab_next(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "30 4 1 * * report ?tz=Australia/Lord_Howe&id=lord\n@yearly b\n0 0 30 2 * c"
    (tmp_path / "crontab").write_text(text)
    before = datetime.now(timezone.utc)
    done = in_process(capsys, "crontab", "next", str(tmp_path / "crontab"), "--count", "2")
    lord, yearly, _ = parse_crontab(text)
    expected = ["lord: 30 4 1 * * report"]
    for time in next_times(lord, before, count=2):
        local = time.astimezone(lord.tz)
        expected.append(f"  {local:%a %Y-%m-%d %H:%M} Australia/Lord_Howe = {time:%a %Y-%m-%d %H:%M} UTC")
    expected += ["b: @yearly", *(f"  {time:%a %Y-%m-%d %H:%M} UTC" for time in next_times(yearly, before, count=2))]
    assert done.stdout.splitlines() == [*expected, "c: 0 0 30 2 *", "  never"]
    assert_error(in_process(capsys, "crontab", "next", "--count", "0"), 2, "--count")
