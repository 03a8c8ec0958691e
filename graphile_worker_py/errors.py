"""Every error this library raises.

    GraphileWorkerError
    ├── InvalidJobSpec(ValueError)      which argument, and what was wrong with it
    ├── InvalidSchemaName(ValueError)   a name PostgreSQL would refuse or truncate
    ├── InvalidRoles(ValueError)        a name for a role, or what it is to be a member of
    ├── InvalidConninfo(ValueError)     a connection string libpq cannot read, or a setting it refuses
    ├── InvalidCrontab(ValueError)      file, line, column, and what was expected there
    ├── UnknownCronItem(LookupError)    no cron item is known by an identifier
    ├── UnknownTask(LookupError)        no handler, or no task at all, is registered
    ├── DuplicateTask(ValueError)       one identifier, two handlers
    ├── InvalidHandler(TypeError)       a function that cannot work on a job, or what is none
    ├── InvalidPayload(ValueError)      a payload that is not what its handler's annotation asks for
    ├── BatchResultMismatch             a list of results that does not fit the list of items
    ├── JobTimeout                      a handler that ran longer than it may
    ├── JobCancelled                    a handler that was told to end, by queue.cancel or a pool that stops
    ├── JobNotHeld                      a job to complete that is done, or that another worker has
    ├── JobFailedForGood                a job that was waited for, and has no attempts left
    ├── ResultMissing(LookupError)      a job that was waited for, and is gone without the result it should have left
    ├── UnsafeExecutable                a program to run, or its folder, that others may write
    ├── ExecutableFailed                a program that could not be run, or did not end with 0
    ├── MigrationError
    │   ├── SchemaTooNew                a breaking migration we do not know (exit code 57)
    │   ├── SchemaTooOld                from before the oldest we can work with
    │   └── SchemaMissing               no schema yet
    └── NotSupported                    this server or installation lacks something: names what

What a handler raises to steer its job (RetryLater, Snooze, GiveUp) is no error: see retry.py.
psycopg's own errors pass through untouched. Messages never hold payloads or passwords.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class GraphileWorkerError(Exception):
    """Stand for any error of this library: catch it to catch them all."""


class InvalidJobSpec(GraphileWorkerError, ValueError):
    """Refuse a job before it reaches the database; the message starts with the argument's name."""


class InvalidSchemaName(GraphileWorkerError, ValueError):
    """Refuse a schema name that PostgreSQL would truncate, reserve or not take as an identifier."""


class InvalidRoles(GraphileWorkerError, ValueError):
    """Refuse names of roles that PostgreSQL would cut or reserves, or that do not differ where they have to."""


class InvalidConninfo(GraphileWorkerError, ValueError):
    """Refuse what libpq cannot read or does not take; the string itself is not repeated, it may hold a password."""


class CrontabProblem(NamedTuple):
    """One thing that is wrong in a crontab: line and column count from 1, `text` is the line.

    In `text` the letters and digits of a payload are masked, for it may hold secrets; str() is the whole message, with
    a caret below the place.
    """

    file: str
    line: int
    column: int
    message: str
    text: str

    def __str__(self) -> str:
        shown = "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in self.text)
        start = max(0, self.column - 80)
        before = "".join("\t" if letter == "\t" else " " for letter in shown[start : self.column - 1])
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.message}\n    {shown[start : self.column + 79]}\n    {before}^"


class InvalidCrontab(GraphileWorkerError, ValueError):
    """Refuse a crontab, or an item of one; `problems` are all that are in a file, each with its place."""

    def __init__(self, message: str, problems: Iterable[CrontabProblem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class UnknownCronItem(GraphileWorkerError, LookupError):
    """Say that no cron item has an identifier, and which there are."""


class UnknownTask(GraphileWorkerError, LookupError):
    """Say that no handler is registered under an identifier, or none at all."""


class DuplicateTask(GraphileWorkerError, ValueError):
    """Refuse a second handler for an identifier that already has one."""


class InvalidHandler(GraphileWorkerError, TypeError):
    """Refuse, at registration, a function that could not work on a job, or what is no task or event at all."""


class InvalidPayload(GraphileWorkerError, ValueError):
    """Fail a job whose payload does not fit its handler; `problems` are all that is wrong, each after its path.

    None of them holds what was in the payload: only paths and the names of types.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(self.problems[:20])
        more = len(self.problems) - 20
        super().__init__(f"{shown}; and {more} more" if more > 0 else shown)

    def __reduce__(self) -> tuple[type[InvalidPayload], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class BatchResultMismatch(GraphileWorkerError):
    """Fail a batch job whose handler returned a list of another length than its payload."""


class JobTimeout(GraphileWorkerError):
    """Fail a job whose handler ran longer than it may; raised in the handler, which may tidy up."""


class JobCancelled(GraphileWorkerError):
    """End a handler that was told to: by `Queue.cancel`, or since the pool stops and the grace is over."""


class JobNotHeld(GraphileWorkerError):
    """Refuse to complete a job in a transaction: it is completed already, or was given to another worker."""


class JobFailedForGood(GraphileWorkerError):
    """Tell who waits for a job that it has failed and is not tried again; `last_error` is the text stored with it."""

    def __init__(self, job_id: int, task_identifier: str, last_error: str | None) -> None:
        first_line = (last_error or "no error is stored").split("\n", 1)[0]
        super().__init__(f"job {job_id} ({task_identifier}) has failed for good: {first_line:.500}")
        self.job_id = job_id
        self.task_identifier = task_identifier
        self.last_error = last_error


class ResultMissing(GraphileWorkerError, LookupError):
    """Tell who waits for a job that it is gone, but has not left the result that its task keeps."""


class UnsafeExecutable(GraphileWorkerError):
    """Refuse to run what other users may change; the message holds the commands that mend it."""


class ExecutableFailed(GraphileWorkerError):
    """Fail a job whose program could not be run, ended with another code than 0, or had to be stopped."""


class MigrationError(GraphileWorkerError):
    """Say that the schema could not be brought, or is not, to the state this version needs."""


class SchemaTooNew(MigrationError):
    """Refuse a schema with a breaking migration this version does not know; the daemon exits with 57, as Node's."""


class SchemaTooOld(MigrationError):
    """Refuse a schema from before the oldest one this version can work with or upgrade."""


class SchemaMissing(MigrationError):
    """Say that nothing is installed in this schema yet."""


class NotSupported(GraphileWorkerError):
    """Say what this server, role or installation lacks, and what to do about it."""
