"""`graphile-worker-py stats`: how many jobs there are, by state."""

from __future__ import annotations

import click

from graphile_worker_py import Queue
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import json_option, show_fields, show_json, waited

STATES = ("ready", "scheduled", "running", "retrying", "failed")


@click.command("stats", cls=Epilog)
@json_option
@shared_options()
def command(*, as_json: bool, database: str | None, schema: str | None) -> None:
    """Print how many jobs are in each state, and for how long the oldest ready one has waited.

    ready: a worker may take it now. scheduled: it waits for its time. running: a worker has it. retrying: it failed,
    and waits to be tried again. failed: it has no attempts left. Every job is read to count them.
    """
    with Queue(database, schema=schema) as queue:
        tasks = queue.stats()
    counts: dict[str, object] = {state: sum(getattr(stats, state) for stats in tasks) for state in STATES}
    ages = [stats.oldest_ready for stats in tasks if stats.oldest_ready is not None]
    oldest = waited(max(ages, default=None))
    if as_json:
        show_json({**counts, "oldest_ready": oldest, "tasks": tasks})
    else:
        show_fields({**counts, "oldest ready": oldest})
