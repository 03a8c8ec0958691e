"""Jobs as data: JobSpec (asked for), Job (held), JobInfo (listed), Outcome (what became of one).

Everything here is checked at the door, so a bad job fails in the view that asks for it and never in the
worker. Payloads travel as JSON text in both directions: what was stored is decoded only when somebody looks,
and one payload that cannot be decoded harms nobody else's job.
"""

from __future__ import annotations

import copy
import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import attrs

from graphile_worker_py import _payload
from graphile_worker_py.errors import InvalidJobSpec

_decode = json.JSONDecoder().raw_decode
_UNREAD = object()

LARGEST_ID = 2**63 - 1
KEPT_FOR = timedelta(days=1)  # a result, unless its task says otherwise
LONGEST_KEPT = timedelta(days=36_500)

JobKeyMode = Literal["replace", "preserve_run_at", "unsafe_dedupe"]
JobState = Literal["ready", "scheduled", "running", "retrying", "failed"]

JOB_KEY_MODES = ("replace", "preserve_run_at", "unsafe_dedupe")
LONGEST_WAIT = 86_400.0  # seconds
LONGEST_TIMEOUT = 366 * 86_400.0  # seconds
LAST_RUN_AT = datetime(9999, 1, 1, tzinfo=timezone.utc)
EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)  # PostgreSQL's
EARLIEST = datetime(1, 1, 2, tzinfo=timezone.utc) - EPOCH  # a day from the end, so that any zone can show it
LATEST = datetime(9999, 12, 30, tzinfo=timezone.utc) - EPOCH


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


def _names(flags: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(flags) if flags else ()


_known_identifiers: set[str] = set()  # few, and each is asked for with every job


def _checked_identifier(identifier: object) -> str:
    checked = check_text("identifier", identifier, shortest=1, longest=128)
    if len(_known_identifiers) < 1000:
        _known_identifiers.add(checked)
    return checked


@attrs.frozen(slots=False)  # see Job
class JobSpec:
    """Describe a job to add; every argument means what it means for `Queue.add_job`, and is checked here.

    Raises InvalidJobSpec. Limits are the table's own: identifier and queue_name up to 128 characters, job_key
    1 to 512, priority -32768 to 32767 (smaller runs first), max_attempts 1 to 32767 (default 25).
    `raw_payload` is the payload as JSON text, fixed when the spec is made.
    """

    identifier: str
    payload: Any = attrs.field(default=None, repr=False, eq=False)
    queue_name: str | None = attrs.field(default=None, kw_only=True)
    run_at: datetime | timedelta | None = attrs.field(default=None, kw_only=True)
    priority: int | None = attrs.field(default=None, kw_only=True)
    max_attempts: int | None = attrs.field(default=None, kw_only=True)
    job_key: str | None = attrs.field(default=None, kw_only=True)
    flags: tuple[str, ...] | None = attrs.field(default=None, kw_only=True, converter=check_flags)
    raw_payload: str | None = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # What is checked may be a subclass of what is stored; writing a frozen field is slow, and mostly not needed.
        plain: dict[str, object] = {}
        if type(self.identifier) is not str or self.identifier not in _known_identifiers:
            plain["identifier"] = _checked_identifier(self.identifier)
        if self.queue_name is not None:
            plain["queue_name"] = check_text("queue_name", self.queue_name, longest=128)
        if self.job_key is not None:
            plain["job_key"] = check_text("job_key", self.job_key, shortest=1, longest=512)
        if self.priority is not None:
            plain["priority"] = check_integer("priority", self.priority, lowest=-32768, highest=32767)
        if self.max_attempts is not None:
            plain["max_attempts"] = check_integer("max_attempts", self.max_attempts, lowest=1, highest=32767)
        if self.run_at is not None:
            check_run_at(self.run_at)
        raw = "null" if self.payload is None else _payload.encode(self.payload)
        plain["raw_payload"] = None if raw == "null" else raw  # an Enum of None, say, is no payload either
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def with_defaults(self, defaults: Mapping[str, Any]) -> JobSpec:
        """Return this spec with defaults, checked already, for what it leaves open; the payload is not read again."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if not missing:
            return self
        spec = copy.copy(self)
        for name, value in missing.items():
            object.__setattr__(spec, name, value)
        return spec

    def with_flag(self, flag: str) -> JobSpec:
        """Return this spec with one flag more, checked already."""
        spec = copy.copy(self)
        object.__setattr__(spec, "flags", (*(self.flags or ()), flag))
        return spec

    def plain_payload(self) -> Any:
        """Return the payload as the handler will get it: what its JSON says."""
        return {} if self.raw_payload is None else json.loads(self.raw_payload)


def moment(microseconds: int) -> datetime:
    """Return the time that PostgreSQL counts as so many microseconds from the year 2000, cut to years Python has.

    A plain SQL caller may store 'infinity', which is the largest number there is.
    """
    return EPOCH + min(max(timedelta(microseconds=microseconds), EARLIEST), LATEST)


@attrs.frozen(slots=False, repr=False)  # attrs fills a frozen class in half the time where it has no slots
class Job:
    """A job as the database holds it: the columns of the shared table, with the names of its task and queue.

    `payload` is decoded from `raw_payload` (JSON text) when first read and raises ValueError or RecursionError
    where Python cannot; times are aware datetimes, in UTC, made from the raw ones (microseconds from the year 2000, as
    PostgreSQL counts) when read; `flags` is a tuple of names. `attempts` counts the one under way.
    """

    task_identifier: str
    queue_name: str | None
    id: int
    job_queue_id: int | None
    raw_payload: str
    priority: int
    raw_run_at: int
    attempts: int
    max_attempts: int
    last_error: str | None
    raw_created_at: int
    raw_updated_at: int
    key: str | None
    raw_locked_at: int | None
    locked_by: str | None
    revision: int
    flags: tuple[str, ...] = attrs.field(converter=_names)

    @property
    def payload(self) -> Any:
        """Return the payload as Python data; the same object each time."""
        known = self.__dict__.get("payload", _UNREAD)
        if known is not _UNREAD:
            return known
        payload, _ = _decode(self.raw_payload.lstrip())  # PostgreSQL has checked what follows
        return self.__dict__.setdefault("payload", payload)

    @property
    def run_at(self) -> datetime:
        """Return when the job was, or is, to run."""
        return moment(self.raw_run_at)

    @property
    def created_at(self) -> datetime:
        """Return when the job was added."""
        return moment(self.raw_created_at)

    @property
    def updated_at(self) -> datetime:
        """Return when the job was last changed by anybody but a worker."""
        return moment(self.raw_updated_at)

    @property
    def locked_at(self) -> datetime | None:
        """Return when the job was claimed, None if nobody holds it."""
        return None if self.raw_locked_at is None else moment(self.raw_locked_at)

    def __repr__(self) -> str:
        return (
            f"Job(task_identifier={self.task_identifier!r}, queue_name={self.queue_name!r}, id={self.id}, "
            f"priority={self.priority}, run_at={self.run_at!r}, attempts={self.attempts}, "
            f"max_attempts={self.max_attempts}, key={self.key!r}, revision={self.revision}, flags={self.flags!r})"
        )


@attrs.frozen
class JobInfo:
    """A row of the list of jobs: all of Job but the payload, and the state the database's clock gives it.

    States: ready, scheduled (waits for run_at, not tried yet), running (locked), retrying (waits after a
    failure), failed (no attempts left).
    """

    id: int
    task_identifier: str
    queue_name: str | None
    state: JobState
    priority: int
    run_at: datetime = attrs.field(converter=moment)
    attempts: int
    max_attempts: int
    last_error: str | None = attrs.field(repr=False)
    created_at: datetime = attrs.field(converter=moment)
    updated_at: datetime = attrs.field(converter=moment)
    key: str | None
    locked_at: datetime | None = attrs.field(converter=attrs.converters.optional(moment))
    locked_by: str | None
    revision: int
    flags: tuple[str, ...] = attrs.field(converter=_names)


@attrs.frozen
class Page:
    """Some of the jobs, in the order of their ids; `next` is what to pass as `after` for more, None at the end."""

    items: list[JobInfo]
    next: int | None

    def __iter__(self) -> Iterator[JobInfo]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@attrs.frozen
class TaskStats:
    """How many jobs of one task are in each state; `oldest_ready` is the age in seconds of the longest waiting one."""

    identifier: str
    ready: int
    scheduled: int
    running: int
    retrying: int
    failed: int
    oldest_ready: float | None


@attrs.frozen
class RunSummary:
    """What a run came to: jobs completed, failures that will be tried again, jobs failed for good."""

    completed: int
    retrying: int
    failed: int


class Kind(enum.Enum):
    """What became of an attempt."""

    COMPLETED = "completed"
    FAILED = "failed"
    RETURNED = "returned"  # never begun: goes back with its attempt
    DECIDED = "decided"  # by a transaction of the handler's: completed if the row is gone, failed if it is there


@attrs.frozen(slots=False)  # see Job
class Outcome:
    """What became of one claimed job, ready to be written; `duration` is in seconds.

    `error` is the text for last_error; `exception` what was raised, for subscribers; `kept` the places, from 0, of the
    items of a batch that failed, None where the payload stays as it is. `frees_queue`: false while more jobs of its
    run are to come. `result` is what to keep of what the handler returned, as JSON text.
    """

    job: Job
    kind: Kind
    duration: float = 0.0
    error: str | None = None
    exception: BaseException | None = None
    kept: tuple[int, ...] | None = None
    frees_queue: bool = True
    result: str | None = None
