"""Install the schema and bring it up to date, by the rules of Node's ledger.

The table `migrations` belongs to Node's worker and holds Node's numbers only, each with whether it breaks older
workers. Only the highest number counts; rows missing in between do not. What a ledger says, and what comes of it:

    nothing, and none of our names taken     everything is installed: rows 1 to 20, in one transaction
    nothing, yet some of our names taken     MigrationError: a restored dump without its rows, or a foreign schema
    1 to 17, and growing                     Node's installer is at work, each row a transaction: wait for it
    1 to 17                                  SchemaTooOld: graphile-worker 0.17 or later has to upgrade it first
    18, 19                                   migrations 19 and 20, or 20, are run; running Node workers are notified
    20                                       nothing is done, nothing is locked but the ledger's lock
    above 20, breaking                       SchemaTooNew (the daemon exits with 57, as Node's does)
    above 20, not breaking                   a warning in the log, nothing is run

All of it is one transaction under an advisory lock, so any number of Python installers wait for each other. Node's
does not know that lock. It and ours meet in the catalog or at a row of the ledger, one of the two fails with a
duplicate, and if that is ours it reads the ledger again.

Whoever may become the owner of the tables does so for the transaction: everything in the schema stays that one role's,
and a role that is a member of the owner can migrate. See roles.py.

Our own objects (_private_py_...) have a ledger of their own and are added in the same transaction, wherever the schema
came from; who lacks the privilege does without.

The numbered files are in migrations/: inside the package where it was built into a wheel, beside it in a checkout.
"""

from __future__ import annotations

import logging
import math
import random
import re
import time
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import cast

import attrs
import psycopg
from psycopg import errors as pg

from graphile_worker_py._conninfo import check_schema
from graphile_worker_py._database import Connection, Database, run_script
from graphile_worker_py._own_connection import AnyConnection
from graphile_worker_py._statements import compose
from graphile_worker_py.errors import MigrationError, NotSupported, SchemaMissing, SchemaTooNew, SchemaTooOld

LATEST = 20
OLDEST_USABLE = 19  # from here on locked_by holds the id of a pool
OLDEST_UPGRADABLE = 18
OLDEST_SERVER = 120000

OWN = "py_"  # the files of our own objects begin with it

TRIES = 10
PATIENCE = 3.0  # seconds without a new row until a ledger below 18 counts as left at that
GLANCE = 0.05  # seconds between two looks at a growing ledger

# What of our names a schema for producers holds, which roles.py makes.
PRODUCERS_NAMES = ("_private_job_queues", "_private_tasks", "job_spec")

NOT_ALLOWED = (pg.InsufficientPrivilege, NotSupported)  # of a script that is run, and of a statement of ours

# What the loser of a race between two installers is told.
LOST_RACE = (
    pg.UniqueViolation,
    pg.DuplicateSchema,
    pg.DuplicateTable,
    pg.DuplicateObject,
    pg.DuplicateFunction,
    pg.DeadlockDetected,
    pg.InternalError_,  # tuple concurrently updated, in whatever language
)

HOW = "run queue.migrate() or graphile-worker-py migrate"

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class _Ledger:
    """What was found: `newest` and `breaking` are the highest numbers, None where there is none."""

    columns: tuple[str, ...] | None
    objects: tuple[str, ...]
    owner: str | None
    role: str
    has_own: bool
    newest: int | None = None
    breaking: int | None = None
    has_tables: bool = False

    @property
    def unfinished(self) -> bool:
        """Return whether it stands below what can be upgraded, for good or because Node is still at it."""
        return self.newest is not None and self.newest < OLDEST_UPGRADABLE


def migrate(database: Database) -> list[int]:
    """Install the schema or bring it up to date; return the numbers added to the ledger, [] when there were none.

    Safe to call from any number of processes at once, Node's among them. Raises MigrationError (SchemaTooOld,
    SchemaTooNew) or NotSupported; see the table above.
    """
    lost: psycopg.Error | None = None
    with closing(database.connect()) as connection:
        connection.patience = math.inf  # others may be installing, and big tables take their time
        _prepare(connection)
        for _ in range(TRIES):
            try:
                _wait_while_growing(database, connection)
                with connection.transaction():
                    applied = _bring_up(database, connection)
                if applied is not None:
                    return applied
            except LOST_RACE as error:
                lost = error
            time.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - spreads the losers of a race, guards nothing
    reason = lost.diag.message_primary if lost else "its ledger kept changing"
    raise MigrationError(
        f"schema {database.schema!r} could not be installed in {TRIES} tries ({reason}): "
        "see whether another installer is running or something of that name is in the way, then try again"
    ) from lost


def check(database: Database, connection: object = None) -> int:
    """Return the highest number in the ledger, if this version can work with it; read-only.

    Raises SchemaMissing, SchemaTooOld (below 19) or SchemaTooNew; an unknown number that is not breaking is a
    warning. With `connection`, looks through that one and leaves its transaction as it is.
    """
    with database.connection(connection) as given:
        ledger = _read(database, given)
    if ledger.newest is None:
        _refuse_for_producers(database, ledger)
        raise SchemaMissing(f"schema {database.schema!r} is not installed in this database: {HOW}")
    _judge(database, ledger)
    if ledger.newest < OLDEST_USABLE:
        raise SchemaTooOld(
            f"schema {database.schema!r} is at migration {ledger.newest}, "
            f"this version needs {OLDEST_USABLE} or later: {HOW}"
        )
    return ledger.newest


def own_state(database: Database, connection: Connection) -> tuple[int | None, int]:
    """Return the highest number in the ledger of our own objects, None without one, and the highest that we know."""
    has_own = _read(database, connection).has_own
    newest = database.run_on(connection, "own_ledger")[0][0] if has_own else None
    return newest, max(_texts(OWN))


def script(schema: str) -> str:
    """Return the SQL of a fresh install, one transaction, for people whose DBA applies it.

    On a schema that has a ledger it fails at the first row and changes nothing.
    """
    head = (
        "-- The tables of Graphile Worker, for a schema that does not have them yet. One transaction: all or nothing.\n"
    )
    lock = (files("graphile_worker_py") / "sql" / "ledger_lock.sql").read_text("utf-8")
    begin = "begin transaction isolation level read committed, read write;\n"
    texts = [head + begin, lock.rstrip() + ";\n", *_texts().values(), *_texts(OWN).values(), "commit;\n"]
    return "\n".join(compose(text, check_schema(schema)).as_string() for text in texts)


def _prepare(connection: Connection) -> None:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise NotSupported(
            f"this server is PostgreSQL {version // 10000}, "
            f"the schema needs {OLDEST_SERVER // 10000} or later: upgrade it"
        )
    # Whatever the role's defaults are: what is read after the lock must be what is there after the lock.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.read_only = False
    connection.deferrable = False


def _bring_up(database: Database, connection: Connection) -> list[int] | None:
    """Run what is missing, in the transaction that is open; return what was added, None where to look again."""
    database.run_on(connection, "ledger_lock")
    ledger = _read_as_owner(database, connection)
    if ledger.unfinished:
        return None
    _judge(database, ledger)
    if ledger.newest is None:
        _refuse_names_taken(database, ledger)
    try:
        for number, text in _texts().items():
            if number > (ledger.newest or -1) or (not number and "breaking" not in (ledger.columns or ())):
                run_script(connection, text, database.schema)
    except NOT_ALLOWED as error:
        raise _not_allowed(database, ledger, error) from error
    _add_own(database, connection, ledger)
    applied = list(range((ledger.newest or 0) + 1, LATEST + 1))
    if applied:
        logger.info("schema %r: migrations %d to %d applied", database.schema, applied[0], LATEST)
    return applied


def _add_own(database: Database, connection: Connection, ledger: _Ledger) -> None:
    """Install our own objects, which nothing depends on: a role that may not make them is told and goes on."""
    try:
        with connection.transaction():
            newest = database.run_on(connection, "own_ledger")[0][0] if ledger.has_own else None
            for number, text in _texts(OWN).items():
                if number > (newest or 0):
                    run_script(connection, text, database.schema)
    except NOT_ALLOWED as error:
        logger.warning("%s: workers do without our own objects", _not_allowed(database, ledger, error))


def _read(database: Database, connection: AnyConnection) -> _Ledger:
    """Read the catalog, then the ledger if there is one; Node's installer only adds, so the second is never older."""
    ((columns, objects, owner, role, has_own),) = database.run_on(
        connection, "ledger_state", {"schema": database.schema}
    )
    ledger = _Ledger(
        columns=tuple(columns) if columns else None, objects=tuple(objects), owner=owner, role=role, has_own=has_own
    )
    if ledger.columns is None:
        return ledger
    if not {"id", "ts"} <= set(ledger.columns):
        raise MigrationError(
            f"schema {database.schema!r} has a table migrations that is not Graphile Worker's: use another schema"
        )
    try:
        ((newest, breaking, has_tables),) = database.run_on(connection, "ledger_rows", {"schema": database.schema})
    except NOT_ALLOWED as error:
        raise _not_allowed(database, ledger, error) from error
    return attrs.evolve(ledger, newest=newest, breaking=breaking, has_tables=has_tables)


def _read_as_owner(database: Database, connection: Connection) -> _Ledger:
    """Become the owner of the tables, if we may, until the transaction ends, and read; what is made is the owner's."""
    database.run_on(connection, "become_owner", {"schema": database.schema})
    return _read(database, connection)


def _judge(database: Database, ledger: _Ledger) -> None:
    """Refuse what we do not know and what cannot be; warn of what we do not know but may work with."""
    if ledger.breaking is not None and ledger.breaking > LATEST:
        raise SchemaTooNew(
            f"schema {database.schema!r} is at breaking migration {ledger.breaking}, "
            f"this version knows {LATEST} at most: upgrade graphile-worker-py"
        )
    if ledger.newest is None:
        return
    if ledger.newest >= OLDEST_UPGRADABLE and not ledger.has_tables:
        raise MigrationError(
            f"schema {database.schema!r} is at migration {ledger.newest} by its ledger, "
            "but has no table _private_jobs: restore its tables, or empty the table migrations to install anew"
        )
    if ledger.newest > LATEST:
        logger.warning(
            "schema %r is at migration %d, this version knows %d; it is not marked as breaking, so we go on",
            database.schema,
            ledger.newest,
            LATEST,
        )


def _refuse_for_producers(database: Database, ledger: _Ledger) -> None:
    if ledger.columns is None and ledger.objects == PRODUCERS_NAMES:
        raise SchemaMissing(
            f"schema {database.schema!r} is one for producers, where jobs are added and nothing else is done: "
            "name the schema that the tables are in"
        )


def _refuse_names_taken(database: Database, ledger: _Ledger) -> None:
    if not ledger.objects:
        return
    _refuse_for_producers(database, ledger)
    names = ", ".join(ledger.objects[:3]) + (" and more" if len(ledger.objects) > 3 else "")
    if ledger.columns is None:
        raise MigrationError(
            f"schema {database.schema!r} has no ledger of migrations but already holds {names}: use another schema, "
            "or restore its table migrations"
        )
    raise MigrationError(
        f"schema {database.schema!r} holds {names} but its table migrations is empty, so nobody knows their age: "
        "restore its rows, or use another schema"
    )


def _glance(database: Database, connection: Connection) -> _Ledger:
    with connection.transaction():
        return _read_as_owner(database, connection)


def _wait_while_growing(database: Database, connection: Connection) -> None:
    """Return once the ledger is not, or no longer, below 18; raise SchemaTooOld when it has stopped there."""
    seen: int | None = None
    patience = 0.0
    while (ledger := _glance(database, connection)).unfinished:
        if ledger.newest != seen:
            seen, patience = ledger.newest, time.monotonic() + PATIENCE
        elif time.monotonic() > patience:
            raise SchemaTooOld(
                f"schema {database.schema!r} is at migration {seen}, too old to upgrade from here: "
                f"let graphile-worker (Node) 0.17 or later upgrade it first, then {HOW}"
            )
        time.sleep(GLANCE)


def _not_allowed(database: Database, ledger: _Ledger, error: Exception) -> NotSupported:
    """Return the error that names who may, as far as the catalog tells."""
    denied = cast("psycopg.Error", error.__cause__ if isinstance(error, NotSupported) else error)
    what = f"role {ledger.role!r} may not do this in schema {database.schema!r} ({denied.diag.message_primary})"
    if ledger.owner is None:
        return NotSupported(
            f"{what}: {HOW} as a role that may create it, "
            "or have it created first (create schema ... authorization ...)"
        )
    return NotSupported(f"{what}, which belongs to {ledger.owner!r}: {HOW}, and the worker, as that role")


def _texts(prefix: str = "") -> dict[int, str]:
    """Return the numbered files by number, in order: Node's numbers, or with a prefix those of our own objects."""
    folder = files("graphile_worker_py") / "migrations"
    if not folder.is_dir():
        folder = Path(__file__).resolve().parent.parent / "migrations"
    name = re.compile(prefix + r"(\d{6})_\w+\.sql")
    found = {int(match[1]): entry for entry in folder.iterdir() if (match := name.fullmatch(entry.name))}
    return {number: found[number].read_text("utf-8") for number in sorted(found)}
