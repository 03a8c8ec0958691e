"""`graphile-worker-py crontab check` and `crontab next`: look at a crontab without a database or a worker."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from graphile_worker_py.cli._options import Epilog, debug_option
from graphile_worker_py.cron.crontab import read_crontab
from graphile_worker_py.cron.schedule import next_times

FORMAT = "%a %Y-%m-%d %H:%M"


class _Group(Epilog, click.Group):
    """Commands of a command, with the exit codes in its help."""


@click.group("crontab", cls=_Group)
def command() -> None:
    """Check a crontab, or see when its items are due."""


@command.command("check", cls=Epilog)
@click.argument("file", default="crontab")
@debug_option
def check(file: str) -> None:
    """Say what is wrong in FILE, every mistake with its place, or that nothing is.

    Also names the lines that Node's worker could not read. FILE is ./crontab unless given.
    """
    items = read_crontab(file)
    for item in items:
        if item.extensions:
            click.echo(f"{item.origin}: {item.identifier}: Node's worker does not read {', '.join(item.extensions)}")
        if not next_times(item, datetime.now(timezone.utc), count=1):
            click.echo(f"{item.origin}: {item.identifier}: this date never comes")
    click.echo(f"{file}: {len(items)} {'item' if len(items) == 1 else 'items'}, no mistakes")


@command.command("next", cls=Epilog)
@click.argument("file", default="crontab")
@click.option(
    "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many times for each item."
)
@debug_option
def coming(file: str, *, count: int) -> None:
    """Show when each item of FILE is due next, in its own time zone and in UTC."""
    now = datetime.now(timezone.utc)
    for item in read_crontab(file):
        task = "" if item.task == item.identifier else f" {item.task}"
        click.echo(f"{item.identifier}: {item.pattern}{task}")
        times = next_times(item, now, count=count)
        for moment in times:
            local = f"{moment.astimezone(item.tz).strftime(FORMAT)} {item.tz} = " if item.tz != timezone.utc else ""
            click.echo(f"  {local}{moment.strftime(FORMAT)} UTC")
        if not times:
            click.echo("  never")
