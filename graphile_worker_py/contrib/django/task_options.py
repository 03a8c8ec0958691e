"""What TASKS[alias]["OPTIONS"] may hold for our backend, and what a task may say for itself.

A mistake must not keep a project from being imported, or `manage.py check` could not tell it: what is wrong is kept,
told by the check, and raised where a job would be added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

import attrs
from django.utils.dateparse import parse_duration

from graphile_worker_py.checks import check_integer, check_retention, check_timeout
from graphile_worker_py.contrib.django.conf import meant
from graphile_worker_py.errors import InvalidJobSpec
from graphile_worker_py.retry import RetryPolicy

DJANGOS = ("BACKEND", "QUEUES", "OPTIONS")
NO_RETRY = RetryPolicy(give_up_on=Exception)


def _max_attempts(value: object) -> int:
    return check_integer("MAX_ATTEMPTS", value, lowest=1, highest=32767)


def _results(value: object) -> timedelta | None:
    """Return how long results are kept: from a timedelta, seconds, a text such as "7 days", or True, for a day."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = timedelta(seconds=value)
    if isinstance(value, str):
        value = parse_duration(value) or value
    return check_retention("RESULTS", value)


def _timeout(value: object) -> float | None:
    return check_timeout(value)


def policy(value: object) -> RetryPolicy:
    """Return what True, False, or a rule such as a Backoff, says about retries."""
    if value is False:
        return NO_RETRY
    return RetryPolicy(None if value is None or value is True else value)  # type: ignore[arg-type]  # it checks itself


READERS: Mapping[str, Callable[[Any], Any]] = {
    "MAX_ATTEMPTS": _max_attempts,
    "RESULTS": _results,
    "RETRY": policy,
    "TIMEOUT": _timeout,
}


@attrs.frozen(kw_only=True)
class TaskOptions:
    """The options of one alias of TASKS, read; `problems` are what is wrong with them, each with what to do."""

    max_attempts: int | None = None
    results: timedelta | None = None
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    timeout: float | None = None
    problems: tuple[tuple[str, str], ...] = ()


def read_options(alias: str, params: Mapping[str, Any]) -> TaskOptions:
    """Read the options of an alias from what TASKS has for it; what cannot be used is left out, and in `problems`."""
    where = f"TASKS[{alias!r}]['OPTIONS']"
    given = params.get("OPTIONS", {})
    if not isinstance(given, Mapping):
        return TaskOptions(problems=((f"{where} is of type {type(given).__name__}.", "Make it a dict."),))
    read: dict[str, Any] = {}
    problems = list(_misplaced(alias, params))
    for name, value in given.items():
        reader = READERS.get(name)
        if reader is None:
            problems.append((f"{where} has no option {name!r}.", meant(name, READERS)))
            continue
        try:
            read[name.lower()] = reader(value)
        except (InvalidJobSpec, OverflowError, ValueError) as error:
            problems.append((f"{where}[{name!r}] cannot be used: {error}.", "Give it a value of that kind."))
    return TaskOptions(**read, problems=tuple(problems))


def _misplaced(alias: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what stands beside OPTIONS and was meant for it, or for a name of Django's, who may know others later."""
    for name in (name for name in params if name not in DJANGOS):
        said = f"TASKS[{alias!r}] has no option {name!r}."
        if name in READERS:
            yield said, "Put it in OPTIONS."
        elif get_close_matches(str(name).upper(), DJANGOS):
            yield said, meant(name, DJANGOS)
