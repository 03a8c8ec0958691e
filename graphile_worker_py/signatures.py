"""How add_job is called, stated once, and how type checkers see what a handler takes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from graphile_worker_py.jobs import Job, JobKeyMode

Payload_contra = TypeVar("Payload_contra", contravariant=True)


class AddJob(Protocol):
    """The one signature of add_job, on Queue and on the handler's context; a Task leaves the identifier out.

    identifier: 1 to 128 characters. payload: what JSON can carry (None is stored as `{}`); a list makes a batch job.
    queue_name: jobs of one name run one at a time, in order. run_at: an aware datetime, or a timedelta from the
    database's now. priority: smaller first. max_attempts: default 25. job_key: 1 to 512 characters; a second add
    replaces the waiting job, in the way of job_key_mode. flags: names a worker can be told to leave alone.
    connection: the caller's own, and the job is then part of its transaction: an open connection or cursor of psycopg
    or psycopg2, a Session or Connection of SQLAlchemy, a connection of Django.
    Raises InvalidJobSpec, SchemaMissing, NotSupported for a missing privilege, and the driver's own errors.
    """

    def __call__(
        self,
        identifier: str,
        payload: Any = None,
        *,
        queue_name: str | None = None,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
        flags: Iterable[str] | None = None,
        connection: object = None,
    ) -> Job:
        """Add one job and return it as stored."""
        ...


class Takes(Protocol[Payload_contra]):
    """What is called with a payload first: by this a type checker finds the type of a task's payloads."""

    def __call__(self, payload: Payload_contra, /, *args: Any, **kwargs: Any) -> Any:
        """Work on a payload."""
        ...
