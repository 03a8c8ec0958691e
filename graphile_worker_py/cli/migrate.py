"""`graphile-worker-py migrate`: install the schema, bring it up to date, or print how."""

from __future__ import annotations

import click

from graphile_worker_py import Queue
from graphile_worker_py import migrate as migrations
from graphile_worker_py.cli._options import Epilog, shared_options


@click.command("migrate", cls=Epilog)
@click.option("--sql", is_flag=True, help="Print the SQL of a fresh install instead of running it; needs no database.")
@shared_options()
def command(*, sql: bool, database: str | None, schema: str | None) -> None:
    """Install the schema, or bring it up to date.

    Safe at any time, by any number of processes at once, beside Node's worker too.
    """
    with Queue(database, schema=schema) as queue:
        if sql:
            click.echo(migrations.script(queue.schema), nl=False)
            return
        applied = queue.migrate()
        done = f"migrations {applied[0]} to {applied[-1]} applied" if applied else "nothing to do, all is up to date"
        click.echo(f"Schema {queue.schema!r}: {done}.")
