"""A job queue for Python threads on PostgreSQL, in the tables of Graphile Worker."""

from graphile_worker_py._running import Cancellation, Progress
from graphile_worker_py._version import __version__
from graphile_worker_py.cron.crontab import CronItem
from graphile_worker_py.current import JobLogFilter, current_job
from graphile_worker_py.errors import (
    BatchResultMismatch,
    CrontabProblem,
    DuplicateTask,
    ExecutableFailed,
    GraphileWorkerError,
    InvalidConninfo,
    InvalidCrontab,
    InvalidHandler,
    InvalidJobSpec,
    InvalidPayload,
    InvalidRoles,
    InvalidSchemaName,
    JobCancelled,
    JobFailedForGood,
    JobNotHeld,
    JobTimeout,
    MigrationError,
    NotSupported,
    ResultMissing,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    UnknownCronItem,
    UnknownTask,
    UnsafeExecutable,
)
from graphile_worker_py.events import (
    JobCompleted,
    JobFailed,
    JobLost,
    JobSnoozed,
    JobStarted,
    JobStuck,
    PoolStarted,
    PoolStopped,
)
from graphile_worker_py.executables import executable_tasks
from graphile_worker_py.history import JobRun
from graphile_worker_py.jobs import Job, JobCount, JobInfo, JobSpec, Page, RunSummary, TaskStats
from graphile_worker_py.limits import Limit, Rate
from graphile_worker_py.listing import QueueInfo, WorkerInfo
from graphile_worker_py.queue import Queue
from graphile_worker_py.quick import quick_add_job
from graphile_worker_py.retry import Backoff, GiveUp, RetryLater, Snooze
from graphile_worker_py.signatures import AddJob
from graphile_worker_py.tasks import Task, Tasks
from graphile_worker_py.worker.context import JobContext
from graphile_worker_py.worker.health import Health
from graphile_worker_py.worker.pool import WorkerPool

__all__ = [
    "AddJob",
    "Backoff",
    "BatchResultMismatch",
    "Cancellation",
    "CronItem",
    "CrontabProblem",
    "DuplicateTask",
    "ExecutableFailed",
    "GiveUp",
    "GraphileWorkerError",
    "Health",
    "InvalidConninfo",
    "InvalidCrontab",
    "InvalidHandler",
    "InvalidJobSpec",
    "InvalidPayload",
    "InvalidRoles",
    "InvalidSchemaName",
    "Job",
    "JobCancelled",
    "JobCompleted",
    "JobContext",
    "JobCount",
    "JobFailed",
    "JobFailedForGood",
    "JobInfo",
    "JobLogFilter",
    "JobLost",
    "JobNotHeld",
    "JobRun",
    "JobSnoozed",
    "JobSpec",
    "JobStarted",
    "JobStuck",
    "JobTimeout",
    "Limit",
    "MigrationError",
    "NotSupported",
    "Page",
    "PoolStarted",
    "PoolStopped",
    "Progress",
    "Queue",
    "QueueInfo",
    "Rate",
    "ResultMissing",
    "RetryLater",
    "RunSummary",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "Snooze",
    "Task",
    "TaskStats",
    "Tasks",
    "UnknownCronItem",
    "UnknownTask",
    "UnsafeExecutable",
    "WorkerInfo",
    "WorkerPool",
    "__version__",
    "current_job",
    "executable_tasks",
    "quick_add_job",
]
