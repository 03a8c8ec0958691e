"""`graphile-worker-py roles`: print the SQL of a set-up of roles with few rights, or run it."""

from __future__ import annotations

import click

from graphile_worker_py import Queue, SchemaMissing
from graphile_worker_py import roles as rights
from graphile_worker_py.cli._options import Epilog, not_empty, shared_options
from graphile_worker_py.cli._output import confirm, say
from graphile_worker_py.roles import Roles


def read_members(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return pairs of a kind of role and a member of it; raise click.BadParameter for what is not written KIND=ROLE."""
    pairs = []
    for text in texts:
        kind, _, member = text.partition("=")
        if kind not in rights.KINDS[1:] or not member:
            raise click.BadParameter(
                f"{text!r} is not KIND=ROLE, where KIND is one of {', '.join(rights.KINDS[1:])}, as in worker=app"
            )
        pairs.append((kind, member))
    return pairs


@click.command("roles", cls=Epilog)
@click.option("--task", "tasks", metavar="NAME", multiple=True, help="Limit the producer to this task. Repeatable.")
@click.option(
    "--grant",
    "members",
    metavar="KIND=ROLE",
    multiple=True,
    callback=read_members,
    help="Make a role that logs in a member: migrator=deploy, worker=app, producer=web or viewer=ann. Repeatable.",
)
@click.option("--owner", metavar="NAME", callback=not_empty, help="Owns the tables. [default: SCHEMA_owner]")
@click.option("--migrator", metavar="NAME", callback=not_empty, help="Migrates. [default: SCHEMA_migrator]")
@click.option("--worker", metavar="NAME", callback=not_empty, help="Runs jobs. [default: SCHEMA_worker]")
@click.option("--producer", metavar="NAME", callback=not_empty, help="Adds jobs. [default: SCHEMA_producer]")
@click.option("--viewer", metavar="NAME", callback=not_empty, help="Reads. [default: SCHEMA_viewer]")
@click.option(
    "--producer-schema",
    metavar="NAME",
    callback=not_empty,
    help="What a producer gives as its --schema. [default: SCHEMA_producer]",
)
@click.option(
    "--create-schema", is_flag=True, help="Make the roles and an empty schema only, for a migrator to install in."
)
@click.option("--revoke", is_flag=True, help="Take all of it back; who runs this then owns the tables.")
@click.option("--apply", is_flag=True, help="Run the SQL in place of printing it.")
@click.option("--yes", is_flag=True, help="Do not ask before it is run.")
@shared_options()
def command(
    *,
    tasks: tuple[str, ...],
    members: list[tuple[str, str]],
    owner: str | None,
    migrator: str | None,
    worker: str | None,
    producer: str | None,
    viewer: str | None,
    producer_schema: str | None,
    create_schema: bool,
    revoke: bool,
    apply: bool,
    yes: bool,
    database: str | None,
    schema: str | None,
) -> None:
    """Print the SQL of a set-up of roles that may do no more than they have to.

    An owner of the tables, and a migrator, a worker, a producer and a viewer to be granted to the roles that log in.
    Printing needs no database. To be run by a superuser, or by a role that owns the tables and has CREATEROLE; again
    after migrations, and whenever it is to change.
    """
    if revoke and (create_schema or members):
        raise click.UsageError("--revoke goes with neither --create-schema nor --grant")
    names = {"owner": owner, "migrator": migrator, "worker": worker, "producer": producer, "viewer": viewer}
    names["producer_schema"] = producer_schema
    given = {what: name for what, name in names.items() if name is not None}
    with Queue(database, schema=schema) as queue:
        roles = Roles(schema=queue.schema, tasks=tasks, members=members, **given)
        script = (rights.undo if revoke else rights.create_schema if create_schema else rights.set_up)(roles)
        if not apply:
            click.echo(script.as_string(), nl=False)
            return
        confirm(_creation(roles) if create_schema else _question(queue, roles, revoke=revoke), yes=yes)
        rights.apply(queue.database, script)
    say(f"Schema {roles.schema!r}: {'nothing is granted any more' if revoke else 'roles are set up'}.")


def _creation(roles: Roles) -> str:
    return f"Make {', '.join(roles.names)} and the schema {roles.schema!r}, those that are not there?"


def _question(queue: Queue, roles: Roles, *, revoke: bool) -> str:
    """Return what to ask before the rights of others change, and what they would not expect."""
    found = rights.owner_of(queue.database, roles.schema)
    if found is None:
        raise SchemaMissing(
            f"schema {roles.schema!r} is not installed in this database: run graphile-worker-py migrate first, "
            "or have a migrator do that (graphile-worker-py roles --create-schema)"
        )
    if revoke:
        return f"Take all rights in schema {roles.schema!r} from {', '.join(roles.names)}, and own its tables yourself?"
    owner, is_superuser = found
    asked = f"Set up {', '.join(roles.names)} for schema {roles.schema!r}"
    asked += f", the producer for {', '.join(roles.tasks)} only?" if roles.tasks else ", the producer for all tasks?"
    if owner != roles.owner and not is_superuser:
        asked = f"The tables belong to {owner!r}, which has no right on them then, unless by --grant. {asked}"
    return asked
