"""What happened, as frozen records, and who wants to know. Logging is one subscriber among others.

A subscriber is called in the thread where it happened (a crew thread, or the one that writes outcomes), so it should
be quick. What it raises is logged and harms nothing. JobCompleted, JobFailed, JobSnoozed and JobLost are told after the
database has confirmed them. No record is made where nobody listens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from graphile_worker_py.errors import InvalidHandler
from graphile_worker_py.jobs import Job

logger = logging.getLogger(__name__)

E = TypeVar("E")


@attrs.frozen
class PoolStarted:
    """A worker pool takes jobs from now on; `tasks` are the identifiers it works on."""

    pool_id: str
    concurrency: int
    tasks: tuple[str, ...]


@attrs.frozen
class PoolStopped:
    """A worker pool has stopped; `still_running` counts handlers that had not returned."""

    pool_id: str
    still_running: int


@attrs.frozen
class JobStarted:
    """A handler is about to be called."""

    job: Job


@attrs.frozen
class JobCompleted:
    """A job is done and its row gone; duration in seconds."""

    job: Job
    duration: float


@attrs.frozen
class JobFailed:
    """An attempt failed and this is written; duration in seconds.

    `final` is true when no attempt is left. `remaining` is the number of items a partly failed batch goes on with,
    None where the whole payload stays; `given_up` are the places, from 0, of its items that are not tried again.
    """

    job: Job
    error: str
    exception: BaseException | None
    final: bool
    duration: float
    remaining: int | None = None
    given_up: tuple[int, ...] = ()


@attrs.frozen
class JobSnoozed:
    """A handler has put its job off and this is written, the attempt given back; duration in seconds."""

    job: Job
    exception: BaseException | None
    duration: float
    remaining: int | None = None


@attrs.frozen
class JobLost:
    """An outcome changed nothing, for somebody else had taken the job in the meantime."""

    job: Job


@attrs.frozen
class JobStuck:
    """A handler has been running for so many seconds; `stack` is what its thread is doing, as in a traceback."""

    job: Job
    seconds: float
    stack: str


KINDS = (PoolStarted, PoolStopped, JobStarted, JobCompleted, JobFailed, JobSnoozed, JobLost, JobStuck)


class Events:
    """A place to subscribe to records by their class."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Any], tuple[Callable[[Any], object], ...]] = {}
        self._lock = threading.Lock()
        for kind in KINDS:
            if kind is not JobStarted:
                self.subscribe(kind, log)

    def subscribe(self, kind: type[E], function: Callable[[E], object]) -> Callable[[], None]:
        """Call function with every record of this kind; call what is returned to end it. Raises InvalidHandler."""
        if kind not in KINDS or not callable(function):
            names = ", ".join(one.__name__ for one in KINDS)
            raise InvalidHandler(f"subscribe: expected one of the classes {names}, and a function to call")
        with self._lock:
            self._subscribers[kind] = (*self._subscribers.get(kind, ()), function)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers[kind] = tuple(f for f in self._subscribers.get(kind, ()) if f is not function)

        return unsubscribe

    def wants(self, kind: type[Any]) -> bool:
        """Say whether anybody listens, so that a record need not be made for nobody."""
        listeners = self._subscribers.get(kind, ())
        if listeners == (log,) and kind is JobCompleted:
            return logger.isEnabledFor(logging.DEBUG)
        return bool(listeners)

    def emit(self, event: object) -> None:
        """Tell the subscribers, in the order they came; an error of one is logged and the next is told."""
        for function in self._subscribers.get(type(event), ()):
            try:
                function(event)
            except BaseException:  # SystemExit too: it would end one of the pool's threads, and nothing else
                logger.exception("a subscriber to %s failed", type(event).__name__)


def log(event: object) -> None:
    """Write one line for an event; payloads never appear in it, and of an error only its first line."""
    if isinstance(event, JobFailed):
        first_line = event.error.split("\n", 1)[0]
        what = "failed for good" if event.final else "failed and will be tried again"
        level = logging.ERROR if event.final else logging.WARNING
        logger.log(level, "job %s (%s) %s: %.500s", *_job(event.job), what, first_line, extra=_extra(event.job))
    elif isinstance(event, JobLost):
        message = "job %s (%s) was no longer ours when it ended; its outcome changed nothing"
        logger.error(message, *_job(event.job), extra=_extra(event.job))
    elif isinstance(event, JobStuck):
        message = "job %s (%s) still runs after %.0f s; its thread is here:\n%s"
        logger.warning(message, *_job(event.job), event.seconds, event.stack, extra=_extra(event.job))
    elif isinstance(event, JobSnoozed):
        logger.debug("job %s (%s) was put off: %.500s", *_job(event.job), event.exception, extra=_extra(event.job))
    elif isinstance(event, JobCompleted):
        logger.debug("job %s (%s) completed in %.3f s", *_job(event.job), event.duration, extra=_extra(event.job))
    elif isinstance(event, PoolStarted):
        logger.info("%s works on %s in %s threads", event.pool_id, ", ".join(event.tasks), event.concurrency)
    elif isinstance(event, PoolStopped):
        logger.info("%s stopped, %s handlers still running", event.pool_id, event.still_running)


def _job(job: Job) -> tuple[int, str]:
    return job.id, job.task_identifier


def _extra(job: Job) -> dict[str, Any]:
    return {"job_id": job.id, "task_identifier": job.task_identifier, "attempts": job.attempts}
