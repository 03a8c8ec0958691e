"""`graphile-worker-py add`: add one job, and print its id."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from graphile_worker_py import quick_add_job
from graphile_worker_py.checks import JOB_KEY_MODES
from graphile_worker_py.cli._options import Epilog, shared_options, span
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
    if text is None:
        return None
    try:
        return json.loads(_source(text))
    except OSError as error:
        raise click.BadParameter(f"cannot read {error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise click.BadParameter("holds an integer of more digits than Python reads") from None
    except RecursionError:
        raise click.BadParameter("nested too deeply") from None


def _source(text: str) -> str:
    if text == "-":
        data = b"" if sys.stdin is None else sys.stdin.buffer.read()
    elif text.startswith("@"):
        data = Path(text[1:]).read_bytes()
    else:
        return text
    return data.decode("utf-8-sig")


@click.command("add", cls=Epilog)
@click.argument("identifier")
@click.argument("payload", required=False, callback=read_payload)
@click.option("--queue-name", metavar="NAME", help="Jobs of one queue name run one at a time, in order.")
@click.option(
    "--run-at", metavar="WHEN", callback=read_run_at, help="2030-01-31T09:00:00Z, or a delay: 90s, 5m, 2h, 1d."
)
@click.option("--priority", type=int, help="Smaller runs first, and may be negative. [default: 0]")
@click.option("--max-attempts", type=int, help="How often to try. [default: 25]")
@click.option("--job-key", metavar="KEY", help="A second job with this key replaces the first while it waits.")
@click.option(
    "--job-key-mode",
    metavar="MODE",
    type=click.Choice(JOB_KEY_MODES),
    help="How it replaces: replace (the default), preserve_run_at or unsafe_dedupe.",
)
@click.option(
    "--flag", "flags", metavar="FLAG", multiple=True, help="Workers can be told to leave it alone. Repeatable."
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
