"""`graphile-worker-py jobs`: list jobs, look at one, and change those that nobody works on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import attrs
import click

from graphile_worker_py import Cancellation, Job, JobInfo, NotSupported, Queue, SchemaMissing
from graphile_worker_py.cli._choosing import (
    CAP,
    LARGEST_PAGE,
    Choice,
    Filters,
    change,
    choosing,
    filter_options,
    gave_up,
    how_many,
)
from graphile_worker_py.cli._options import Epilog, Group, shared_options
from graphile_worker_py.cli._output import (
    Column,
    RawJson,
    counted,
    first_line,
    json_option,
    note,
    safe,
    say,
    show,
    show_fields,
    show_json,
)
from graphile_worker_py.cli.add import read_run_at
from graphile_worker_py.cli.progress import line as progress_line

STYLES = {"running": "green", "retrying": "yellow", "failed": "red"}


COLUMNS = (
    Column("id", lambda job: job.id),
    Column("task", lambda job: job.task_identifier),
    Column("state", lambda job: job.state, style=lambda job: STYLES.get(job.state, "")),
    Column("run at", lambda job: job.run_at),
    Column("tried", lambda job: f"{job.attempts}/{job.max_attempts}"),
    Column("priority", lambda job: job.priority, unless=0),
    Column("queue", lambda job: job.queue_name, unless=None),
    Column("key", lambda job: job.key, unless=None),
    Column("error", lambda job: first_line(job.last_error), long=True, unless=None),
)


@click.group("jobs", cls=Group)
def command() -> None:
    """List jobs, look at one, run some now, reschedule, fail, complete, cancel or remove them.

    What changes jobs takes their ids, or the filters of `list`. What filters find is asked about first.
    """


@command.command("list", cls=Epilog)
@filter_options
@click.option("--after", metavar="ID", type=int, default=0, help="Begin after this id: the next page.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, LARGEST_PAGE),
    default=100,
    show_default=True,
    help="At most so many.",
)
@json_option
@shared_options()
def list_some(
    *,
    filters: Filters,
    patience: float,
    after: int,
    limit: int,
    as_json: bool,
    database: str | None,
    schema: str | None,
) -> None:
    """List jobs in the order of their ids, and say how many more there are.

    All filters that are given have to fit. Jobs that are done have no row, and are not listed.
    """
    until = time.monotonic() + patience
    with Queue(database, schema=schema) as queue:
        page = queue.jobs(**filters, limit=limit, after=after, patience=patience)
        show(page, COLUMNS, as_json=as_json)
        if page.next is None:
            if not page.items:
                note("No job matches." if filters or after else "There are no jobs.")
        elif page.gave_up:
            note(f"{gave_up(page.next, patience)} Go on with --after {page.next}.")
        elif not as_json:
            left = max(0.001, until - time.monotonic())
            more = queue.jobs.count(**filters, after=page.next, at_most=CAP, patience=left)
            note(f"And {how_many(more)} more: go on with --after {page.next}.")


@command.command("show", cls=Epilog)
@click.argument("id", type=int)
@json_option
@shared_options()
def show_one(*, id: int, as_json: bool, database: str | None, schema: str | None) -> None:
    """Print all about the job ID: its payload, its last error in full, who runs it, and how far it is."""
    with Queue(database, schema=schema) as queue:
        infos = queue.jobs(ids=[id]).items
        if not infos:
            raise click.ClickException(f"there is no job {id}: it is done, was removed, or never was")
        payload, progress = payload_of(queue, id), None
        with suppress(SchemaMissing, NotSupported):  # where our own tables could not be made
            progress = queue.progress(id)
    if as_json:
        fields = {field.name: getattr(infos[0], field.name) for field in attrs.fields(JobInfo)}
        show_json({**fields, "payload": None if payload is None else RawJson(payload), "progress": progress})
        return
    told = None if progress is None else progress_line(progress)
    show_fields({**about(infos[0]), "progress": told, "payload": payload, "last error": infos[0].last_error})


def payload_of(queue: Queue, id: int) -> str | None:
    """Return the payload of a job as JSON; None where it is gone, or not for this role, which is said."""
    try:
        job = queue.job(id)
    except NotSupported:
        note("This role may not see payloads.")
        return None
    return None if job is None else job.raw_payload


def about(job: JobInfo) -> dict[str, object]:
    """Return what is to be read about a job, by what it is called."""
    return {
        "id": job.id,
        "task": job.task_identifier,
        "state": job.state,
        "tried": f"{job.attempts} of {job.max_attempts}",
        "run at": job.run_at,
        "priority": job.priority,
        "queue": job.queue_name,
        "key": job.key,
        "flags": job.flags,
        "added": job.created_at,
        "changed": job.updated_at,
        "revision": job.revision,
        "held by": job.locked_by,
        "held since": job.locked_at,
    }


def ids_of(jobs: list[Job]) -> set[int]:
    """Return the ids of jobs."""
    return {job.id for job in jobs}


def sentence(what: str) -> Callable[[set[int]], str]:
    """Return what makes a sentence of the ids of jobs that were changed."""
    return lambda changed: f"{counted(len(changed), 'job')} {what}."


@command.command("run-now", cls=Epilog)
@choosing
@shared_options()
def run_now(*, choice: Choice, database: str | None, schema: str | None) -> None:
    """Let jobs run as soon as a worker is free: those that wait for their time, and those that failed for good.

    One that failed for good gets all its attempts anew. Workers are woken.
    """
    with Queue(database, schema=schema) as queue:
        change(
            queue,
            choice,
            question="Run now",
            done=sentence("may run now"),
            act=lambda ids: ids_of(queue.run_jobs_now(ids)),
        )


@command.command("reschedule", cls=Epilog)
@choosing
@click.option(
    "--run-at", metavar="WHEN", callback=read_run_at, help="2030-01-31T09:00:00Z, or a delay: 90s, 5m, 2h, 1d."
)
@click.option("--new-priority", metavar="N", type=int, help="Smaller runs first.")
@click.option("--attempts", metavar="N", type=int, help="How often they have been tried; 0 gives all attempts back.")
@click.option("--max-attempts", metavar="N", type=int, help="How often to try them.")
@shared_options()
def reschedule(
    *,
    choice: Choice,
    run_at: datetime | timedelta | None,
    new_priority: int | None,
    attempts: int | None,
    max_attempts: int | None,
    database: str | None,
    schema: str | None,
) -> None:
    """Change when jobs run, in what order, and how often they are tried; what is not given stays as it is."""
    if all(change is None for change in (run_at, new_priority, attempts, max_attempts)):
        raise click.UsageError("nothing to change: give --run-at, --new-priority, --attempts or --max-attempts")

    def act(ids: list[int]) -> set[int]:
        numbers = {"priority": new_priority, "attempts": attempts, "max_attempts": max_attempts}
        return ids_of(queue.reschedule_jobs(ids, run_at=run_at, **numbers))

    with Queue(database, schema=schema) as queue:
        change(queue, choice, question="Reschedule", done=sentence("rescheduled"), act=act)


@command.command("fail", cls=Epilog)
@choosing
@click.option("--reason", metavar="TEXT", help="Stands in their last error.")
@shared_options()
def fail(*, choice: Choice, reason: str | None, database: str | None, schema: str | None) -> None:
    """Let jobs fail for good: they stay in the table, and are not tried again unless they are told to run."""
    with Queue(database, schema=schema) as queue:
        change(
            queue,
            choice,
            question="Let fail for good",
            done=sentence("failed for good"),
            act=lambda ids: ids_of(queue.permanently_fail_jobs(ids, reason)),
        )


@command.command("complete", cls=Epilog)
@choosing
@shared_options()
def complete(*, choice: Choice, database: str | None, schema: str | None) -> None:
    """Delete jobs as if they were done."""
    with Queue(database, schema=schema) as queue:
        change(
            queue,
            choice,
            question="Delete, as if done,",
            done=sentence("deleted, as if done"),
            act=lambda ids: ids_of(queue.complete_jobs(ids)),
        )


@command.command("cancel", cls=Epilog)
@choosing
@click.option("--reason", metavar="TEXT", help="Stands in their last error.")
@shared_options()
def cancel(*, choice: Choice, reason: str | None, database: str | None, schema: str | None) -> None:
    """End jobs: one that waits never runs, one that runs is told to end, on whatever machine. They have then failed.

    One that is done or has failed for good cannot be cancelled.
    """
    became: dict[int, Cancellation] = {}

    def act(ids: list[int]) -> set[int]:
        became.update(queue.cancel_jobs(ids, reason))
        return {id for id in ids if became[id] is not Cancellation.TOO_LATE}

    def done(changed: set[int]) -> str:
        running = sum(became[id] is Cancellation.RUNNING for id in changed)
        parts = [f"{counted(len(changed), 'job')} cancelled"]
        parts += [f"{running:,} running, told to end"] * bool(running)
        return ": ".join(parts) + "."

    with Queue(database, schema=schema) as queue:
        change(queue, choice, question="Cancel", done=done, act=act)


@command.command("remove", cls=Epilog)
@click.argument("key")
@shared_options()
def remove(*, key: str, database: str | None, schema: str | None) -> None:
    """Delete the job of the key KEY. One that runs goes on, without its key, and is not tried again."""
    with Queue(database, schema=schema) as queue:
        job = queue.remove_job(key)
    if job is None:
        raise click.ClickException(f"no job has the key {safe(key)}")
    runs = job.locked_at is not None
    say(f"Job {job.id} ({job.task_identifier}) {'runs, and will not be tried again' if runs else 'removed'}.")
