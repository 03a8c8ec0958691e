"""`graphile-worker-py progress`: how far a job is."""

from __future__ import annotations

import click

from graphile_worker_py import Progress, Queue
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import json_option, say, show_json, text_of


@click.command("progress", cls=Epilog)
@click.argument("id", type=int)
@json_option
@shared_options()
def command(*, id: int, as_json: bool, database: str | None, schema: str | None) -> None:
    """Print how far the job ID is, by what its handler has told last.

    Ends with 1 where it has told nothing, or the job is done and its row gone.
    """
    with Queue(database, schema=schema) as queue:
        told = queue.progress(id)
    if told is None:
        raise click.ClickException(f"job {id} has told nothing of its progress, or is done")
    if as_json:
        show_json(told)
    else:
        say(line(told))


def line(told: Progress) -> str:
    """Return in a line how far a job is."""
    share = f" of {told.total} ({told.done / told.total:.0%})" if told.total else ""
    message = f": {told.message}" if told.message else ""
    return f"{told.done}{share}, attempt {told.attempt}, {text_of(told.updated_at)}{message}"
