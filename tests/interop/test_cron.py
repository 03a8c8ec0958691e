"""Node's worker and ours with one crontab: the same rows, the same jobs, and each tick once when both follow it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from plain_sql import eventually

from graphile_worker_py import Queue
from graphile_worker_py.cron.crontab import parse_crontab
from graphile_worker_py.cron.scheduler import Scheduler
from interop import node

pytestmark = pytest.mark.usefixtures("packages")

KNOWN = "graphile_worker._private_known_crontabs"


@contextmanager
def node_follows(version: str, conninfo: str, crontab: str) -> Iterator[None]:
    """Run Node's worker beside the block, on a crontab it was given as text."""
    environment = node.environment(version, conninfo, {"CRONTAB": crontab})
    process = subprocess.Popen(
        node.script(version, "cron"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def we_follow(queue: Queue, crontab: str) -> Iterator[None]:
    items = parse_crontab(crontab)
    scheduler = Scheduler(queue, lambda: items)
    scheduler.start()
    try:
        yield
    finally:
        assert scheduler.stop(timeout=30)


def know(db: psycopg.Connection, crontab: str, since: datetime) -> None:
    for item in parse_crontab(crontab):
        db.execute(f"insert into {KNOWN} values (%s, %s, null)", [item.identifier, since])  # noqa: S608


def count(db: psycopg.Connection) -> int:
    row = db.execute("select count(*) from graphile_worker._private_jobs").fetchone()
    return int(row[0]) if row else 0


def stored(db: psycopg.Connection) -> tuple[list[Any], list[Any]]:
    """Return the jobs and the known items, without what differs from run to run; and empty the tables."""
    jobs = db.execute("""
        select t.identifier, q.queue_name, j.payload::text, j.priority, j.run_at, j.attempts, j.max_attempts, j.key,
            j.flags, j.revision, j.last_error, j.locked_at
        from graphile_worker._private_jobs as j
        join graphile_worker._private_tasks as t on t.id = j.task_id
        left join graphile_worker._private_job_queues as q on q.id = j.job_queue_id
        order by t.identifier, j.run_at, j.key
    """).fetchall()
    known = db.execute(f"select * from {KNOWN} order by identifier").fetchall()  # noqa: S608
    db.execute(f"truncate graphile_worker._private_jobs, {KNOWN}")
    return [(task, queue, json.loads(payload), *rest) for task, queue, payload, *rest in jobs], known


@pytest.mark.parametrize("version", node.LIVING)
def test_rows_and_jobs_are_the_same(version: str, queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    """Of runs that both make up for at their start; each item was due once since it is known, hours ago."""
    due = (datetime.now(timezone.utc) - timedelta(hours=2)).replace(second=0, microsecond=0)
    at = f"{due.minute} {due.hour} * * *"
    crontab = f"""
        {at} plain ?fill=1d
        {at} full ?id=all&fill=1d&max=3&queue=q&priority=-3 {{text: 'é"', list: [1, 0.5, null, {{}}], _cron: 1}}
        {at} keyed ?id=k1&fill=1d&jobKey=a%20b
        {at} keyed ?id=k2&fill=1d&jobKey=c&jobKeyMode=preserve_run_at {{}}
        {at} not_filled
    """
    since = due - timedelta(hours=1)
    know(db, crontab, since)
    with node_follows(version, migrated_url, crontab):
        eventually(lambda: count(db) == 4, seconds=60)
    theirs = stored(db)
    know(db, crontab, since)
    with we_follow(queue, crontab):
        eventually(lambda: count(db) == 4)
    ours = stored(db)
    assert ours == theirs
    assert [row[2]["_cron"] for row in ours[0]] == [{"ts": f"{due:%Y-%m-%dT%H:%M}:00.000Z", "backfilled": True}] * 4


@pytest.mark.parametrize("version", node.LIVING)
def test_node_heeds_a_pause(version: str, queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    """What is due in the same minute goes into one statement: if the one is there, the other will not come."""
    due = datetime.now(timezone.utc) - timedelta(hours=2)
    crontab = f"{due.minute} {due.hour} * * * rests ?fill=1d\n{due.minute} {due.hour} * * * goes_on ?fill=1d"
    know(db, crontab, due - timedelta(hours=1))
    queue.crontab.pause("rests")
    with node_follows(version, migrated_url, crontab):
        eventually(lambda: count(db) > 0, seconds=60)
    assert [info.task_identifier for info in queue.jobs()] == ["goes_on"]
    assert [(item.identifier, item.paused) for item in queue.crontab.known()] == [("goes_on", False), ("rests", True)]


@pytest.mark.parametrize("version", node.LIVING)
def test_new_items_become_known_alike(version: str, queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    """And are not made up for."""
    crontab = "0 0 1 1 * a ?fill=4w\n0 0 1 1 * b"
    for follows in (node_follows(version, migrated_url, crontab), we_follow(queue, crontab)):
        with follows:
            eventually(lambda: len(db.execute(f"select from {KNOWN}").fetchall()) == 2, seconds=60)
        jobs, known = stored(db)
        assert jobs == []
        assert [(identifier, last) for identifier, _, last in known] == [("a", None), ("b", None)]
        assert all(datetime.now(timezone.utc) - since < timedelta(minutes=2) for _, since, _ in known)


@pytest.mark.parametrize("version", node.LIVING)
def test_each_tick_is_added_once_by_whoever_is_first(
    version: str, queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    """Both make up for six hours at the same time, with the items in opposite orders."""
    lines = ["* * * * * a ?fill=1d", "* * * * * b ?fill=1d {n: 1}", "*/7 * * * * c ?fill=1d"]
    since = (datetime.now(timezone.utc) - timedelta(hours=6)).replace(second=0, microsecond=0)
    know(db, "\n".join(lines), since)
    with node_follows(version, migrated_url, "\n".join(lines)):
        eventually(lambda: count(db) > 0, seconds=60)
        until = datetime.now(timezone.utc).replace(second=0, microsecond=0)
        with we_follow(queue, "\n".join(reversed(lines))):
            done = f"select from {KNOWN} where last_execution >= %s - interval '7 minutes'"
            eventually(lambda: len(db.execute(done, [until]).fetchall()) == 3, seconds=60)
    added = Counter((job[0], job[4]) for job in stored(db)[0])
    assert set(added.values()) == {1}
    minutes = [since + timedelta(minutes=number) for number in range(360)]
    expected = {(task, ts) for ts in minutes for task in "abc" if task != "c" or ts.minute % 7 == 0}
    assert {tick for tick in added if tick[1] < minutes[-1] - timedelta(minutes=7)} == {
        tick for tick in expected if tick[1] < minutes[-1] - timedelta(minutes=7)
    }
