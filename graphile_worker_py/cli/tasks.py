"""`graphile-worker-py tasks`: what names of tasks the database knows, and how their jobs are doing."""

from __future__ import annotations

import click

from graphile_worker_py import Queue
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import Column, json_option, note, show, waited

COLUMNS = (
    Column("task", lambda stats: stats.identifier),
    Column("ready", lambda stats: stats.ready),
    Column("scheduled", lambda stats: stats.scheduled),
    Column("running", lambda stats: stats.running),
    Column("retrying", lambda stats: stats.retrying, style=lambda stats: "yellow" if stats.retrying else ""),
    Column("failed", lambda stats: stats.failed, style=lambda stats: "red" if stats.failed else ""),
    Column("oldest ready", lambda stats: waited(stats.oldest_ready)),
)


@click.command("tasks", cls=Epilog)
@json_option
@shared_options()
def command(*, as_json: bool, database: str | None, schema: str | None) -> None:
    """List the tasks that jobs were added for or workers have handlers for, and how many jobs of each there are.

    The oldest ready job is the one that a worker should have taken first. Every job is read to count them.
    """
    with Queue(database, schema=schema) as queue:
        tasks = queue.stats(idle=True)
    show(tasks, COLUMNS, as_json=as_json)
    if not tasks:
        note("No task is known here yet.")
