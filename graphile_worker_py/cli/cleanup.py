"""`graphile-worker-py cleanup`: delete what is of no more use."""

from __future__ import annotations

from typing import get_args

import click
import psycopg

from graphile_worker_py import JobCount, Queue
from graphile_worker_py._cleaning import CleanupTask
from graphile_worker_py.cli._choosing import CAP, how_many, patience_option
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import confirm, json_option, show_fields, show_json

NONE = JobCount(0, exact=True)
CALLED = {
    "DELETE_PERMAFAILED_JOBS": "jobs that failed for good",
    "GC_TASK_IDENTIFIERS": "names of tasks without jobs",
    "GC_JOB_QUEUES": "names of queues without jobs",
}


@click.command("cleanup", cls=Epilog)
@click.argument("tasks", metavar="[WHAT]...", nargs=-1, type=click.Choice(get_args(CleanupTask), case_sensitive=False))
@click.option(
    "--keep-task", "keep_tasks", metavar="NAME", multiple=True, help="Keep the name of this task. Repeatable."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@patience_option
@json_option
@shared_options()
def command(
    *,
    tasks: tuple[CleanupTask, ...],
    keep_tasks: tuple[str, ...],
    yes: bool,
    patience: float,
    as_json: bool,
    database: str | None,
    schema: str | None,
) -> None:
    """Delete what is of no more use: GC_JOB_QUEUES unless told otherwise, which asks nothing.

    DELETE_PERMAFAILED_JOBS: jobs that failed for good. GC_TASK_IDENTIFIERS: names of tasks without jobs, not while
    Node's workers run. GC_JOB_QUEUES: names of queues without jobs. No job is added, claimed or finished meanwhile.
    """
    with Queue(database, schema=schema) as queue:
        questions = []
        if "DELETE_PERMAFAILED_JOBS" in tasks:
            failed = queue.jobs.count(state="failed", at_most=CAP, patience=patience)
            questions += [f"Delete {how_many(failed)} that failed for good?"] * (failed != NONE)
        if "GC_TASK_IDENTIFIERS" in tasks:
            questions.append("Delete names of tasks? Workers of Node's that run would not notice.")
        confirm(" ".join(questions), yes=yes or not questions)
        try:
            deleted = queue.cleanup(tasks or ("GC_JOB_QUEUES",), keep_tasks=keep_tasks)
        except psycopg.errors.LockNotAvailable as error:
            raise click.ClickException(
                "nothing was deleted: a transaction that adds or changes jobs has not ended in two seconds; try again, "
                "and see doctor if it never does"
            ) from error
    if as_json:
        show_json(deleted)
    else:
        show_fields({CALLED[task]: number for task, number in deleted.items()})
