"""`graphile-worker-py history`: list the runs that are over, of workers that keep a history."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import click

from graphile_worker_py import NotSupported, Queue
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import Column, first_line, json_option, note, show
from graphile_worker_py.history import RunOutcome

STYLES = {"retrying": "yellow", "failed": "red"}
COLUMNS = (
    Column("run", lambda run: run.id),
    Column("finished", lambda run: run.finished_at),
    Column("took", lambda run: timedelta(seconds=run.duration)),
    Column("job", lambda run: run.job_id),
    Column("task", lambda run: run.task_identifier),
    Column("attempt", lambda run: run.attempt),
    Column("outcome", lambda run: run.outcome, style=lambda run: STYLES.get(run.outcome, "")),
    Column("host", lambda run: run.host),
    Column("error", lambda run: first_line(run.error), long=True, unless=None),
)


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
@click.option("--before", metavar="RUN", type=int, help="Only runs before the one of this number: the next page.")
@json_option
@shared_options()
def command(
    *,
    task: str | None,
    job_id: int | None,
    outcome: RunOutcome | None,
    limit: int,
    before: int | None,
    as_json: bool,
    database: str | None,
    schema: str | None,
) -> None:
    """List runs that are over, the latest first, of workers that were started with --history.

    Of an error the first line is shown.
    """
    with Queue(database, schema=schema) as queue:
        try:
            runs = queue.history(task=task, job_id=job_id, outcome=outcome, limit=limit, before=before)
        except NotSupported:
            queue.jobs(limit=1)  # raises SchemaMissing where not only this table is missing
            raise
    show(runs, COLUMNS, as_json=as_json)
    if not runs:
        note("No run is remembered; workers remember theirs when they are started with --history.")
