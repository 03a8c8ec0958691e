"""The scheduler on a real database, with a clock the tests move: every minute once, whatever happens."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hand_clock import Hand
from plain_sql import blocked, eventually
from psycopg.rows import dict_row

from graphile_worker_py import CronItem, Queue
from graphile_worker_py.cron.scheduler import Scheduler

NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
KNOWN = "graphile_worker._private_known_crontabs"


def scheduler(queue: Queue, clock: Hand, *items: CronItem) -> Scheduler:
    """Return a scheduler that is used without its thread."""
    return Scheduler(queue, lambda: list(items), clock=clock)


def know(db: psycopg.Connection, identifier: str, since: datetime, last: datetime | None = None) -> None:
    """Make an item known, as if a worker had run before."""
    db.execute(f"insert into {KNOWN} values (%s, %s, %s)", [identifier, since, last])  # noqa: S608


def known(db: psycopg.Connection) -> dict[str, tuple[datetime, datetime | None]]:
    return {row[0]: row[1:] for row in db.execute(f"select * from {KNOWN}")}  # noqa: S608


def added(db: psycopg.Connection) -> list[tuple[str, str, bool]]:
    """Return (task, time of the tick, backfilled) of all jobs, by time; the ticks are their run_at too."""
    rows = db.execute("""
        select t.identifier, j.payload -> '_cron' ->> 'ts', (j.payload -> '_cron' ->> 'backfilled')::boolean, j.run_at
        from graphile_worker._private_jobs as j join graphile_worker._private_tasks as t on t.id = j.task_id
        order by j.run_at, t.identifier
    """).fetchall()
    assert all(run_at == datetime.fromisoformat(ts.replace("Z", "+00:00")) for _, ts, _, run_at in rows)
    return [(task, ts[11:16], backfilled) for task, ts, backfilled, _ in rows]


# A tick


def test_a_tick_adds_a_job(queue: Queue, db: psycopg.Connection) -> None:
    clock = Hand(NOON - timedelta(seconds=30))
    options: dict[str, Any] = {"queue_name": "q", "priority": -3, "max_attempts": 7}
    cron = scheduler(queue, clock, CronItem("* * * * *", "report", {"to": "all"}, identifier="id", **options))
    assert cron.step() == pytest.approx(30, abs=0.01)
    assert known(db) == {"id": (clock.moment, None)}
    clock.moment = NOON + timedelta(seconds=0.5)
    assert cron.step() == pytest.approx(59.5, abs=0.01)
    (info,) = queue.jobs()
    job = queue.job(info.id)
    assert job is not None
    assert job.raw_payload == '{"to":"all","_cron":{"ts":"2024-01-01T12:00:00.000Z","backfilled":false}}'
    assert (job.task_identifier, job.run_at, job.attempts, job.key, job.flags) == ("report", NOON, 0, None, ())
    assert (job.queue_name, job.priority, job.max_attempts) == ("q", -3, 7)
    assert known(db)["id"][1] == NOON
    assert cron.step() == pytest.approx(59.5, abs=0.01)
    assert len(queue.jobs()) == 1


def test_a_start_on_the_minute_schedules_it(queue: Queue, db: psycopg.Connection) -> None:
    scheduler(queue, Hand(NOON), CronItem("* * * * *", "a"), CronItem("1 * * * *", "b")).step()
    assert added(db) == [("a", "12:00", False)]


def test_options_of_the_task_hold_where_the_item_has_none(queue: Queue) -> None:
    queue.task("report", max_attempts=3, priority=5, flags=["night"])(lambda payload: None)
    scheduler(queue, Hand(NOON), CronItem("* * * * *", "report", priority=-1)).step()
    (info,) = queue.jobs()
    assert (info.max_attempts, info.priority, info.flags) == (3, -1, ("night",))


def test_a_key_replaces_the_job_that_waits(queue: Queue, db: psycopg.Connection) -> None:
    clock = Hand(NOON)
    replaced = CronItem("* * * * *", "a", job_key="a")
    kept = CronItem("* * * * *", "b", job_key="b", job_key_mode="preserve_run_at")
    same_key = CronItem("* * * * *", "c", job_key="a")
    cron = scheduler(queue, clock, replaced, kept, same_key)
    for _ in range(3):
        cron.step()
        clock.move(minutes=1)
    found = {(info.task_identifier, info.run_at, info.revision) for info in queue.jobs()}
    assert found == {("c", NOON + 2 * MINUTE, 5), ("b", NOON, 2)}


def test_an_item_that_another_worker_ran_is_left_alone(queue: Queue, db: psycopg.Connection) -> None:
    know(db, "ran", NOON - MINUTE, NOON)
    know(db, "ahead", NOON - MINUTE, NOON + MINUTE)
    know(db, "behind", NOON - 9 * MINUTE, NOON - MINUTE)
    scheduler(queue, Hand(NOON), *(CronItem("* * * * *", name) for name in ("ran", "ahead", "behind", "new"))).step()
    assert added(db) == [("behind", "12:00", False), ("new", "12:00", False)]
    assert known(db)["ahead"][1] == NOON + MINUTE


def test_no_due_item_is_no_notification(queue: Queue, db: psycopg.Connection) -> None:
    """add_jobs tells of an empty list too, and every worker of the database would look for jobs."""
    with queue.database.connect() as ear:
        ear.execute('listen "jobs:insert"')
        clock = Hand(NOON)
        cron = scheduler(queue, clock, CronItem("* * * * *", "keyed", job_key="k"), CronItem("1 * * * *", "later"))
        cron.step()
        know(db, "a", NOON, NOON)
        scheduler(queue, clock, CronItem("* * * * *", "a")).step()
        db.execute("notify \"jobs:insert\", 'end'")
        heard = [note.payload for note in ear.notifies(timeout=30, stop_after=2)]
    assert ["count" in payload for payload in heard] == [True, False]
    assert heard[-1] == "end"


def test_a_minute_is_one_statement_and_a_lock(queue: Queue) -> None:
    """Whatever the number of items; and none where nothing is due. What is new is registered at the start only."""
    clock = Hand(NOON - MINUTE)
    items = [CronItem("0 * * * *", f"t{number}", backfill=timedelta(hours=1)) for number in range(1200)]
    cron = scheduler(queue, clock, *items)
    assert queue.job(1) is None  # so that it is connected
    asked = count_calls(queue)
    for _ in range(3):
        cron.step()
        clock.move(minutes=1)
    assert asked == ["lock_crontabs", "register_crontabs", "lock_crontabs", "schedule_cron_jobs"]


# Late, early


def test_what_was_missed_before_the_start_is_made_up_for(queue: Queue, db: psycopg.Connection) -> None:
    know(db, "a", NOON - timedelta(days=9), NOON - timedelta(hours=3))
    know(db, "b", NOON - timedelta(minutes=90))
    know(db, "c", NOON - timedelta(days=9))
    items = [CronItem("0 * * * *", name, backfill=timedelta(hours=2)) for name in ("a", "b", "new")]
    scheduler(queue, Hand(NOON + 30 * MINUTE), *items, CronItem("0 * * * *", "c")).step()
    assert added(db) == [("a", "11:00", True), ("b", "11:00", True), ("a", "12:00", True), ("b", "12:00", True)]
    assert known(db)["a"][1] == known(db)["b"][1] == NOON
    assert known(db)["new"] == (NOON + 30 * MINUTE, None)
    scheduler(queue, Hand(NOON + 31 * MINUTE), *items).step()
    assert len(added(db)) == 4


def test_what_comes_late_is_caught_up_with(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """After a suspend: as far as the backfill reaches; an item without one runs for the last minute only."""
    clock = Hand(NOON - timedelta(seconds=1))
    filled = CronItem("*/15 * * * *", "filled", backfill=timedelta(minutes=40))
    cron = scheduler(queue, clock, filled, CronItem("* * * * *", "plain"))
    cron.step()
    clock.moment = NOON + timedelta(hours=8, seconds=20)
    assert cron.step() == pytest.approx(40, abs=0.01)
    assert added(db) == [
        ("filled", "19:30", False),
        ("filled", "19:45", False),
        ("filled", "20:00", False),
        ("plain", "20:00", False),
    ]
    assert f"{480 + 30} runs due since 2024-01-01 12:00:00+00:00 were skipped" in caplog.text
    clock.move(minutes=1)
    cron.step()
    assert added(db)[4:] == [("plain", "20:01", False)]


def test_a_clock_set_back_schedules_nothing_twice(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Hand(NOON)
    cron = scheduler(queue, clock, CronItem("* * * * *", "a"))
    cron.step()
    clock.move(hours=-1)
    for _ in range(60):
        assert cron.step() == 60
        clock.move(minutes=1)
    assert added(db) == [("a", "12:00", False)]
    assert "was set back" in caplog.text
    clock.move(minutes=1)
    cron.step()
    assert added(db) == [("a", "12:00", False), ("a", "12:01", False)]


def test_items_read_again_go_on_from_where_the_old_ones_were(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    know(db, "known", NOON - timedelta(days=9))
    clock, items = Hand(NOON), [CronItem("* * * * *", "a")]
    cron = Scheduler(queue, lambda: list(items), clock=clock)
    cron.step()
    items[:] = [CronItem("* * * * *", "b"), CronItem("0 * * * *", "known", backfill=timedelta(hours=2))]
    clock.move(seconds=90)
    assert cron.reload()
    cron.step()
    assert added(db) == [
        ("known", "11:00", True),
        ("a", "12:00", False),
        ("known", "12:00", True),
        ("b", "12:01", False),
    ]
    assert "read again: 2 items" in caplog.text


# Failures


def test_a_minute_that_failed_is_tried_again(queue: Queue, db: psycopg.Connection) -> None:
    clock = Hand(NOON - MINUTE)
    cron = scheduler(queue, clock, CronItem("* * * * *", "a", backfill=timedelta(hours=1)), CronItem("* * * * *", "b"))
    cron.step()
    db.execute("alter function graphile_worker.add_jobs rename to away")
    for _ in range(5):
        clock.move(minutes=1)
        with pytest.raises(Exception, match="is not installed"):
            cron.step()
    db.execute("alter function graphile_worker.away rename to add_jobs")
    clock.move(seconds=30)
    cron.step()
    expected = [("a", f"12:0{minute}", False) for minute in range(5)] + [("b", "12:04", False)]
    assert [tick for tick in added(db) if tick[1] >= "12"] == sorted(expected, key=lambda tick: (tick[1], tick[0]))


def test_a_start_that_failed_is_tried_again(queue: Queue, db: psycopg.Connection) -> None:
    clock = Hand(NOON + timedelta(seconds=1))
    cron = scheduler(queue, clock, CronItem("* * * * *", "a", backfill=timedelta(hours=1)))
    know(db, "a", NOON - timedelta(seconds=61))
    db.execute("alter function graphile_worker.add_jobs rename to away")
    with pytest.raises(Exception, match="is not installed"):
        cron.step()
    db.execute("alter function graphile_worker.away rename to add_jobs")
    clock.move(minutes=2)
    cron.step()
    assert added(db) == [("a", "11:59", True), ("a", "12:00", True), ("a", "12:01", False), ("a", "12:02", False)]


def test_an_item_that_the_database_refuses_harms_no_other(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    db.execute("alter table graphile_worker._private_jobs add check (payload ->> 'bad' is null)")
    items = [CronItem("* * * * *", f"t{number}", {"bad": 1} if number == 3 else None) for number in range(7)]
    scheduler(queue, Hand(NOON), *items).step()
    assert [task for task, _, _ in added(db)] == ["t0", "t1", "t2", "t4", "t5", "t6"]
    assert "refuses the job of 't3'" in caplog.text
    assert known(db)["t3"][1] is None


def test_the_service_survives_the_loss_of_its_connections(queue: Queue, db: psycopg.Connection) -> None:
    """And a server that is away: what is due in the meantime comes late, once."""
    clock = Hand(NOON)
    cron = scheduler(queue, clock, CronItem("* * * * *", "a", backfill=timedelta(hours=1)))
    cron.start()
    eventually(lambda: len(added(db)) == 1)
    for minutes in range(1, 6):
        db.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid()")
        clock.move(minutes=1)
        cron.wake()
        eventually(lambda minutes=minutes: len(added(db)) == minutes + 1)
    assert cron.stop(timeout=20)
    assert added(db) == [("a", f"12:0{minute}", False) for minute in range(6)]


# Together


def test_an_item_that_becomes_known_in_the_same_moment_is_scheduled_once(
    queue: Queue, db: psycopg.Connection, migrated_url: str
) -> None:
    """Its row is deleted after the start, and comes back from another worker while our statement runs."""
    clock = Hand(NOON - MINUTE)
    cron = scheduler(queue, clock, CronItem("* * * * *", "theirs"), CronItem("* * * * *", "ours"))
    cron.step()
    db.execute(f"delete from {KNOWN}")  # noqa: S608
    queue.complete_jobs([info.id for info in queue.jobs()])
    clock.move(minutes=1)
    with psycopg.connect(migrated_url) as other, ThreadPoolExecutor() as thread:
        know(other, "theirs", NOON, NOON)
        know(other, "ours", NOON - MINUTE, NOON - MINUTE)
        stepping = thread.submit(cron.step)
        pids = "select pid from pg_stat_activity where datname = current_database() and pid != pg_backend_pid()"
        with psycopg.connect(migrated_url, autocommit=True, row_factory=dict_row) as observer:
            eventually(lambda: any(blocked(observer, row["pid"]) for row in observer.execute(pids).fetchall()))
        other.commit()
        stepping.result(timeout=30)
    assert added(db) == [("ours", "12:00", False)]


def test_a_keyed_job_that_a_worker_takes_in_the_same_moment_is_not_lost(queue: Queue, db: psycopg.Connection) -> None:
    """The function Node installs answers with a NULL row then; so does this one, the first time."""
    db.execute("drop function graphile_worker.add_job")
    db.execute("create sequence tries")
    db.execute("""
        create function graphile_worker.add_job(
            identifier text, payload json = null, queue_name text = null, run_at timestamptz = null,
            max_attempts integer = null, job_key text = null, priority integer = null, flags text[] = null,
            job_key_mode text = 'replace'
        ) returns graphile_worker._private_jobs language plpgsql as $$
        declare
            job graphile_worker._private_jobs;
        begin
            if nextval('tries') > 1 then
                select * into job from graphile_worker.add_jobs(
                    array[row($1, $2, $3, $4, $5, $6, $7, $8)::graphile_worker.job_spec]
                );
            end if;
            return job;
        end $$
    """)
    scheduler(queue, Hand(NOON), CronItem("* * * * *", "a", {"n": 1}, job_key="k"), CronItem("* * * * *", "b")).step()
    assert added(db) == [("a", "12:00", False), ("b", "12:00", False)]
    assert db.execute("select last_value from tries").fetchone() == (2,)


def test_many_schedulers_add_every_minute_once(queue: Queue, db: psycopg.Connection) -> None:
    """Five, with clocks and orders of items that differ; now and then one is killed and another takes its place."""
    rounds = 40
    patterns = ["* * * * *", "*/2 * * * *", "1-59/3 * * * *", "* * * * *", "5,25 * * * *"]
    items = [CronItem(text, f"t{number}", backfill=timedelta(hours=1)) for number, text in enumerate(patterns)]
    for item in items:
        know(db, item.identifier, NOON - timedelta(minutes=30))
    barrier = threading.Barrier(5)

    def drive(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - no secret
        clock = Hand(NOON + timedelta(seconds=dice.uniform(0.1, 50)))
        mine = dice.sample(items, len(items))
        cron = scheduler(queue, clock, *mine)
        barrier.wait(timeout=30)
        for _ in range(rounds):
            if dice.random() < 0.1:
                cron = scheduler(queue, clock, *mine)
            cron.step()
            clock.move(minutes=1)

    with ThreadPoolExecutor(5) as threads:
        for done in [threads.submit(drive, seed) for seed in range(5)]:
            done.result(timeout=100)
    minutes = [NOON + number * MINUTE for number in range(-30, rounds)]
    expected = [(item.task, f"{ts:%H:%M}") for item in items for ts in minutes if ts.minute in item.pattern.minutes]
    assert Counter((task, ts) for task, ts, _ in added(db)) == Counter(expected)


def count_calls(queue: Queue) -> list[str]:
    """Return a list that the names of the statements this queue runs will be added to."""
    names: list[str] = []
    run_on = queue.database.run_on

    def counted(connection: Any, name: str, *arguments: Any) -> Any:
        names.append(name)
        return run_on(connection, name, *arguments)

    queue.database.run_on = counted  # type: ignore[method-assign]
    return names
