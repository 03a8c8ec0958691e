"""Every error this library raises.

    GraphileWorkerError
    ├── InvalidJobSpec(ValueError)      which argument, and what was wrong with it
    ├── InvalidSchemaName(ValueError)   a name PostgreSQL would refuse or truncate
    ├── InvalidConninfo(ValueError)     a connection string libpq cannot read
    ├── UnknownTask(LookupError)        no handler, or no task at all, is registered
    ├── DuplicateTask(ValueError)       one identifier, two handlers
    ├── InvalidHandler(TypeError)       a function that cannot work on a job
    ├── BatchResultMismatch             a list of results that does not fit the list of items
    ├── UnsafeExecutable                a program to run, or its folder, that others may write
    ├── ExecutableFailed                a program that could not be run, or did not end with 0
    ├── MigrationError
    │   ├── SchemaTooNew                a breaking migration we do not know (exit code 57)
    │   ├── SchemaTooOld                from before the oldest we can work with
    │   └── SchemaMissing               no schema yet
    └── NotSupported                    this server or installation lacks something: names what

psycopg's own errors pass through untouched. Messages never hold payloads or passwords.
"""

from __future__ import annotations


class GraphileWorkerError(Exception):
    """Stand for any error of this library: catch it to catch them all."""


class InvalidJobSpec(GraphileWorkerError, ValueError):
    """Refuse a job before it reaches the database; the message starts with the argument's name."""


class InvalidSchemaName(GraphileWorkerError, ValueError):
    """Refuse a schema name that PostgreSQL would truncate, reserve or not take as an identifier."""


class InvalidConninfo(GraphileWorkerError, ValueError):
    """Refuse a connection string that libpq cannot read; the string itself is not repeated, it may hold a password."""


class UnknownTask(GraphileWorkerError, LookupError):
    """Say that no handler is registered under an identifier, or none at all."""


class DuplicateTask(GraphileWorkerError, ValueError):
    """Refuse a second handler for an identifier that already has one."""


class InvalidHandler(GraphileWorkerError, TypeError):
    """Refuse, at registration, a function that could not work on a job."""


class BatchResultMismatch(GraphileWorkerError):
    """Fail a batch job whose handler returned a list of another length than its payload."""


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
