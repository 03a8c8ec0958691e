"""Scheduler: makes jobs of what is due, minute by minute on the database's clock, once in the whole fleet.

The row of an identifier in the shared known_crontabs decides: whoever moves its last execution on adds the job, in
the same transaction, be it this process, another or Node's worker. So any number of schedulers may run, and a tick
that failed is simply tried again; Service does that for ever. A tick is one statement, whatever the number of items,
and the lock before it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from os import PathLike
from typing import Protocol, TypeAlias

import attrs
import psycopg

from graphile_worker_py._adding import add_one, record
from graphile_worker_py._database import Database
from graphile_worker_py._own_connection import AnyConnection
from graphile_worker_py._service import Service
from graphile_worker_py.cron.crontab import CronItem, check_identifiers, read_crontab
from graphile_worker_py.cron.schedule import MINUTE, Tick, minute_of, next_minute, to_catch_up, to_make_up
from graphile_worker_py.errors import InvalidCrontab
from graphile_worker_py.jobs import JobSpec, moment
from graphile_worker_py.queue import Queue

logger = logging.getLogger(__name__)

CrontabSource: TypeAlias = "str | PathLike[str] | Iterable[CronItem] | None"

MEASURE_EVERY = 240.0  # seconds
LARGEST_LEAP = 1.0  # seconds
LARGEST_CHUNK = 10_000  # ticks
LARGEST_CHUNK_TEXT = 8_000_000  # characters


class Clock(Protocol):
    """What a scheduler asks for the time."""

    def now(self) -> datetime:
        """Return an aware datetime; errors are logged and tried again."""
        ...


class DatabaseClock:
    """The database's clock, asked every few minutes and whenever this host's clocks disagree.

    They do after a suspend, or when somebody sets the time. In between a clock that nobody can set counts on.
    """

    def __init__(
        self,
        database: Database,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._wall = wall
        self._steady = steady
        self._measured: tuple[datetime, float, float] | None = None

    def now(self) -> datetime:
        """Return the time as the database has it, in UTC. Raises psycopg's errors when it has to ask."""
        if self._measured is None or self._is_doubtful(*self._measured):
            self._measured = self._measure()
        measured, steady, _ = self._measured
        return measured + timedelta(seconds=self._steady() - steady)

    def _is_doubtful(self, _: datetime, steady: float, wall: float) -> bool:
        passed = self._steady() - steady
        return passed >= MEASURE_EVERY or abs(self._wall() - wall - passed) >= LARGEST_LEAP

    def _measure(self) -> tuple[datetime, float, float]:
        before = self._steady()
        ((microseconds,),) = self._database.run("clock")
        trip = self._steady() - before
        return moment(microseconds), before + trip / 2, self._wall() - trip / 2


class Scheduler(Service):
    """Adds the jobs of a crontab when they are due. `load` returns its items, and is called again by reload().

    Raises InvalidCrontab where load does.
    """

    def __init__(self, queue: Queue, load: Callable[[], list[CronItem]], *, clock: Clock | None = None) -> None:
        super().__init__("cron", queue.database.outage)
        self._queue = queue
        self._load = load
        self._clock = clock or DatabaseClock(queue.database)
        self._lock = threading.Lock()
        self._items = load()
        self._is_new = True  # these items are not registered yet, and what they missed is not made up for
        self._next: datetime | None = None  # the first minute that is not done

    @classmethod
    def of(cls, queue: Queue, source: CrontabSource) -> Scheduler | None:
        """Return a scheduler of a crontab (a path, or items) and of the queue's own items; None where there is none."""
        if isinstance(source, (str, PathLike)):
            return cls(queue, lambda: check_identifiers([*read_crontab(source), *queue.tasks.cron_items()]))
        if source is None and not queue.tasks.cron_items():
            return None
        if source is not None and not isinstance(source, Iterable):
            raise InvalidCrontab(f"crontab: expected a path or CronItem objects, got {type(source).__name__}")
        items = list(source or ())
        return cls(queue, lambda: check_identifiers([*items, *queue.tasks.cron_items()]))

    def reload(self) -> bool:
        """Read the crontab again; where that fails, log why, keep the items there are, and return False."""
        try:
            items = self._load()
        except InvalidCrontab as error:
            logger.error("the crontab cannot be read again, so the old one stays:\n%s", error)
            return False
        with self._lock:
            self._items, self._is_new = items, True
        logger.info("the crontab was read again: %s items", len(items))
        self.wake()
        return True

    def step(self) -> float | None:
        """Make up and catch up, whatever there is to do; return the seconds until the next minute, 60 at most."""
        now = self._clock.now()
        if self._next is None:
            self._next = next_minute(now)
        with self._lock:
            items, is_new = self._items, self._is_new
        if is_new:
            self._begin(items, now, until=self._next)
        if now >= self._next:
            self._next = self._catch_up(items, now, since=self._next)
        early = (self._next - self._clock.now()).total_seconds()
        if early > 61:
            logger.warning("cron: the database's clock was set back; the next minute to do is %s", self._next)
        return min(max(early, 0) + 0.001, 60)

    def _begin(self, items: list[CronItem], now: datetime, *, until: datetime) -> None:
        """Make the items known, and make up for what those known before have missed."""
        identifiers = [item.identifier for item in items]
        with self._locked() as connection:
            parameters = {"identifiers": identifiers, "now": now}
            rows = self._queue.database.run_on(connection, "register_crontabs", parameters)
            known = {identifier: moment(since) for identifier, since in rows}
        late = to_make_up(items, known, until)
        added = self._schedule(late, now, backfilled=True)
        if added:
            logger.info("cron: %s runs missed before the start were made up for", added)
        with self._lock:
            self._is_new = self._items is not items

    def _catch_up(self, items: list[CronItem], now: datetime, *, since: datetime) -> datetime:
        """Schedule what has become due, and return the first minute that has not."""
        ticks, skipped = to_catch_up(items, since, now)
        added = self._schedule(ticks, now, backfilled=False)
        if skipped:
            logger.warning("cron: %s runs due since %s were skipped, they are too late", skipped, since)
        logger.debug("cron: %s of the %s jobs due at %s were added here", added, len(ticks), minute_of(now))
        return minute_of(now) + MINUTE

    def _schedule(self, ticks: list[Tick], now: datetime, *, backfilled: bool) -> int:
        """Add the jobs of these ticks that nobody has added yet, and return how many those were."""
        added = 0
        for chunk in _chunks(self._asked(tick, backfilled=backfilled) for tick in ticks):
            if self.stopping.is_set():
                break
            added += self._add(chunk, now)
        return added

    def _asked(self, tick: Tick, *, backfilled: bool) -> _Asked:
        task = self._queue.tasks.get(tick.item.task)
        spec = tick.item.spec if task is None else tick.item.spec.with_defaults(task.defaults)
        return _Asked(tick, spec, tick.item.payload_at(tick.ts, backfilled=backfilled))

    def _add(self, chunk: list[_Asked], now: datetime) -> int:
        """Add a chunk; where the database cannot take it, find the items it cannot take, and add the others."""
        try:
            return self._add_together(chunk, now)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(chunk) > 1:
                half = len(chunk) // 2
                return self._add(chunk[:half], now) + self._add(chunk[half:], now)
            name = chunk[0].tick.item.identifier
            logger.error("cron: the database refuses the job of %r: %s", name, error.diag.message_primary)
            return 0

    def _add_together(self, chunk: list[_Asked], now: datetime) -> int:
        """Add what is still to be added of a chunk, in one transaction, and return how many jobs those were."""
        text = "[" + ",".join(asked.record() for asked in chunk) + "]"
        database = self._queue.database
        with self._locked() as connection:
            ((added, lost),) = database.run_on(connection, "schedule_cron_jobs", {"ticks": text, "now": now})
            for position in lost:
                asked = chunk[position]
                add_one(database, connection, asked.whole(), job_key_mode=asked.tick.item.job_key_mode)
        return int(added)

    @contextmanager
    def _locked(self) -> Iterator[AnyConnection]:
        """Lend a connection in a transaction that nobody else's cron can come in between."""
        with self._queue.database.connection() as connection, connection.transaction():
            self._queue.database.run_on(connection, "lock_crontabs")
            yield connection


@attrs.frozen
class _Asked:
    """A tick with the job it asks for; the payload is JSON text."""

    tick: Tick
    spec: JobSpec
    payload: str

    def record(self) -> str:
        """Return a JSON object for json_to_recordset; the payload is spliced in as the text it already is."""
        more = {"cron": self.tick.item.identifier, "ts": self.tick.ts.isoformat()}
        if self.tick.item.job_key is not None:
            more["job_key_mode"] = self.tick.item.job_key_mode or "replace"
        return f'{record(self.spec)[:-1]},{json.dumps(more)[1:-1]},"payload":{self.payload}}}'

    def whole(self) -> JobSpec:
        """Return the job as a spec of its own."""
        return attrs.evolve(self.spec, payload=json.loads(self.payload), run_at=self.tick.ts)


def _chunks(asked: Iterable[_Asked]) -> Iterator[list[_Asked]]:
    """Cut what is asked for into lists of a size that the database takes at once."""
    chunk: list[_Asked] = []
    size = 0
    for one in asked:
        if chunk and (len(chunk) >= LARGEST_CHUNK or size + len(one.payload) > LARGEST_CHUNK_TEXT):
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += len(one.payload)
    if chunk:
        yield chunk
