"""`graphile-worker-py history`: list the runs that are over, of workers that keep a history."""

from __future__ import annotations

from typing import get_args

import click

from graphile_worker_py import JobRun, Queue
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.history import RunOutcome


@click.command("history", cls=Epilog)
@click.option("--task", metavar="NAME", help="Only runs of this task.")
@click.option("--job", "job_id", metavar="ID", type=int, help="Only runs of this job.")
@click.option(
    "--outcome",
    metavar="OUTCOME",
    type=click.Choice(get_args(RunOutcome)),
    help="Only completed runs, those that failed and are retrying or were snoozed, or those that failed for good.",
)
@click.option("--limit", metavar="N", type=int, default=20, show_default=True, help="How many at most.")
@shared_options()
def command(
    *,
    task: str | None,
    job_id: int | None,
    outcome: RunOutcome | None,
    limit: int,
    database: str | None,
    schema: str | None,
) -> None:
    """List runs that are over, the latest first, of workers that were started with --history.

    Of an error the first line is shown.
    """
    with Queue(database, schema=schema) as queue:
        for run in queue.history(task=task, job_id=job_id, outcome=outcome, limit=limit):
            click.echo(line(run))


def line(run: JobRun) -> str:
    """Return a run as a line."""
    error = "" if run.error is None else ": " + run.error.split("\n", 1)[0]
    return (
        f"{run.finished_at:%Y-%m-%d %H:%M:%SZ}  {run.outcome:9}  {run.duration:9.3f} s  "
        f"job {run.job_id}, attempt {run.attempt}, {run.task_identifier}, on {run.host}{error}"
    )
