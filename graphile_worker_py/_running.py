"""What is asked of jobs that run or wait, and what they tell: cancel, set_timeout and progress.

A request to end stands in the job's own row, as an attempt more than it could have made: no attempt is then left
whatever becomes of this one, by whichever worker, and the worker that runs it sees it there. RUNNING is the channel
that tells workers to look, with the id of a job.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime, timedelta

import attrs

from graphile_worker_py._database import Database
from graphile_worker_py.checks import check_integer, check_text, check_timeout
from graphile_worker_py.jobs import moment

RUNNING = "graphile_worker_py:running"
LARGEST = 2**63 - 1
LONGEST_MESSAGE = 1000  # characters


class Cancellation(enum.Enum):
    """What a job was when it was cancelled."""

    WAITING = "waiting"  # it will not run
    RUNNING = "running"  # it was told to end, and will not be tried again
    TOO_LATE = "too late"  # it is done, has failed for good, or never was


@attrs.frozen
class Progress:
    """How far a job is: `done` of `total` (None: not known), by what its handler told last, in which attempt."""

    done: int
    total: int | None
    message: str | None
    attempt: int
    updated_at: datetime = attrs.field(converter=moment)


def cancel(
    database: Database, ids: Iterable[int], *, reason: str | None, connection: object
) -> dict[int, Cancellation]:
    """Cancel jobs, and return for each id what it was; see `Queue.cancel`."""
    numbers = [check_integer("id", id, lowest=-LARGEST, highest=LARGEST) for id in ids]
    if reason is not None:
        check_text("reason", reason, longest=10_000)
    text = "cancelled" if reason is None else f"cancelled: {reason}"
    asked = {"ids": numbers, "reason": text, "channel": RUNNING}
    rows = database.run("cancel_jobs", asked, connection=connection)
    found = {id: Cancellation.RUNNING if runs else Cancellation.WAITING for id, runs, _ in rows}
    return {id: found.get(id, Cancellation.TOO_LATE) for id in numbers}


def set_timeout(database: Database, id: int, timeout: timedelta | float | None, *, connection: object) -> bool:
    """Give one job a limit of its own, and say whether there is such a job; see `Queue.set_timeout`."""
    check_integer("id", id, lowest=-LARGEST, highest=LARGEST)
    seconds = check_timeout(timeout)
    limit = {"id": id, "seconds": seconds, "channel": RUNNING}
    return bool(database.run("set_timeout", limit, connection=connection))


def progress(database: Database, id: int) -> Progress | None:
    """Return what a job has told of its progress; see `Queue.progress`."""
    check_integer("id", id, lowest=-LARGEST, highest=LARGEST)
    rows = database.run("read_progress", {"id": id})
    return Progress(*rows[0]) if rows else None


def check_progress(done: object, total: object, message: object) -> tuple[int, int | None, str | None]:
    """Return what a handler tells of its progress as it can be stored; raise InvalidJobSpec."""
    return (
        check_integer("done", done, lowest=0, highest=LARGEST),
        None if total is None else check_integer("total", total, lowest=0, highest=LARGEST),
        None if message is None else check_text("message", message, longest=LONGEST_MESSAGE),
    )
