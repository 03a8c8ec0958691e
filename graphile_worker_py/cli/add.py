"""`graphile-worker-py add`: add one job, and print its id."""

from __future__ import annotations

import codecs
import json
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from graphile_worker_py import quick_add_job
from graphile_worker_py.checks import JOB_KEY_MODES
from graphile_worker_py.cli._options import Epilog, F, shared_options, span
from graphile_worker_py.jobs import JobKeyMode


def read_run_at(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | timedelta | None:
    """Return a moment or a delay; raise click.BadParameter for what is neither, and for a time in no zone."""
    if text is None:
        return None
    if (delay := span(text)) is not None:
        return delay
    try:
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))  # Python 3.10 does not know the Z
    except ValueError:
        raise click.BadParameter(
            "expected a time such as 2030-01-31T09:00:00Z, or a delay such as 90s, 5m, 2h, 1d"
        ) from None
    if moment.utcoffset() is None:
        raise click.BadParameter("that time names no time zone: end it with Z or an offset such as +02:00")
    return moment


def read_payload(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """Return the payload as Python data; raise click.BadParameter, without repeating it, if it is not JSON."""
    return None if text is None else read_json(_source(text))


def read_json(data: str | bytes) -> Any:
    """Return what JSON text holds; raise click.BadParameter, without repeating it, if it is none."""
    text = data if isinstance(data, str) else _decoded(data)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise click.BadParameter(f"not JSON: {error.msg} at {place}") from None
    except ValueError:
        raise click.BadParameter("holds an integer of more digits than Python reads") from None
    except RecursionError:
        raise click.BadParameter("nested too deeply") from None


def _decoded(data: bytes) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"not UTF-8 at byte {error.start}") from None


def _source(text: str) -> str | bytes:
    if text == "-":
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"cannot read {error.filename}: {error.strerror}") from error


OPTIONS = (
    click.option("--queue-name", metavar="NAME", help="Jobs of one queue name run one at a time, in order."),
    click.option(
        "--run-at", metavar="WHEN", callback=read_run_at, help="2030-01-31T09:00:00Z, or a delay: 90s, 5m, 2h, 1d."
    ),
    click.option("--priority", type=int, help="Smaller runs first, and may be negative. [default: 0]"),
    click.option("--max-attempts", type=int, help="How often to try. [default: 25]"),
    click.option(
        "--flag", "flags", metavar="FLAG", multiple=True, help="Workers can be told to leave it alone. Repeatable."
    ),
)


def job_options(function: F) -> F:
    """Add the options that say how jobs are run."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command("add", cls=Epilog)
@click.argument("identifier")
@click.argument("payload", required=False, callback=read_payload)
@job_options
@click.option("--job-key", metavar="KEY", help="A second job with this key replaces the first while it waits.")
@click.option(
    "--job-key-mode",
    metavar="MODE",
    type=click.Choice(JOB_KEY_MODES),
    help="How it replaces: replace (the default), preserve_run_at or unsafe_dedupe.",
)
@shared_options()
def command(
    *,
    identifier: str,
    payload: Any,
    queue_name: str | None,
    run_at: datetime | timedelta | None,
    priority: int | None,
    max_attempts: int | None,
    job_key: str | None,
    job_key_mode: JobKeyMode | None,
    flags: tuple[str, ...],
    database: str | None,
    schema: str | None,
) -> None:
    """Add a job for the task IDENTIFIER, and print the job's id.

    PAYLOAD is JSON; - reads it from standard input, @FILE from a file; a negative number goes after --. A list makes a
    batch job.
    """
    job = quick_add_job(
        database,
        identifier,
        payload,
        schema=schema,
        queue_name=queue_name,
        run_at=run_at,
        priority=priority,
        max_attempts=max_attempts,
        job_key=job_key,
        job_key_mode=job_key_mode,
        flags=flags,
    )
    try:
        sys.stdout.write(f"{job.id}\n")
        sys.stdout.flush()
    except (OSError, AttributeError) as error:  # it may be full or closed, or never have been open
        raise click.ClickException(f"job {job.id} was added, but its id could not be printed") from error
