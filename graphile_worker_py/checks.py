"""What arguments have to be: a check returns the value as it is stored, or raises InvalidJobSpec where it was given."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from graphile_worker_py import _payload
from graphile_worker_py.errors import InvalidJobSpec

LARGEST_ID = 2**63 - 1
KEPT_FOR = timedelta(days=1)  # a result, unless its task says otherwise
LONGEST_KEPT = timedelta(days=36_500)
LONGEST_WAIT = 86_400.0  # seconds
LONGEST_TIMEOUT = 366 * 86_400.0  # seconds
LAST_RUN_AT = datetime(9999, 1, 1, tzinfo=timezone.utc)
JOB_KEY_MODES = ("replace", "preserve_run_at", "unsafe_dedupe")


def check_text(name: str, value: object, *, longest: int, shortest: int = 0) -> str:
    """Return a str of `shortest` to `longest` characters that PostgreSQL can store, and refuse all else.

    What comes back is a plain str, and from check_integer a plain int: psycopg refuses lists of mixed types.
    """
    if not isinstance(value, str):
        raise InvalidJobSpec(f"{name}: expected a str, got {type(value).__name__}")
    value = str.__str__(value)
    if not shortest <= len(value) <= longest:
        raise InvalidJobSpec(f"{name}: expected {shortest} to {longest} characters, got {len(value)}")
    problem = _payload.text_problem(value)
    if problem:
        raise InvalidJobSpec(f"{name}: {problem}; remove it")
    return value


def check_integer(name: str, value: object, *, lowest: int, highest: int) -> int:
    """Return an int (a bool is not one here) from `lowest` to `highest`, and refuse all else."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidJobSpec(f"{name}: expected an int, got {type(value).__name__}")
    value = int.__int__(value)
    if not lowest <= value <= highest:
        got = f"got {value}" if abs(value) < 10**20 else "that is far off"
        raise InvalidJobSpec(f"{name}: expected {lowest} to {highest}, {got}")
    return value


def check_run_at(value: object) -> None:
    """Refuse what is neither an aware datetime nor a timedelta, or lies outside the years Python and JSON agree on."""
    if isinstance(value, timedelta):
        if value > LAST_RUN_AT - datetime.now(timezone.utc):
            raise InvalidJobSpec("run_at: that timedelta ends after the year 9998; use a shorter one")
        if value < timedelta(days=-365_000):
            raise InvalidJobSpec("run_at: that timedelta reaches back before the year 1024; use a shorter one")
    elif isinstance(value, datetime):
        year = _utc_year(value)
        if year is None:
            raise InvalidJobSpec(
                "run_at: a naive datetime could mean any time zone; use an aware one, like datetime.now(timezone.utc)"
            )
        if not 2 <= year < LAST_RUN_AT.year:
            raise InvalidJobSpec("run_at: expected a datetime in the years 2 to 9998")
    else:
        raise InvalidJobSpec(f"run_at: expected an aware datetime or a timedelta, got {type(value).__name__}")


def _utc_year(value: datetime) -> int | None:
    """Return the year of a moment in UTC; None for a naive datetime, and 0 for one outside Python's years."""
    try:
        return None if value.utcoffset() is None else value.astimezone(timezone.utc).year
    except OverflowError:
        return 0
    except Exception as error:
        raise InvalidJobSpec(f"run_at: its tzinfo raised {type(error).__name__}; use timezone or ZoneInfo") from error


def check_job_key_mode(mode: object, job_key: str | None) -> None:
    """Refuse an unknown mode, and a mode where there is no key to apply it to."""
    if mode is None:
        return
    if not isinstance(mode, str) or mode not in JOB_KEY_MODES:
        got = repr(str.__str__(mode))[:60] if isinstance(mode, str) else type(mode).__name__
        raise InvalidJobSpec(f"job_key_mode: expected one of {', '.join(JOB_KEY_MODES)}, got {got}")
    if job_key is None:
        raise InvalidJobSpec("job_key_mode: has no meaning without a job_key; give both, or neither")


def check_seconds(name: str, value: object, *, shortest: float = 0.0) -> float:
    """Return a number of seconds that a thread can wait: from `shortest` to a day; refuse all else, NaN too."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InvalidJobSpec(f"{name}: expected a number of seconds, got {type(value).__name__}")
    if not shortest <= value <= LONGEST_WAIT:
        raise InvalidJobSpec(f"{name}: expected {shortest:g} to {LONGEST_WAIT:g} seconds, got {value}")
    return float(value)


def check_retention(name: str, value: object) -> timedelta | None:
    """Return how long something is to be kept, None for not at all: True stands for a day; refuse all else."""
    if value is None or value is False:
        return None
    if value is True:
        return KEPT_FOR
    if not isinstance(value, timedelta) or not timedelta(0) < value <= LONGEST_KEPT:
        raise InvalidJobSpec(f"{name}: expected True, or a timedelta of more than nothing and at most 100 years")
    return value


def check_timeout(value: object) -> float | None:
    """Return the seconds a handler may run, None for ever; refuse what is neither a timedelta nor a number above 0."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise InvalidJobSpec(f"timeout: expected a timedelta or a number of seconds, got {type(value).__name__}")
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise InvalidJobSpec(f"timeout: expected more than 0 and at most {LONGEST_TIMEOUT:g} seconds, got {seconds}")
    return float(seconds)


def check_flags(value: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return flags as a tuple, None as it is; refuse a single text, whose letters would each be one."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidJobSpec(f"flags: expected an iterable of str, got {type(value).__name__}; put it in a list")
    return tuple(check_text("flags", flag, longest=10_000) for flag in value)
