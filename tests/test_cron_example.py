"""The example of work by the clock: its crontab is read, shown and followed, and its reports are there once."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import ModuleType

import psycopg
import pytest
from command_line import ROOT, graphile
from hand_clock import Hand

from graphile_worker_py import Queue
from graphile_worker_py.cron.crontab import read_crontab
from graphile_worker_py.cron.scheduler import Scheduler
from graphile_worker_py.testing import Drain

FOLDER = ROOT / "examples" / "reports"
MONDAY = datetime(2024, 7, 8, tzinfo=timezone.utc)


@pytest.fixture
def app() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("reports_app", FOLDER / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def graphile_worker_queue(app: ModuleType) -> Queue:
    queue: Queue = app.queue
    return queue


def test_its_crontab_is_in_order_and_says_what_is_due() -> None:
    check = graphile("crontab", "check", cwd=FOLDER)
    assert check.stdout.splitlines() == [
        "crontab:3: weekly: Node's worker does not read the name mon, the option tz",
        "crontab: 3 items, no mistakes",
    ]
    lines = graphile("crontab", "next", "--count", "2", cwd=FOLDER).stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "nightly: 0 4 * * * report",
        "weekly: 0 9 * * mon report",
        "forget: 30 23 1 * *",
    ]
    assert all(" 09:00 Europe/Paris = Mon " in line for line in lines[4:6])


def test_a_day_of_it(app: ModuleType, drain: Drain, graphile_worker: Queue, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute((FOLDER / "tables.sql").read_bytes())
        db.execute("insert into orders values (%s, 7), (%s, 8)", [MONDAY, MONDAY + timedelta(hours=5)])
        clock = Hand(MONDAY)
        items = [*read_crontab(FOLDER / "crontab"), *app.queue.tasks.cron_items()]
        cron = Scheduler(app.queue, lambda: items, clock=clock)
        cron.step()
        while clock.moment < MONDAY + timedelta(days=1):
            clock.move(minutes=10)
            cron.step()
        assert Counter(drain().tasks) == {"count_orders": 145, "report": 2}
        rows = db.execute("select period, at, orders from reports order by at").fetchall()
        assert rows == [
            ("day", MONDAY + timedelta(hours=4), 1),
            ("week", MONDAY + timedelta(hours=7), 2),
        ]
        assert db.execute("select count(*), max(orders) from counts").fetchall() == [(145, 2)]
    assert not graphile_worker.jobs()
