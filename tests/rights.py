"""A stage for tests of roles: a role for each kind, as `roles` makes them, and somebody of each who may log in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from graphile_worker_py import Queue, roles
from graphile_worker_py._database import Database
from graphile_worker_py.roles import Roles

KINDS = (*roles.KINDS[1:], "outsider")  # who logs in; nobody does as the owner
M, W, P, V = "migrator", "worker", "producer", "viewer"

# What somebody might do, and who may. {s} is the schema, {p} the producer's; `as owner` is the migrator after SET ROLE.
ACTIONS: dict[str, set[str]] = {
    "select id, ctid, run_at, last_error from {s}._private_jobs": {W, V, "as owner"},
    "select payload from {s}._private_jobs": {W, "as owner"},
    "select j from {s}._private_jobs as j": {W, "as owner"},
    "select * from {s}.jobs": {W, V, "as owner"},
    "select * from {s}._private_tasks, {s}._private_job_queues, {s}._private_known_crontabs": {W, V, "as owner"},
    "select job_id from {s}._private_py_results": {W, V, "as owner"},
    "select result from {s}._private_py_results": {W, "as owner"},
    "select * from {s}._private_py_history, {s}._private_py_pools, {s}._private_py_progress": {W, V, "as owner"},
    "select last_value from {s}.jobs_id_seq1": {W, V, "as owner"},
    "select * from {s}.migrations, {s}._private_py_migrations": {W, V, "as owner"},
    "select id, breaking from {p}.migrations": {P, "as owner"},
    "insert into {s}.migrations values (99)": {"as owner"},
    "delete from {s}._private_py_migrations": {"as owner"},
    "insert into {s}._private_tasks (identifier) values ('new')": {W, "as owner"},
    "insert into {s}._private_jobs (task_id) values (1)": {W, "as owner"},
    "update {s}._private_jobs set priority = 1": {W, "as owner"},
    "delete from {s}._private_jobs": {W, "as owner"},
    "truncate {s}._private_jobs": {"as owner"},
    "lock {s}._private_jobs in share row exclusive mode": {W, "as owner"},
    "alter table {s}._private_jobs disable row level security": {"as owner"},
    "create policy mine on {s}._private_jobs using (true)": {"as owner"},
    "create table {s}.mine ()": {"as owner"},
    "create table {p}.mine ()": {"as owner"},
    "create or replace function {p}.add_job() returns int language sql as 'select 1'": {"as owner"},
    "drop table {s}._private_py_results": {"as owner"},
    "drop schema {s} cascade": {"as owner"},
    "select {s}.add_job('task')": {W, "as owner"},
    "select {s}.add_jobs(array[row('task', '1', null, null, null, null, null, null)::{s}.job_spec])": {W, "as owner"},
    "select {s}.remove_job('key')": {W, "as owner"},
    "select {s}.complete_jobs('{{1}}')": {W, "as owner"},
    "select {p}.add_job('task')": {P, "as owner"},
    "select {p}.add_jobs(array[row('task', '1', null, null, null, null, null, null)::{p}.job_spec])": {P, "as owner"},
    "select {p}._private_guard('{{task}}', '{{key}}')": {"as owner"},
    "set role {o}": {M, "as owner"},
}


class Stage:
    """A database with the roles of one schema. Roles are the whole server's: their names begin with the database's."""

    def __init__(self, url: str, stack: ExitStack, *, schema: str) -> None:
        self.admin = stack.enter_context(psycopg.connect(url, autocommit=True))
        self._stack = stack
        self._url = url
        prefix = self.admin.info.dbname
        self.roles = Roles(
            schema=schema,
            members=[(kind, f"{prefix}_{kind}_login") for kind in KINDS[:-1]],
            producer_schema=f"{schema} for producers",
            **{kind: f'{prefix} "{kind}" 100%' for kind in roles.KINDS},
        )
        self.logins = {kind: f"{prefix}_{kind}_login" for kind in KINDS}
        stack.callback(self._drop, [*self.roles.names, *self.logins.values()])
        for name in self.logins.values():
            self.admin.execute(sql.SQL("create role {} login password 'x'").format(sql.Identifier(name)))

    def set_up(self, tasks: Sequence[str] = (), *, by: str | None = None) -> None:
        """Run the script, with a producer limited to these tasks, as somebody other than a superuser if named."""
        self.roles = attrs.evolve(self.roles, tasks=tasks)
        self.run(roles.set_up(self.roles), by=by)

    def run(self, script: sql.Composed, *, by: str | None = None) -> None:
        database = Database(self.url(by) if by else self._url)
        self._stack.callback(database.close)
        roles.apply(database, script)

    def url(self, kind: str) -> str:
        """Return the conninfo of who is of this kind."""
        return make_conninfo(self._url, user=self.logins[kind], password="x")  # noqa: S106 - of a role that lives as long as a test

    def connect(self, kind: str, *, autocommit: bool = True) -> psycopg.Connection:
        return self._stack.enter_context(psycopg.connect(self.url(kind), autocommit=autocommit))

    def queue(self, kind: str, **options: Any) -> Queue:
        schema = self.roles.producer_schema if kind == "producer" else self.roles.schema
        return self._stack.enter_context(Queue(self.url(kind), schema=schema, **options))

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            if self.admin.execute("select from pg_roles where rolname = %s", [name]).fetchone() is not None:
                self.admin.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
        for name in names:
            self.admin.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


@contextmanager
def staged(url: str, *, schema: str = "graphile_worker") -> Iterator[Stage]:
    """Yield a stage in a database; the roles are gone in the end."""
    with ExitStack() as stack:
        yield Stage(url, stack, schema=schema)


def allowed(connection: psycopg.Connection, stage: Stage, action: str, *, first: str = "") -> bool:
    """Say whether somebody may do something; nothing is left of it."""
    names = {"s": stage.roles.schema, "p": stage.roles.producer_schema, "o": stage.roles.owner}
    statement = sql.SQL(first + action).format(**{name: sql.Identifier(text) for name, text in names.items()})
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    finally:
        connection.rollback()
    return True


def table(stage: Stage) -> dict[str, set[str]]:
    """Return who may do what."""
    stage.admin.execute(
        sql.SQL("select {}.add_job('task', job_key => 'key')").format(sql.Identifier(stage.roles.schema))
    )
    connections = {kind: stage.connect(kind, autocommit=False) for kind in KINDS}
    found = {}
    for action in ACTIONS:
        found[action] = {kind for kind, connection in connections.items() if allowed(connection, stage, action)}
        if allowed(connections[M], stage, action, first="set local role {o};"):
            found[action].add("as owner")
    return found


def owners(stage: Stage) -> set[str]:
    """Return the owners of the queue's schemas and of all that is in them."""
    query = """
        select pg_get_userbyid(o) from pg_namespace as n cross join lateral (
            select n.nspowner union select relowner from pg_class where relnamespace = n.oid
            union select proowner from pg_proc where pronamespace = n.oid
            union select typowner from pg_type where typnamespace = n.oid
        ) as a (o) where n.nspname in (%s, %s)
    """
    return {owner for (owner,) in stage.admin.execute(query, [stage.roles.schema, stage.roles.producer_schema])}
