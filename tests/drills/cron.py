"""The drill on cron: schedulers of both kinds on one crontab, on a night in which the clocks are changed."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import Counter
from datetime import datetime, timedelta

import attrs
from interop import node

from drills.catalogue import drill
from drills.faketime import clean_up_after, libfaketime
from drills.fleet import Program
from drills.scene import Scene
from drills.servers import Unavailable

SPEED = 120  # minutes of a night in each of ours
NIGHT = 340  # minutes
OURS, NODES = 3, 2
BETWEEN_KILLS = 3.0  # seconds
KILLS_BETWEEN_RESTARTS = 8
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

EVERY_MINUTE = 14
UTC_LINES = "\n".join(
    [
        *(f"* * * * * every{number} ?fill=3h" for number in range(EVERY_MINUTE)),
        "*/2 * * * * even ?fill=3h",
        "*/7 * * * * seventh ?fill=3h {n: 7}",
        "15 * * * * hourly ?fill=3h",
    ]
)
LOCAL_LINES = """
30 2 * * * night ?fill=3h&tz=Europe/Paris
15 * * * * quarter ?fill=3h&tz=Europe/Paris
"""
PERIODS = {"even": 2, "seventh": 7}

COLLECT = """
    create table public.ticks (task text, ts timestamptz, backfilled bool, application text);
    grant insert on public.ticks to app;
    create function public.collect() returns trigger language plpgsql as $$
    begin
        insert into public.ticks select t.identifier, (new.payload #>> '{_cron,ts}')::timestamptz,
            (new.payload #>> '{_cron,backfilled}')::bool, current_setting('application_name')
        from graphile_worker._private_tasks as t where t.id = new.task_id;
        return null;
    end $$;
    create trigger collect after insert on graphile_worker._private_jobs
    for each row when (new.payload -> '_cron' is not null) execute function public.collect();
"""
FORGET = "delete from graphile_worker._private_jobs where payload -> '_cron' is not null"


@attrs.frozen
class Night:
    """A night in Paris, and the UTC times at which the items of LOCAL_LINES are due in it, worked out by hand."""

    starts: datetime
    local: dict[str, str]

    def expected(self, minutes: int) -> set[tuple[str, datetime]]:
        """Return each task with each time it is due, in so many minutes."""
        found = set()
        for minute in (self.starts + number * MINUTE for number in range(minutes + 1)):
            found |= {(f"every{number}", minute) for number in range(EVERY_MINUTE)}
            found |= {(task, minute) for task, period in PERIODS.items() if minute.minute % period == 0}
            found |= {("hourly", minute)} if minute.minute == 15 else set()
            found |= {(task, minute) for task, times in self.local.items() if f"{minute:%H:%M}" in times.split()}
        return found


NIGHTS = (
    # At 01:00 UTC it is no longer 02:00 but 03:00: what 02:15 and 02:30 were to bring comes at once.
    Night(
        datetime.fromisoformat("2026-03-28T23:00:00+00:00"),
        {"night": "01:00", "quarter": "23:15 00:15 01:00 01:15 02:15 03:15 04:15"},
    ),
    # At 01:00 UTC it is 02:00 for the second time: 02:15 and 02:30 have been.
    Night(
        datetime.fromisoformat("2026-10-24T22:00:00+00:00"),
        {"night": "00:30", "quarter": "22:15 23:15 00:15 02:15 03:15"},
    ),
)


class Watch:
    """Five schedulers of one night, and the clock they go by."""

    def __init__(self, scene: Scene, night: Night) -> None:
        self._scene = scene
        self._night = night
        self._epoch = time.time()
        self._numbers = itertools.count(1)
        self.on_duty: list[Program] = []

    def now(self) -> datetime:
        return self._night.starts + timedelta(seconds=(time.time() - self._epoch) * SPEED)

    def to_the_next_minute(self) -> None:
        """Wait until the clock shows a whole minute."""
        now = self.now()
        time.sleep((60 - now.second - now.microsecond / 1e6) / SPEED)

    def start(self, place: int) -> Program:
        """Start the scheduler of a place: those from OURS on are Node's."""
        program = self._ours(place) if place < OURS else self._nodes()
        self._scene.producers.append(program)
        return program

    def start_all(self) -> None:
        self.on_duty = [self.start(place) for place in range(OURS + NODES)]

    def replace(self, place: int) -> None:
        """Kill a scheduler, and start another in its place."""
        self.on_duty[place].kill()
        self.on_duty[place] = self.start(place)

    def kill_all(self) -> None:
        for program in self.on_duty:
            program.kill()

    def _ours(self, place: int) -> Program:
        name = self._name("ours")
        given = {
            "database": f"{self._scene.database} application_name={name}",
            "crontab": UTC_LINES + LOCAL_LINES,
            "starts": self._night.starts.isoformat(),
            "epoch": self._epoch,
            "speed": SPEED,
            "wrong": (0, 7, -7)[place],
        }
        return Program(name, ("-m", "drills.scheduler"), folder=self._scene.folder, given=given)

    def _nodes(self) -> Program:
        name = self._name("node")
        lies = {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME": f"@{self.now():%Y-%m-%d %H:%M:%S} x{SPEED}",
            "TZ": "UTC",
            "PGAPPNAME": name,
            "CRONTAB": UTC_LINES,
        }
        program, *arguments = node.script(node.NEWEST, "cron")
        environment = node.environment(node.NEWEST, self._scene.database, lies)
        return Program(name, arguments, folder=self._scene.folder, given={}, environment=environment, program=program)

    def _name(self, kind: str) -> str:
        return f"{kind}-{self._night.starts:%b}-{next(self._numbers)}"


@drill(
    "cron",
    "five schedulers (three of ours, two of Node's) through two nights with a change of the clocks, at 120 times the "
    "speed: one killed every few seconds, the database restarted on the minute, an hour with none of them",
    "over 10,000 ticks: 0 missing, 0 doubled",
)
def cron(scene: Scene) -> None:
    try:
        node.binary(node.NEWEST)
        node.installed()
    except node.Unavailable as missing:
        raise Unavailable(str(missing)) from missing
    scene.start()
    scene.server.execute(COLLECT)
    ticks, missing, doubled, unexpected, by = 0, 0, 0, 0, Counter[str]()
    for night in NIGHTS:
        minutes = 60 if scene.short else NIGHT
        through_the_night(scene, night, minutes)
        added = Counter[tuple[str, datetime]]()
        for task, ts, application in scene.server.execute("select task, ts, application from public.ticks"):
            added[task, ts] += 1
            by[application[:4]] += 1
        due = night.expected(minutes)
        ticks += len(due)
        missing += len(due - set(added))
        doubled += sum(number - 1 for number in added.values())
        unexpected += sum(ts <= night.starts + minutes * MINUTE for _, ts in set(added) - due)
        scene.server.execute(f"{FORGET}; truncate public.ticks, graphile_worker._private_known_crontabs")
    scene.settle()
    clean_up_after(scene.producers)
    scene.at_least("ticks", ticks, 1000 if scene.short else 10_000)
    scene.exactly("missing", missing, 0)
    scene.exactly("doubled", doubled, 0)
    scene.exactly("not due", unexpected, 0)
    scene.at_least("added by ours", by["ours"], 1)
    scene.at_least("added by Node's", by["node"], 1)


def through_the_night(scene: Scene, night: Night, minutes: int) -> None:
    """Let schedulers follow the crontab from the night's start, whatever happens to them, until so many minutes."""
    tasks = sorted({task for task, _ in night.expected(0)} | set(night.local) | {"hourly", *PERIODS})
    know = "insert into graphile_worker._private_known_crontabs select unnest(%s::text[]), %s, null"
    scene.server.execute(know, [tasks, night.starts])
    ends = night.starts + minutes * MINUTE
    pause_at = night.starts + minutes * MINUTE / 3
    dice = random.Random(night.starts.month)  # noqa: S311 - no secret
    watch = Watch(scene, night)
    watch.start_all()
    rested = False
    for kills in itertools.count(1):
        time.sleep(dice.uniform(0.5, 1.5) * BETWEEN_KILLS)
        if watch.now() >= ends:
            break
        if not rested and watch.now() >= pause_at:
            rested = True
            watch.kill_all()
            time.sleep(HOUR.total_seconds() / SPEED / (6 if scene.short else 1))
            watch.start_all()
        elif kills % KILLS_BETWEEN_RESTARTS == 0:
            watch.to_the_next_minute()
            with scene.fault("restart on the minute"):
                scene.server.restart(dice.choice([signal.SIGINT, signal.SIGQUIT]))
        else:
            watch.replace(dice.randrange(OURS + NODES))
    late = """
        select from graphile_worker._private_known_crontabs
        where starts_with(identifier, 'every') and last_execution is distinct from greatest(last_execution, %s)
    """
    scene.wait(lambda: not scene.server.execute(late, [ends]), 60, "the last minute")
    watch.kill_all()
