"""Which job a thread works on, for those who are not told: log records, above all."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from graphile_worker_py._grip import grip_here
from graphile_worker_py.jobs import Job

helped: ContextVar[Job | None] = ContextVar("graphile_worker_py.job", default=None)  # in helper threads


def current_job() -> Job | None:
    """Return the job whose handler this thread runs, or works for as a helper; None elsewhere."""
    grip = grip_here()
    return grip.job if grip is not None and grip.job is not None else helped.get()


class JobLogFilter(logging.Filter):
    """Give every record that is logged while a handler runs its job_id, task_identifier and attempts; else None.

    Add it to a handler of logging's, not to a logger: filters of loggers do not see the records of others below them.
    It drops nothing. Records of threads that a handler starts by itself, and not through ctx.submit, have None.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Fill in what the record does not say yet, and let it pass."""
        job = current_job()
        known = record.__dict__
        known.setdefault("job_id", job and job.id)
        known.setdefault("task_identifier", job and job.task_identifier)
        known.setdefault("attempts", job and job.attempts)
        return True
