"""Cron items by hand: which are known, pausing and resuming one, running one now; in Python and on the command line."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from command_line import assert_error, graphile
from hand_clock import Hand

from graphile_worker_py import CronItem, InvalidJobSpec, Queue, UnknownCronItem
from graphile_worker_py.cron.scheduler import Scheduler

NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def begin(queue: Queue, *items: CronItem) -> tuple[Scheduler, Hand]:
    clock = Hand(NOON)
    cron = Scheduler(queue, lambda: list(items), clock=clock)
    cron.step()
    return cron, clock


def added(queue: Queue) -> list[str]:
    return sorted(info.task_identifier for info in queue.jobs())


EVERY_MINUTE = [CronItem("* * * * *", "a", backfill=timedelta(hours=1)), CronItem("* * * * *", "b")]


def test_a_paused_item_rests_alone_through_restarts_until_it_is_resumed(queue: Queue) -> None:
    cron, clock = begin(queue, *EVERY_MINUTE)
    queue.crontab.pause("a")
    queue.crontab.pause("a")
    clock.moment += MINUTE
    cron.step()
    assert added(queue) == ["a", "b", "b"]
    again, clock = begin(queue, *EVERY_MINUTE)  # nothing is made up for
    clock.moment = NOON + 10 * MINUTE
    again.step()
    assert added(queue).count("a") == 1
    queue.crontab.resume("a")
    clock.moment = datetime.now(timezone.utc) + 2 * MINUTE
    again.step()
    assert added(queue).count("a") > 1


def test_what_is_known_is_listed(queue: Queue) -> None:
    assert queue.crontab.known() == []
    begin(queue, *EVERY_MINUTE, CronItem("0 0 1 1 *", "c"))
    queue.crontab.pause("b")
    found = [(item.identifier, item.known_since, item.last_execution, item.paused) for item in queue.crontab.known()]
    assert found == [("a", NOON, NOON, False), ("b", NOON, None, True), ("c", NOON, None, False)]


def test_resuming_what_is_not_paused_changes_nothing(queue: Queue) -> None:
    begin(queue, *EVERY_MINUTE)
    queue.crontab.resume("a")
    assert queue.crontab.known()[0].last_execution == NOON


def test_an_item_is_run_now_and_is_due_as_before(queue: Queue, db: psycopg.Connection) -> None:
    @queue.cron("0 4 * * *", {"scope": "all"}, identifier="nightly", job_key="nightly")
    @queue.task(max_attempts=3)
    def report(payload: object) -> None: ...

    begin(queue, *queue.tasks.cron_items())
    queue.crontab.pause("nightly")
    ((now,),) = db.execute("select date_trunc('minute', now())").fetchall()
    first = queue.crontab.run("nightly")
    second = queue.crontab.run(CronItem("@yearly", "other"))
    assert (first.task_identifier, first.key, first.max_attempts) == ("report", "nightly", 3)
    assert first.payload["scope"] == "all"
    ts = datetime.fromisoformat(first.payload["_cron"]["ts"].replace("Z", "+00:00"))
    assert ts in (now, now + MINUTE)
    assert first.payload["_cron"]["backfilled"] is False
    assert second.task_identifier == "other"
    assert [item.paused for item in queue.crontab.known()] == [True]


def test_what_nobody_knows_is_an_error_that_says_what_there_is(queue: Queue) -> None:
    with pytest.raises(UnknownCronItem, match="no cron item is called 'x'; known are: none"):
        queue.crontab.pause("x")
    begin(queue, *EVERY_MINUTE)
    for change in (queue.crontab.pause, queue.crontab.resume):
        with pytest.raises(UnknownCronItem, match="no cron item is called 'x'; known are: a, b"):
            change("x")
    with pytest.raises(UnknownCronItem, match="known are: none"):
        queue.crontab.run("a")
    with pytest.raises(InvalidJobSpec, match="identifier"):
        queue.crontab.pause("")


def test_the_command_line_does_it_too(queue: Queue, migrated_url: str, tmp_path: Path) -> None:
    (tmp_path / "crontab").write_text('0 4 * * * report ?id=nightly {to: "all"}\n')
    begin(queue, CronItem("0 4 * * *", "report", identifier="nightly"), CronItem("0 12 * * *", "noon"))
    more = {"DATABASE_URL": migrated_url}

    def run(*arguments: str) -> str:
        done = graphile("crontab", *arguments, cwd=tmp_path, more=more)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert run("pause", "nightly") == "nightly: paused\n"
    head, *items = (re.split(r"\s{2,}", line) for line in run("list").splitlines())
    assert head == ["item", "paused", "last run", "known since"]
    assert [item[:3] for item in items] == [["nightly", "yes", "-"], ["noon", "no", "2024-01-01 12:00:00Z"]]
    assert [json.loads(line)["paused"] for line in run("list", "--json").splitlines()] == [True, False]
    assert run("resume", "nightly") == "nightly: goes on\n"
    job = queue.job(int(run("run", "nightly")))
    assert job is not None
    assert job.payload["to"] == "all"
    assert_error(
        graphile("crontab", "pause", "x", more=more), 69, "no cron item is called 'x'; known are: nightly, noon"
    )
    assert_error(
        graphile("crontab", "run", "x", cwd=tmp_path, more=more), 2, "crontab has no item 'x'; it has: nightly"
    )
