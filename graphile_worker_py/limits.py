"""Limit and Rate: how many jobs of a key may run at a time, or begin in a period, in the whole fleet.

A limit has a name, "limit:" or "rate:" and its key. Where the key is computed from the payload, each job carries the
name as a flag: flags are Graphile Worker's own mechanism, and a claim passes over the jobs of names that are full. What
was added without the flag, by Node or by plain SQL, gets it from the first worker that has to send it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeAlias

import attrs

from graphile_worker_py.checks import check_integer, check_text
from graphile_worker_py.errors import InvalidJobSpec

LONGEST_KEY = 200  # characters
MOST_JOBS = 1_000_000
SHORTEST_PERIOD = timedelta(milliseconds=100)
LONGEST_PERIOD = timedelta(days=366)

Key: TypeAlias = str | Callable[[Any], str | int | None] | None


def _check_key(limit: object, attribute: object, value: Any) -> None:
    if value is not None and not callable(value):
        check_text("key", value, shortest=1, longest=LONGEST_KEY)


def _check_count(limit: object, attribute: attrs.Attribute[int], value: object) -> None:
    check_integer(attribute.name, value, lowest=1, highest=MOST_JOBS)


@attrs.frozen
class Limit:
    """At most so many jobs of a key run at a time, in all worker pools together.

    key: a text, which several tasks may share; or a function of the payload, as plain JSON data, that returns a text,
    an int, or None for no limit; left out, it is the task's identifier.
    """

    at_most: int = attrs.field(validator=_check_count)
    key: Key = attrs.field(default=None, kw_only=True, validator=_check_key)


@attrs.frozen
class Rate:
    """In any period of `per`, at most `count` jobs of a key are begun, in all worker pools together.

    Every attempt counts. The key is as for Limit.
    """

    count: int = attrs.field(validator=_check_count)
    per: timedelta = attrs.field(kw_only=True)
    key: Key = attrs.field(default=None, kw_only=True, validator=_check_key)

    @per.validator
    def _check_per(self, attribute: object, value: object) -> None:
        if not isinstance(value, timedelta):
            raise InvalidJobSpec(f"per: expected a timedelta, got {type(value).__name__}")
        if not SHORTEST_PERIOD <= value <= LONGEST_PERIOD:
            raise InvalidJobSpec(f"per: expected 0.1 seconds to {LONGEST_PERIOD.days} days, got {value}")


def check_limits(
    concurrency: int | None, limit: Limit | None, rate: Rate | None
) -> tuple[int | None, Limit | None, Rate | None]:
    """Return these options of a task, and refuse with InvalidJobSpec what is none."""
    if concurrency is not None:
        check_integer("concurrency", concurrency, lowest=1, highest=10_000)
    for option, value, kind in (("limit", limit, Limit), ("rate", rate, Rate)):
        if value is not None and not isinstance(value, kind):
            raise InvalidJobSpec(f"{option}: expected a {kind.__name__}, got {type(value).__name__}")
    return concurrency, limit, rate


def size(limit: Limit | Rate) -> tuple[int, float | None]:
    """Return the number of jobs, and for a rate the seconds of its period."""
    return (limit.count, limit.per.total_seconds()) if isinstance(limit, Rate) else (limit.at_most, None)


def stricter(one: tuple[int, float | None], other: tuple[int, float | None]) -> tuple[int, float | None]:
    """Return the size that lets fewer jobs begin, of two limits or of two rates."""
    return min(one, other, key=lambda size: size[0] / (size[1] or 1.0))


def prefix(limit: Limit | Rate) -> str:
    """Return what the names of such a limit begin with."""
    return "rate:" if isinstance(limit, Rate) else "limit:"


def name(limit: Limit | Rate, identifier: str) -> str | None:
    """Return the one name that all jobs of the task have; None where each has its own."""
    return None if callable(limit.key) else prefix(limit) + (identifier if limit.key is None else limit.key)


def name_for(limit: Limit | Rate, payload: Any) -> str | None:
    """Return the name that a key function gives a job with this payload; None where the job has no limit."""
    key = limit.key(payload) if callable(limit.key) else limit.key
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    return None if key is None else prefix(limit) + check_text("key", key, shortest=1, longest=LONGEST_KEY)


def name_among(limit: Limit | Rate, flags: Iterable[str]) -> str | None:
    """Return the name of that kind that a job carries among its flags; what is too long for a key is none."""
    begin = prefix(limit)
    return next((flag for flag in flags if flag.startswith(begin) and len(flag) <= len(begin) + LONGEST_KEY), None)
