"""`graphile-worker-py cancel`: end a job that waits or runs."""

from __future__ import annotations

import click

from graphile_worker_py import Cancellation, Queue
from graphile_worker_py.cli._options import Epilog, shared_options

SAID = {
    Cancellation.WAITING: "waited: it will not run",
    Cancellation.RUNNING: "runs: it was told to end, and will not be tried again",
}


@click.command("cancel", cls=Epilog)
@click.argument("id", type=int)
@click.option("--reason", metavar="TEXT", help="Stands in the job's last_error.")
@shared_options()
def command(*, id: int, reason: str | None, database: str | None, schema: str | None) -> None:
    """End the job ID: one that waits never runs, one that runs is told to end, on whatever machine.

    Ends with 1 where there is no such job to cancel.
    """
    with Queue(database, schema=schema) as queue:
        was = queue.cancel(id, reason)
    if was is Cancellation.TOO_LATE:
        raise click.ClickException(f"job {id} cannot be cancelled: it is done, has failed for good, or never was")
    click.echo(f"Job {id} {SAID[was]}.")
