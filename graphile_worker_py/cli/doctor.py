"""`graphile-worker-py doctor`: what can hurt this queue, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from graphile_worker_py import doctor, executable_tasks
from graphile_worker_py.cli._options import Epilog, ExitCode, shared_options
from graphile_worker_py.cli._output import counted, json_option, show_json, show_text
from graphile_worker_py.cli._run_options import read_listen
from graphile_worker_py.cli._target import check_target, find_queue
from graphile_worker_py.doctor import Finding

STYLES = {"problem": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


@click.command("doctor", cls=Epilog)
@click.argument("target", metavar="[MODULE:ATTRIBUTE]", required=False, callback=check_target)
@click.option(
    "--tasks",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Count the executables of this folder among the tasks with a handler, as run does.",
)
@click.option(
    "--skip",
    metavar="CHECK",
    multiple=True,
    type=click.Choice(doctor.CHECKS),
    help="Leave out a check, such as durability on a server for tests. Repeatable.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also show the checks that found nothing.")
@click.option(
    "--listen",
    metavar="URL|off",
    callback=read_listen,
    help="Where workers listen, as for run. Else GRAPHILE_WORKER_LISTEN.",
)
@json_option
@shared_options(
    else_database="that of the queue, DATABASE_URL, or libpq's PG* variables",
    else_schema="that of the queue, GRAPHILE_WORKER_SCHEMA, or graphile_worker",
)
@click.pass_context
def command(
    context: click.Context,
    *,
    target: tuple[str, str] | None,
    folder: str | None,
    skip: tuple[str, ...],
    verbose: bool,
    listen: str | bool | None,
    as_json: bool,
    database: str | None,
    schema: str | None,
) -> ExitCode:
    """Look at the server, the schema and the jobs for what can hurt, and say what to do about it.

    Nothing is changed, and large tables are not read through. With the Queue or Tasks registry at MODULE:ATTRIBUTE it
    is also seen whether jobs wait for which it has no handler. Ends with 1 if there is a problem; warnings and notes
    leave it at 0. Statements are shown to be pasted, by a role that may, and after some thought.
    """
    with find_queue(target, database=database, schema=schema, listen=listen) as queue:
        context.obj.unnamed &= queue.database.source is None
        if folder is not None:
            queue.include(executable_tasks(folder))
        found = doctor.examine(queue, skip=skip)
    if as_json:
        for finding in found:
            show_json(finding)
    else:
        show(found, verbose=verbose)
    return ExitCode.FAILED if any(finding.level == "problem" for finding in found) else ExitCode.OK


def show(found: Iterable[Finding], *, verbose: bool) -> None:
    """Print findings, the worst first, and how many there are of each level."""
    ranked = sorted(found, key=lambda finding: -doctor.LEVELS.index(finding.level))
    for finding in ranked:
        if finding.level != "ok":
            show_finding(finding)
        elif verbose:
            show_text(f"  {finding.check}: {finding.what}", head="ok", style=STYLES["ok"])
    counts = {level: sum(finding.level == level for finding in ranked) for level in doctor.LEVELS}
    told = ", ".join(counted(counts[level], level) for level in reversed(doctor.LEVELS[1:]) if counts[level])
    show_text(f"{told or 'Nothing to worry about'}; {counted(counts['ok'], 'check')} found nothing.")


def show_finding(finding: Finding) -> None:
    """Print what is so, and what to do; each statement stands on a line of its own, unbroken, to be pasted."""
    show_text(f"  {finding.check}", head=finding.level, style=STYLES[finding.level])
    show_text(finding.what, indent=2)
    show_text(f"{finding.do[:1].upper()}{finding.do[1:]}.", indent=2)
    for statement in finding.sql:
        show_text(f"{statement};", indent=4, wrap=False)
    show_text("")
