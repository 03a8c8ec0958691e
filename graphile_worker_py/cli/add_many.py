"""`graphile-worker-py add-many`: add a job for each line of a file, all in one transaction, and print their ids.

The ids are printed when all is committed, and kept until then as plain numbers, eight bytes each. Nothing else grows
with the number of lines.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import BinaryIO

import attrs
import click

from graphile_worker_py import InvalidJobSpec, JobSpec, Queue
from graphile_worker_py._adding import add_all
from graphile_worker_py._database import all_or_nothing
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import note
from graphile_worker_py.cli.add import job_options, read_json

IDS_AT_A_TIME = 10_000


@click.command("add-many", cls=Epilog)
@click.argument("identifier", metavar="TASK")
@click.argument("file", metavar="[FILE]", default="-")
@job_options
@click.option("--no-ids", is_flag=True, help="Print no ids.")
@shared_options()
def command(
    *,
    identifier: str,
    file: str,
    queue_name: str | None,
    run_at: datetime | timedelta | None,
    priority: int | None,
    max_attempts: int | None,
    flags: tuple[str, ...],
    no_ids: bool,
    database: str | None,
    schema: str | None,
) -> None:
    """Add a job for TASK for each line of FILE, which is its payload in JSON, and print their ids, one to a line.

    Without FILE, or with -, it is standard input. Empty lines are skipped. All of it is one transaction: if a line is
    wrong, nothing is added. On a terminal, standard error shows how far it is.
    """

    def spec(payload: object) -> JobSpec:
        return JobSpec(
            identifier,
            payload,
            queue_name=queue_name,
            run_at=run_at,
            priority=priority,
            max_attempts=max_attempts,
            flags=flags,
        )

    spec(None)  # a wrong option is told before anything is read
    with _opened(file) as stream, Queue(database, schema=schema) as queue:
        ids = _add(queue, _Lines(stream, spec), keep=not no_ids)
    _print(ids)


@attrs.define
class _Lines:
    """Makes specs of lines, and knows how many there were, and how many bytes."""

    stream: BinaryIO
    spec: Callable[[object], JobSpec]
    number: int = 0
    size: int = 0

    def __iter__(self) -> Iterator[JobSpec]:
        for line in self.stream:
            self.number += 1
            self.size += len(line)
            if line.strip():
                yield self._spec(line.rstrip())

    def _spec(self, text: bytes) -> JobSpec:
        try:
            return self.spec(read_json(text))
        except click.BadParameter as error:
            problem = error.message.replace(" at line 1,", " at")
        except InvalidJobSpec as error:
            problem = str(error)
        raise InvalidJobSpec(f"line {self.number}: {problem}")

    def total(self) -> int | None:
        """Return how many bytes there will be, if that is known."""
        status = os.fstat(self.stream.fileno())
        return status.st_size if stat.S_ISREG(status.st_mode) else None


def _add(queue: Queue, lines: _Lines, *, keep: bool) -> array[int]:
    """Add all jobs, or none, and return their ids, if they are to be kept."""
    ids = array("q")
    count = 0
    with (
        queue.database.connection() as connection,
        _meter(lines.total()) as show,
        all_or_nothing(connection),
        connection.pipeline(),
    ):
        for jobs in add_all(queue.database, connection, lines, preserve_run_at=False):
            count += len(jobs)
            if keep:
                ids.extend(job.id for job in jobs)
            show(count, lines.size)
    return ids


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file != "-":
        try:
            stream = open(file, "rb")  # noqa: SIM115 - what goes wrong while it is read is no error of opening
        except OSError as error:
            raise click.BadParameter(f"cannot read {file}: {error.strerror}") from error
        with stream:
            yield stream
    elif sys.stdin is None:
        raise click.BadParameter("standard input is closed; name a FILE")
    else:
        if sys.stdin.isatty():
            note("Payloads in JSON, one a line; Ctrl-D ends them:")
        yield sys.stdin.buffer


@contextmanager
def _meter(total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows, on a terminal, how many jobs were added, at what rate, and how much of the file that was."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda count, size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    began = time.monotonic()
    counts = TextColumn("{task.fields[jobs]:,} jobs  {task.fields[rate]:,.0f}/s")
    columns = (counts,) if total is None else (BarColumn(), counts)
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        task = progress.add_task("", total=total, jobs=0, rate=0)

        def show(count: int, size: int) -> None:
            rate = count / max(time.monotonic() - began, 0.001)
            progress.update(task, completed=size, jobs=count, rate=rate, refresh=True)

        yield show


def _print(ids: array[int]) -> None:
    """Print the ids of jobs that were added."""
    try:
        for start in range(0, len(ids), IDS_AT_A_TIME):
            sys.stdout.write("".join(f"{id}\n" for id in ids[start : start + IDS_AT_A_TIME]))
        sys.stdout.flush()
    except (OSError, AttributeError) as error:  # it may be full or closed, or never have been open
        raise click.ClickException(
            f"{len(ids):,} jobs were added, but not all of their ids could be printed"
        ) from error
