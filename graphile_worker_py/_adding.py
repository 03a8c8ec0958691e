"""How specs reach the shared add_job and add_jobs, and how their answers are matched to what was asked.

A NULL row, or a missing one, means that a worker locked the job of that key in the middle of the add (a race in the
bodies that Node installs; ours retry by themselves): the add is then simply made again, for by now the key can be
taken from the locked job. No request is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, TypeVar, cast

from graphile_worker_py._database import Database
from graphile_worker_py._own_connection import AnyConnection
from graphile_worker_py.errors import GraphileWorkerError, InvalidJobSpec
from graphile_worker_py.jobs import Job, JobSpec

LARGEST_CHUNK = 2000  # specs
LARGEST_CHUNK_TEXT = 8_000_000  # characters of payload
MOST_TRIES = 50

T = TypeVar("T")


def listed(name: str, values: Iterable[T]) -> Iterable[T]:
    """Return something to walk over; a text alone is one value, not its letters."""
    if isinstance(values, str):
        return cast("Iterable[T]", [values])
    if not isinstance(values, Iterable):
        raise InvalidJobSpec(f"{name}: expected an iterable, got {type(values).__name__}; put it in a list")
    return values


def moment(run_at: datetime | timedelta | None) -> dict[str, object]:
    """Return run_at as the statements take it: a moment, or a delay from the database's now."""
    if isinstance(run_at, timedelta):
        return {"run_at": None, "delay": _interval(run_at)}
    return {"run_at": run_at and _in_utc(run_at), "delay": None}


def _in_utc(run_at: datetime) -> datetime:
    # PostgreSQL reads no offset with fractions of a second, such as an exact local mean time has.
    return run_at.astimezone(timezone.utc)


def _interval(delay: timedelta) -> str:
    # In hours, not days: a PostgreSQL day is 23 or 25 hours long when the session's time zone changes its clocks.
    # Every part has its sign: where IntervalStyle is sql_standard, a single one in front would count for all of them.
    return f"{delay.days * 24:+d} hours {delay.seconds:+d} seconds {delay.microseconds:+d} microseconds"


def add_one(database: Database, connection: AnyConnection, spec: JobSpec, *, job_key_mode: str | None) -> Job:
    """Add one job on this connection and return it as stored."""
    parameters = {
        "identifier": spec.identifier,
        "payload": spec.raw_payload,
        "queue_name": spec.queue_name,
        "max_attempts": spec.max_attempts,
        "job_key": spec.job_key,
        "priority": spec.priority,
        "flags": None if spec.flags is None else list(spec.flags),
        "job_key_mode": job_key_mode,
        **moment(spec.run_at),
    }
    for _ in range(MOST_TRIES):
        row = database.run_on(connection, "add_job", parameters)[0]
        if row[2] is not None:
            return Job(*row)
    raise _never_added()


def chunks(specs: Iterable[JobSpec]) -> Iterator[list[JobSpec]]:
    """Cut specs into lists the database takes at once: of bounded size, and with no key twice in one."""
    chunk: list[JobSpec] = []
    keys: set[str] = set()
    size = 0
    for spec in specs:
        if not isinstance(spec, JobSpec):
            raise InvalidJobSpec(f"specs: expected JobSpec objects, got {type(spec).__name__}")
        length = len(spec.raw_payload or "")
        if chunk and (len(chunk) >= LARGEST_CHUNK or size + length > LARGEST_CHUNK_TEXT or spec.job_key in keys):
            yield chunk
            chunk, size = [], 0
            keys.clear()
        chunk.append(spec)
        size += length
        if spec.job_key is not None:
            keys.add(spec.job_key)
    if chunk:
        yield chunk


def add_all(
    database: Database, connection: AnyConnection, specs: Iterable[JobSpec], *, preserve_run_at: bool
) -> Iterator[list[Job]]:
    """Add specs on this connection, chunk by chunk, and yield the jobs of each chunk, in the order of the specs.

    In a pipeline the next chunk is read and put into words while the database inserts the one before it.
    """
    answer: Callable[[], list[Job]] | None = None
    for chunk in chunks(specs):
        text = _text(chunk)
        jobs = answer() if answer else []
        answer = _sent(database, connection, chunk, text=text, preserve_run_at=preserve_run_at)
        if jobs:
            yield jobs
    if answer:
        yield answer()


def _sent(
    database: Database, connection: AnyConnection, specs: list[JobSpec], *, text: str, preserve_run_at: bool
) -> Callable[[], list[Job]]:
    """Send specs of distinct keys; return what waits for their jobs, which are in the same order."""
    rows = database.begin_on(connection, "add_jobs", {"specs": text, "preserve_run_at": preserve_run_at})

    def answer() -> list[Job]:
        jobs = dict(_matched(specs, range(len(specs)), rows()))
        for _ in range(MOST_TRIES):
            wanted = [position for position in range(len(specs)) if position not in jobs]
            if not wanted:
                return [jobs[position] for position in range(len(specs))]
            again = {"specs": _text(specs[position] for position in wanted), "preserve_run_at": preserve_run_at}
            jobs.update(_matched(specs, wanted, database.run_on(connection, "add_jobs", again)))
        raise _never_added()

    return answer


def _text(specs: Iterable[JobSpec]) -> str:
    return "[" + ",".join(map(record, specs)) + "]"


def _matched(specs: list[JobSpec], positions: Iterable[int], rows: list[tuple[Any, ...]]) -> Iterator[tuple[int, Job]]:
    """Pair positions with rows: by key where there is one, else by the order in which ids were given out."""
    found = [row for row in rows if row[0] is not None]
    of_key = {row[10]: row for row in found if row[10] is not None}
    keyless = iter(sorted((row for row in found if row[10] is None), key=lambda row: int(row[0])))
    for position in positions:
        spec = specs[position]
        row = next(keyless, None) if spec.job_key is None else of_key.get(spec.job_key)
        if row is not None:
            payload = row[2] if row[2] is not None else spec.raw_payload or "{}"
            yield position, Job(spec.identifier, spec.queue_name, row[0], row[1], payload, *row[3:])


def record(spec: JobSpec) -> str:
    """Return a spec as a JSON object for json_to_recordset; its payload is spliced in as the text it already is."""
    head = f'{{"identifier":{_quoted(spec.identifier)}'
    fields: dict[str, object] = {}
    for name in ("queue_name", "max_attempts", "job_key", "priority", "flags"):
        value = getattr(spec, name)
        if value is not None:
            fields[name] = value
    if isinstance(spec.run_at, timedelta):
        fields["delay"] = _interval(spec.run_at)
    elif spec.run_at is not None:
        fields["run_at"] = _in_utc(spec.run_at).isoformat()
    if fields:
        head += "," + json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[1:-1]
    return head + "}" if spec.raw_payload is None else f'{head},"payload":{spec.raw_payload}}}'


@lru_cache(maxsize=256)
def _quoted(identifier: str) -> str:
    return json.dumps(identifier, ensure_ascii=False)


def _never_added() -> GraphileWorkerError:
    return GraphileWorkerError(
        f"the job's key was taken by workers {MOST_TRIES} times in a row: nothing was added, try again"
    )
