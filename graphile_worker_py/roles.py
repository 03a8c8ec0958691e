"""The SQL of a set-up of roles in which each may do what it has to, and no more; printed, or run in one transaction.

    owner     everything of the queue belongs to it; nobody logs in as it
    migrator  may become the owner, which `migrate` does by itself
    worker    runs jobs: reads and writes rows, changes no table
    producer  adds jobs, of any task or of those that are named
    viewer    reads all but payloads and results

A producer has no right on the tables, nor on the schema they are in. It gets a schema of its own with an add_job and an
add_jobs that run with the owner's rights, and with the few names beside them that clients look for: so a Queue, or
Node's tools, that are given this schema in place of the other one just work.

The SQL is the same whatever is there: it asks for itself, and changes what has to change. It can be printed without a
database, by somebody who may not set up anything, for somebody who may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import attrs
import psycopg
from psycopg import sql

from graphile_worker_py._conninfo import BODY_TAG, MAX_IDENTIFIER_BYTES, check_schema
from graphile_worker_py._database import Database, run_composed
from graphile_worker_py._statements import compose, source
from graphile_worker_py.checks import check_text
from graphile_worker_py.errors import GraphileWorkerError, InvalidRoles, NotSupported

KINDS = ("owner", "migrator", "worker", "producer", "viewer")
REFUSED = "GWROL"  # the SQLSTATE of what the script itself refuses

SET_UP = (
    "roles_check",
    "roles_check_installed",
    "roles_create",
    "roles_borrow",
    "roles_own",
    "roles_create_producer_schema",
    "roles_act",
    "roles_worker",
    "roles_viewer",
    "roles_policies",
    "roles_producer_names",
    "roles_guard",
    "roles_add_job",
    "roles_add_jobs",
    "roles_producer",
    "roles_stop_acting",
    "roles_give_back",
)
CREATE_SCHEMA = ("roles_check", "roles_create", "roles_borrow", "roles_create_schema", "roles_give_back")
UNDO = ("roles_check", "roles_borrow", "roles_act", "roles_undo", "roles_stop_acting", "roles_own", "roles_give_back")

HEAD = """\
-- Roles for a job queue. One transaction, all or nothing. To be run again after each migration that brings tables, and
-- whenever something in it is to change; by a superuser, or by a role that owns the tables, has CREATEROLE, and may
-- create schemas in this database.
"""
LEFT = """
-- The roles are left, for they may have members, and be used in other databases:
--   drop role {names};
"""


def _check_name(what: str, name: object) -> None:
    """Refuse what PostgreSQL would cut or does not take; and what would end a comment, or a function's body, early."""
    if not isinstance(name, str) or not name:
        raise InvalidRoles(f"{what}: expected a non-empty str, got {name!r:.40}")
    if len(name.encode("utf-8", "replace")) > MAX_IDENTIFIER_BYTES:
        raise InvalidRoles(f"{what}: {name!r} is longer than {MAX_IDENTIFIER_BYTES} bytes; give it a shorter name")
    if name in ("public", "none") or name.startswith("pg_"):
        raise InvalidRoles(f"{what}: {name!r} is reserved by PostgreSQL; use another name")
    if not name.isprintable() or BODY_TAG in name:
        raise InvalidRoles(f"{what}: {name!r} holds a control character or {BODY_TAG}; use another name")


def _check_tasks(roles: Roles, attribute: object, tasks: tuple[str, ...]) -> None:
    for task in tasks:
        if BODY_TAG in check_text("tasks", task, shortest=1, longest=128):
            raise InvalidRoles(f"tasks: {task!r} holds {BODY_TAG}")


def _tupled(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts as a tuple; refuse a single one, whose letters would each be one."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise InvalidRoles(f"tasks: expected an iterable of str, got {type(texts).__name__}; put it in a list")
    return tuple(texts)


def _pairs(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((kind, member) for kind, member in pairs)
    except (TypeError, ValueError):
        raise InvalidRoles('members: expected pairs in a list, such as [("worker", "app")]') from None


def _named(kind: str) -> Any:
    """Return a field for a name that follows from the schema's unless it is given."""
    follows = attrs.Factory(lambda roles: f"{roles.schema}_{kind}", takes_self=True)
    return attrs.field(default=follows, validator=lambda roles, field, name: _check_name(field.name, name))


@attrs.frozen(kw_only=True)
class Roles:
    """The names of the roles for a schema, of the producer's own schema, and the tasks it may add jobs of; () is all.

    members: pairs of a kind of role, such as "worker", and a role that is to be a member of it. Names that are not
    given begin with the schema's. Raises InvalidRoles, InvalidSchemaName, and InvalidJobSpec for a task's name.
    """

    schema: str = attrs.field(converter=check_schema)
    owner: str = _named("owner")
    migrator: str = _named("migrator")
    worker: str = _named("worker")
    producer: str = _named("producer")
    viewer: str = _named("viewer")
    producer_schema: str = _named("producer")
    tasks: tuple[str, ...] = attrs.field(default=(), converter=_tupled, validator=_check_tasks)
    members: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)

    def __attrs_post_init__(self) -> None:
        """Refuse names that do not differ where they must, and members of what is no role."""
        if len(set(self.names)) < len(KINDS):
            raise InvalidRoles("two of the roles have the same name; give each one of its own")
        if "public" in (self.schema, self.producer_schema) or self.schema == self.producer_schema:
            raise InvalidRoles("the tables and the producer need a schema each, and neither may be public; name others")
        for kind, member in self.members:
            if kind not in KINDS[1:]:
                raise InvalidRoles(f"members: expected one of {', '.join(KINDS[1:])}, got {kind!r}")
            _check_name("members", member)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the roles, in the order of KINDS."""
        return tuple(getattr(self, kind) for kind in KINDS)


def set_up(roles: Roles) -> sql.Composed:
    """Return the SQL that sets up the roles of a schema that is installed."""
    return _transaction(roles, SET_UP, heir=sql.Literal(roles.owner))


def create_schema(roles: Roles) -> sql.Composed:
    """Return the SQL that makes the roles, and an empty schema for a migrator to install the tables in."""
    return _transaction(roles, CREATE_SCHEMA)


def undo(roles: Roles) -> sql.Composed:
    """Return the SQL that takes all rights from the roles, and gives the tables to whoever runs it."""
    names = sql.SQL(", ").join(map(sql.Identifier, roles.names))
    return _transaction(roles, UNDO, heir=sql.SQL("current_user")) + sql.SQL(LEFT).format(names=names)


def owner_of(database: Database, schema: str) -> tuple[str, bool] | None:
    """Return who owns the tables of a schema, and whether that is a superuser; None where they are not installed."""
    rows = database.run("roles_state", {"schema": schema})
    return (rows[0][0], rows[0][1]) if rows else None


def apply(database: Database, script: sql.Composed) -> None:
    """Run SQL of this module, which changes all or nothing.

    Raises NotSupported with what is in the way, GraphileWorkerError for a lock that is held, and psycopg's errors.
    """
    try:
        with closing(database.connect()) as connection:
            run_composed(connection, script)
    except psycopg.errors.LockNotAvailable as error:
        raise GraphileWorkerError(
            "somebody has held a lock on the tables for ten seconds: nothing was changed, try again"
        ) from error
    except psycopg.DatabaseError as error:
        if error.sqlstate != REFUSED:
            raise
        raise NotSupported(str(error.diag.message_primary)) from error


def _transaction(roles: Roles, names: Iterable[str], *, heir: sql.Composable = sql.NULL) -> sql.Composed:
    words = {**_words(roles), "heir": heir}
    parts = [sql.SQL(HEAD + "begin"), *(_statement(roles, name, words) for name in names)]
    for kind, member in roles.members:
        parts.append(_statement(roles, "roles_member", {"role": words[kind], "member": sql.Identifier(member)}))
    return sql.SQL(";\n\n").join([*parts, sql.SQL("commit")]) + sql.SQL(";\n")


def _statement(roles: Roles, name: str, words: Mapping[str, sql.Composable]) -> sql.Composed:
    return compose(source(name).rstrip(), roles.schema, words)


def _words(roles: Roles) -> dict[str, sql.Composable]:
    """Return what stands in braces in the statements: names as identifiers, as literals, and lists of them."""
    words: dict[str, sql.Composable] = {
        "schema_name": sql.Literal(roles.schema),
        "roles": _array(roles.names),
        "tasks": _array(roles.tasks) if roles.tasks else sql.NULL,
    }
    for what in (*KINDS, "producer_schema"):
        words[what] = sql.Identifier(getattr(roles, what))
        words[f"{what}_name"] = sql.Literal(getattr(roles, what))
    return words


def _array(texts: Iterable[str]) -> sql.Composed:
    return sql.SQL("array[{}]").format(sql.SQL(", ").join(map(sql.Literal, texts)))
