"""When items are due, and what is still worth doing. Pure: items and times in, times out, all of them UTC minutes.

A day matches by Node's rule: where the day of the month and the day of the week are both restricted, either is
enough. A pattern speaks of wall-clock time in its item's zone. A time that a change of the clocks skips is due once,
in the first minute after the gap; a time that comes twice is due the first time only. So an item for every minute
rests for the repeated hour: one that counts elapsed time should be left in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone

import attrs

from graphile_worker_py.cron.crontab import CronItem
from graphile_worker_py.cron.pattern import Pattern

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
SHORT = timedelta(hours=1)  # up to here it is cheaper to ask about each minute than to list those of whole days
# Any date but one that never comes (30 February) comes within eight years, 1896 to 1904 and 2096 to 2104 included.
FAR = 9 * 366 * DAY
_LAST = datetime(9998, 1, 1, tzinfo=UTC)
_FIRST = datetime(2, 1, 1, tzinfo=UTC)


@attrs.frozen
class Tick:
    """An item, and a minute for which it is due."""

    ts: datetime
    item: CronItem


def minute_of(moment: datetime) -> datetime:
    """Return the minute a moment is in."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0, fold=0)


def next_minute(moment: datetime) -> datetime:
    """Return the moment rounded up to a minute; a whole minute is itself."""
    minute = minute_of(moment)
    return minute if minute == moment else minute + MINUTE


def is_due(item: CronItem, minute: datetime) -> bool:
    """Say whether an item is due in this minute."""
    local = minute.astimezone(item.tz)
    if local.fold:
        return False
    wall = local.replace(tzinfo=None)
    if _matches(item.pattern, wall):
        return True
    skipped = (minute - MINUTE).astimezone(item.tz).replace(tzinfo=None) + MINUTE
    while skipped < wall:
        if _matches(item.pattern, skipped):
            return True
        skipped += MINUTE
    return False


def due_times(item: CronItem, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the minutes from start to before end in which an item is due, in order; days that do not match cost little.

    Times before the year 2 and from 9998 on do not exist here.
    """
    start, end = max(start, _FIRST), min(end, _LAST)
    if end - start <= SHORT:
        minute = next_minute(start)
        while minute < end:
            if is_due(item, minute):
                yield minute
            minute += MINUTE
        return
    last = None
    day = start.astimezone(item.tz).date() - DAY  # a gap may push a time of the day before into the range
    while day <= end.astimezone(item.tz).date():
        if _matches_day(item.pattern, day):
            for minute in _of_day(item, day):
                if minute >= end:
                    return
                if minute >= start and minute != last:
                    yield minute
                last = minute
        day += DAY


def due(items: Iterable[CronItem], start: datetime, end: datetime) -> list[Tick]:
    """Return what is due from start to before end: by time, and within a minute in the order of the items."""
    ticks = [Tick(ts, item) for item in items for ts in due_times(item, start, end)]
    return sorted(ticks, key=lambda tick: tick.ts)


def to_make_up(items: Iterable[CronItem], known: Mapping[str, datetime], until: datetime) -> list[Tick]:
    """Return what a standstill before `until` kept from being scheduled and each item's backfill still reaches.

    known: the last execution of each identifier, or the time since when it is known; items not in it are new.
    """
    ticks: list[Tick] = []
    for item in items:
        if item.backfill and item.identifier in known:
            start = max(_before(until, item.backfill), known[item.identifier])
            ticks += due([item], start, until)
    return sorted(ticks, key=lambda tick: tick.ts)


def to_catch_up(items: Iterable[CronItem], start: datetime, now: datetime) -> tuple[list[Tick], int]:
    """Return what is due from start until now, and how much of it was left out for being too old.

    Too old is what is older than the item's backfill, but never what was due within the last minute.
    """
    ticks: list[Tick] = []
    skipped = 0
    for item in items:
        oldest = max(start, _before(now, max(item.backfill, MINUTE)))
        skipped += sum(1 for _ in due_times(item, start, oldest)) if oldest > start else 0
        ticks += due([item], oldest, minute_of(now) + MINUTE)
    return sorted(ticks, key=lambda tick: tick.ts), skipped


def next_times(item: CronItem, after: datetime, *, count: int) -> list[datetime]:
    """Return the next times an item is due after a moment, fewer than asked for where they come too rarely, or never.

    Searched are the next nine years.
    """
    start = minute_of(min(after, _LAST)) + MINUTE
    coming = due_times(item, start, start + min(FAR, _LAST - start))
    return [minute for minute, _ in zip(coming, range(count), strict=False)]


def _matches(pattern: Pattern, wall: datetime) -> bool:
    return wall.minute in pattern.minutes and wall.hour in pattern.hours and _matches_day(pattern, wall.date())


def _matches_day(pattern: Pattern, day: date) -> bool:
    if day.month not in pattern.months:
        return False
    by_date = day.day in pattern.dates
    by_weekday = day.isoweekday() % 7 in pattern.weekdays
    if len(pattern.dates) < 31 and len(pattern.weekdays) < 7:
        return by_date or by_weekday
    return by_date and by_weekday


def _of_day(item: CronItem, day: date) -> Iterator[datetime]:
    """Yield the minutes of the times a pattern means on a local day, in order; one may come again and again."""
    midnight = datetime.combine(day, time(0))
    here = midnight.replace(tzinfo=item.tz)
    offset = here.utcoffset()
    if offset == (midnight + DAY).replace(tzinfo=item.tz).utcoffset():
        first = here.astimezone(UTC)
        for hour in item.pattern.hours:
            for minute in item.pattern.minutes:
                yield first + timedelta(hours=hour, minutes=minute)
        return
    for hour in item.pattern.hours:
        for minute in item.pattern.minutes:
            yield _first_instant(midnight.replace(hour=hour, minute=minute), item)


def _first_instant(wall: datetime, item: CronItem) -> datetime:
    """Return when a wall-clock time comes first; for one that is skipped, when the clocks have been put forward."""
    instant = wall.replace(tzinfo=item.tz).astimezone(UTC)
    if instant.astimezone(item.tz).replace(tzinfo=None) == wall:
        return instant
    # In a gap, fold 0 and 1 tell the time by the offset before and after it: the change lies in between.
    late, early = instant, wall.replace(tzinfo=item.tz, fold=1).astimezone(UTC)
    after = late.astimezone(item.tz).utcoffset()
    while late - early > MINUTE:
        middle = minute_of(early + (late - early) / 2)
        if middle.astimezone(item.tz).utcoffset() == after:
            late = middle
        else:
            early = middle
    return late


def _before(moment: datetime, period: timedelta) -> datetime:
    """Return the moment a period earlier, but none before Python's years."""
    return moment - min(period, moment - _FIRST)
