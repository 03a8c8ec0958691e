"""When items are due: by hand at the changes of the clocks, and against a walk over every minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphile_worker_py import CronItem
from graphile_worker_py.cron.schedule import (
    Tick,
    due,
    due_times,
    is_due,
    next_minute,
    next_times,
    to_catch_up,
    to_make_up,
)

UTC = timezone.utc
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
# By an hour, by half an hour, at midnight, in the south, and never.
ZONES = ("Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago", "Asia/Kolkata")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(item: CronItem, start: str, end: str) -> list[str]:
    return [f"{minute:%d %H:%M}" for minute in due_times(item, at(start), at(end))]


# By hand


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("0 12 13 * 5", ["02 12:00", "09 12:00", "13 12:00", "16 12:00", "23 12:00", "30 12:00"]),  # either will do
        ("0 12 * * 5", ["02 12:00", "09 12:00", "16 12:00", "23 12:00", "30 12:00"]),
        ("0 12 13 * *", ["13 12:00"]),
        ("0 12 13 * 0-6", ["13 12:00"]),  # all seven days are no restriction
        ("0 12 1-31 * 5", ["02 12:00", "09 12:00", "16 12:00", "23 12:00", "30 12:00"]),  # and all dates are none
        ("0 12 */30 * 1", ["01 12:00", "05 12:00", "12 12:00", "19 12:00", "26 12:00", "31 12:00"]),
        ("0,59 0,23 31 8 *", ["31 00:00", "31 00:59", "31 23:00", "31 23:59"]),
        ("0 12 13 9 5", []),
    ],
)
def test_dates_and_weekdays(pattern: str, expected: list[str]) -> None:
    assert times(CronItem(pattern, "a"), "2024-08-01", "2024-09-01") == expected


@pytest.mark.parametrize(
    ("zone", "pattern", "start", "end", "expected"),
    [
        # Paris, 31 March 2024: 02:00 becomes 03:00, at 01:00 UTC.
        ("Europe/Paris", "30 2 * * *", "2024-03-30", "2024-04-02", ["30 01:30", "31 01:00", "01 00:30"]),
        ("Europe/Paris", "*/15 2 * * *", "2024-03-31", "2024-04-01", ["31 01:00"]),
        ("Europe/Paris", "0 2,3 * * *", "2024-03-31", "2024-04-01", ["31 01:00"]),
        ("Europe/Paris", "0 3 * * *", "2024-03-31", "2024-04-01", ["31 01:00"]),
        (
            "Europe/Paris",
            "30 * * * *",
            "2024-03-31",
            "2024-03-31T03:00",
            ["31 00:30", "31 01:00", "31 01:30", "31 02:30"],
        ),
        # Paris, 27 October 2024: 03:00 becomes 02:00, at 01:00 UTC.
        ("Europe/Paris", "30 2 * * *", "2024-10-26", "2024-10-28", ["26 00:30", "27 00:30"]),
        ("Europe/Paris", "59 2 * * *", "2024-10-27T01:00", "2024-10-28", []),
        ("Europe/Paris", "30 * * * *", "2024-10-27", "2024-10-27T04:00", ["27 00:30", "27 02:30", "27 03:30"]),
        # Lord Howe Island, by half an hour: 6 October 2024, 02:00 becomes 02:30, at 15:30 UTC the day before.
        ("Australia/Lord_Howe", "*/10 2 * * *", "2024-10-05", "2024-10-06", ["05 15:30", "05 15:40", "05 15:50"]),
        # Cairo, 26 April 2024: 00:00 becomes 01:00, at 22:00 UTC the day before.
        ("Africa/Cairo", "@daily", "2024-04-24", "2024-04-27", ["24 22:00", "25 22:00", "26 21:00"]),
        # Cairo, 1 November 2024: 00:00 becomes 23:00 of the day before, at 21:00 UTC.
        ("Africa/Cairo", "30 23 31 10 *", "2024-10-31", "2024-11-02", ["31 20:30"]),
        # Samoa went from 29 to 31 December 2011.
        ("Pacific/Apia", "0 4 30 12 *", "2011-12-20", "2012-01-02", ["30 10:00"]),
        ("Pacific/Apia", "0 4 30 12 *", "2011-12-30T10:00", "2012-01-02", ["30 10:00"]),
        ("Pacific/Apia", "0 4 * * *", "2011-12-29", "2012-01-01", ["29 14:00", "30 10:00", "30 14:00", "31 14:00"]),
    ],
)
def test_changes_of_the_clocks(zone: str, pattern: str, start: str, end: str, expected: list[str]) -> None:
    item = CronItem(pattern, "a", tz=zone)
    assert times(item, start, end) == expected
    walked = [f"{minute:%d %H:%M}" for minute in minutes(at(start), at(end)) if is_due(item, minute)]
    assert walked == expected


def test_the_zone_of_the_range_does_not_matter() -> None:
    """Python adds and subtracts wall-clock times where a zone has any."""
    item = CronItem("0 2,3 * * *", "a", tz="Europe/Paris")
    paris = ZoneInfo("Europe/Paris")
    start, end = at("2024-10-26T12:00"), at("2024-10-28T12:00")
    expected = list(due_times(item, start, end))
    assert list(due_times(item, start.astimezone(paris), end.astimezone(paris))) == expected
    assert next_times(item, start.astimezone(paris), count=4) == expected


def test_what_comes_next() -> None:
    leap = CronItem("0 0 29 2 *", "a")
    assert next_times(leap, at("2024-02-28"), count=2) == [at("2024-02-29"), at("2028-02-29")]
    assert next_times(leap, at("2024-02-29"), count=1) == [at("2028-02-29")]
    assert next_times(leap, at("2096-03-01"), count=1) == [at("2104-02-29")]
    assert next_times(CronItem("0 0 30 2 *", "a"), at("2024-01-01"), count=1) == []
    assert next_times(CronItem("* * * * *", "a"), at("2024-01-01T00:00:59"), count=2) == [
        at("2024-01-01T00:01"),
        at("2024-01-01T00:02"),
    ]


def test_years_that_python_lacks_harm_nothing() -> None:
    item = CronItem("@yearly", "a", backfill=timedelta.max, tz="Pacific/Apia")
    assert next_times(item, datetime.max.replace(tzinfo=UTC) - 400 * DAY, count=1) == []
    first = datetime.min.replace(tzinfo=UTC)
    assert [tick.ts.year for tick in to_make_up([item], {"a": first}, at("0005-01-01"))] == [2, 3, 4]
    assert to_catch_up([item], at("2024-02-01"), at("2024-02-01")) == ([], 0)


# What is worth doing


def test_what_is_made_up_for() -> None:
    """As far back as each item's backfill reaches, but not to before it was known; new ones not at all."""
    hourly = {name: CronItem("0 * * * *", name, backfill=timedelta(hours=3)) for name in ("a", "b", "new")}
    never = CronItem("* * * * *", "never")
    known = {"a": at("2024-01-01T08:00"), "b": at("2024-01-01T11:00:01"), "never": at("2024-01-01")}
    ticks = to_make_up([*hourly.values(), never], known, at("2024-01-01T13:00"))
    assert [(tick.ts.hour, tick.item.task) for tick in ticks] == [(10, "a"), (11, "a"), (12, "a"), (12, "b")]


def test_what_is_caught_up_with() -> None:
    """What is older than the backfill is left out and counted; the last minute never is."""
    no_backfill, filled = CronItem("* * * * *", "a"), CronItem("*/2 * * * *", "b", backfill=timedelta(minutes=5))
    ticks, skipped = to_catch_up([no_backfill, filled], at("2024-01-01T10:00"), at("2024-01-01T10:09:30"))
    assert [(tick.ts.minute, tick.item.task) for tick in ticks] == [(6, "b"), (8, "b"), (9, "a")]
    assert skipped == 9 + 3
    assert to_catch_up([no_backfill], at("2024-01-01T10:09"), at("2024-01-01T10:09:59")) == (
        [Tick(at("2024-01-01T10:09"), no_backfill)],
        0,
    )


def test_order_is_by_time_then_as_given() -> None:
    items = [CronItem("* * * * *", name) for name in "cab"]
    ticks = due(items, at("2024-01-01T00:00"), at("2024-01-01T00:02"))
    assert "".join(tick.item.task for tick in ticks) == "cabcab"
    assert all(before.ts <= after.ts for before, after in pairwise(ticks))


# Against a walk over every minute


def minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += MINUTE


@cache
def shown(zone: str, start: datetime, end: datetime) -> list[tuple[datetime, list[datetime]]]:
    """Return each minute with the wall-clock times it stands for: none where they are repeated, more after a gap."""
    tz = ZoneInfo(zone)
    latest = max(minute.astimezone(tz).replace(tzinfo=None) for minute in minutes(start - DAY, start))
    found = []
    for minute in minutes(start, end):
        here = minute.astimezone(tz).replace(tzinfo=None)
        found.append((minute, [here] if here == latest + MINUTE else list(minutes(latest + MINUTE, here + MINUTE))))
        latest = max(latest, here)
    return found


def walk(item: CronItem, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the minutes with a wall-clock time that the pattern names, by Node's rule spelt out."""
    minutes, hours, dates, months, weekdays = map(
        set, (getattr(item.pattern, name) for name in ("minutes", "hours", "dates", "months", "weekdays"))
    )
    both = dates != set(range(1, 32)) and weekdays != set(range(7))

    def matches(wall: datetime) -> bool:
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        date, weekday = wall.day in dates, int(wall.strftime("%w")) in weekdays
        return (date or weekday) if both else (date and weekday)

    return [minute for minute, walls in shown(zone, start, end) if any(map(matches, walls))]


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """Draw patterns that come often enough to say something, many of them around two and midnight."""
    minute = draw(st.sampled_from(["*", "0", "30", "*/7", "0,15,59", "1-50/9"]))
    hour = draw(st.sampled_from(["*", "*/5", "2", "0", "23", "1-3", "0,2,23", "0-2"]))
    date = draw(st.sampled_from(["*", "*", "*/4", "1,31", "25-31"]))
    month = draw(st.sampled_from(["*", "*", "*/2", "3,4,9,10,11", "4-10"]))
    weekday = draw(st.sampled_from(["*", "*", "0", "7,1", "mon-fri", "5-7"]))
    return f"{minute} {hour} {date} {month} {weekday}"


@st.composite
def months(draw: st.DrawFn) -> tuple[datetime, datetime]:
    """Draw a month of four years, those in which clocks change more often, and a day on each side."""
    month = draw(st.sampled_from([3, 4, 9, 10, 11, *range(1, 13)]))
    start = datetime(draw(st.integers(2023, 2026)), month, 1, tzinfo=UTC)
    return start - DAY, start + 32 * DAY


@settings(max_examples=100, deadline=None)
@given(patterns(), st.sampled_from(["UTC", *ZONES]), months(), st.data())
def test_due_times_are_those_of_a_walk(
    pattern: str, zone: str, month: tuple[datetime, datetime], data: st.DataObject
) -> None:
    item = CronItem(pattern, "a", tz=zone)
    walked = walk(item, zone, *month)
    assert list(due_times(item, *month)) == walked
    seconds = st.integers(0, int((month[1] - month[0]).total_seconds()))
    start = month[0] + timedelta(seconds=data.draw(seconds))
    end = min(month[1], start + timedelta(seconds=data.draw(st.integers(0, 7200) | seconds)))
    assert list(due_times(item, start, end)) == [minute for minute in walked if start <= minute < end]
    coming = [minute for minute in walked if minute > start][:3]
    assert next_times(item, start, count=3)[: len(coming)] == coming
    assert next_minute(start) - start < MINUTE


@pytest.mark.parametrize(
    ("zone", "year", "pattern"),
    [
        ("Europe/Paris", 2023, "*/30 0-3 * * *"),
        ("America/New_York", 2024, "0 2 */3 * 0"),
        ("Australia/Lord_Howe", 2025, "45 1,2 * 4,10 *"),
        ("Africa/Cairo", 2026, "0,30 0,23 * * fri-sat"),
        ("America/Santiago", 2024, "0 0 * * *"),
    ],
)
def test_a_year_is_that_of_a_walk(zone: str, year: int, pattern: str) -> None:
    year_long = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    item = CronItem(pattern, "a", tz=zone)
    assert list(due_times(item, *year_long)) == walk(item, zone, *year_long)
    shown.cache_clear()
