"""`graphile-worker-py queues`: the named queues, who holds them, and how many jobs wait in each."""

from __future__ import annotations

import shlex

import click

from graphile_worker_py import Queue
from graphile_worker_py.cli._choosing import LARGEST_PAGE, patience_option
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import Column, at_least, json_option, note, show, waited

COLUMNS = (
    Column("queue", lambda queue: queue.name),
    Column("jobs", lambda queue: at_least(queue.jobs, exact=queue.exact)),
    Column("ready", lambda queue: at_least(queue.ready, exact=queue.exact)),
    Column("oldest ready", lambda queue: waited(queue.oldest_ready)),
    Column("held by", lambda queue: queue.locked_by),
    Column("held since", lambda queue: queue.locked_at),
)


@click.command("queues", cls=Epilog)
@click.option("--held/--free", "held", default=None, help="Only queues that somebody holds, or that nobody does.")
@click.option("--after", metavar="NAME", help="Begin after this name: the next page.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, LARGEST_PAGE),
    default=100,
    show_default=True,
    help="At most so many.",
)
@patience_option
@json_option
@shared_options()
def command(
    *,
    held: bool | None,
    after: str | None,
    limit: int,
    patience: float,
    as_json: bool,
    database: str | None,
    schema: str | None,
) -> None:
    """List the named queues in the order of their names, with how many jobs each has.

    A queue is held while one of its jobs runs, and for as long no other of its jobs begins. Where the time was not
    enough to count all jobs, there may be more of them, and a + stands behind their number.
    """
    with Queue(database, schema=schema) as queue:
        queues = queue.queues(locked=held, after=after, limit=limit, patience=patience)
    show(queues, COLUMNS, as_json=as_json)
    if not queues:
        note("There is no such queue." if held is not None or after is not None else "There are no named queues.")
    elif len(queues) == limit:
        note(f"There may be more: go on with --after {shlex.quote(queues[-1].name)}.")
