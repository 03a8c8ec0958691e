"""Jobs as data: JobSpec (asked for), Job (held), JobInfo (listed), Outcome (what became of one) and Verdict.

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
from graphile_worker_py.checks import check_flags, check_integer, check_run_at, check_text

_decode = json.JSONDecoder().raw_decode
_UNREAD = object()

JobKeyMode = Literal["replace", "preserve_run_at", "unsafe_dedupe"]
JobState = Literal["ready", "scheduled", "running", "retrying", "failed"]

EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)  # PostgreSQL's
EARLIEST = datetime(1, 1, 2, tzinfo=timezone.utc) - EPOCH  # a day from the end, so that any zone can show it
LATEST = datetime(9999, 12, 30, tzinfo=timezone.utc) - EPOCH


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
    """Some of the jobs, in the order of their ids; `next` is what to pass as `after` for more, None at the end.

    `gave_up`: the time to look for them was over before there were enough; all up to the id `next` were looked at.
    """

    items: list[JobInfo]
    next: int | None
    gave_up: bool = False

    def __iter__(self) -> Iterator[JobInfo]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@attrs.frozen
class JobCount:
    """How many jobs there are: `number`, or where it is not `exact`, at least so many."""

    number: int
    exact: bool


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


@attrs.frozen
class Verdict:
    """When a job that failed is tried again: `delay` seconds after that is written, and not before `run_at`.

    No delay is that of Node's worker, e^min(attempts, 10) seconds. `final`: it is not, whatever attempts are left.
    `snoozed`: it has not failed, and the attempt is given back.
    """

    delay: float | None = None
    run_at: datetime | None = None
    final: bool = False
    snoozed: bool = False


AGAIN = Verdict()  # as in Node


@attrs.frozen(slots=False)  # see Job
class Outcome:
    """What became of one claimed job, ready to be written; `duration` is in seconds.

    `error` is the text for last_error; `exception` what was raised, for subscribers; `kept` the places, from 0, of the
    items of a batch that the job goes on with, None where the payload stays as it is; `given_up` those of items that
    are not tried again; `verdict` says when. `frees_queue`: false while more jobs of its run are to come. `result` is
    what to keep of what the handler returned, as JSON text.
    """

    job: Job
    kind: Kind
    duration: float = 0.0
    error: str | None = None
    exception: BaseException | None = None
    kept: tuple[int, ...] | None = None
    frees_queue: bool = True
    verdict: Verdict = AGAIN
    given_up: tuple[int, ...] = ()
    result: str | None = None
