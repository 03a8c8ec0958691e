"""`graphile-worker-py crontab`: look at a file without a database; list, pause, resume and run items with one."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from graphile_worker_py import Queue
from graphile_worker_py.cli._options import Epilog, Group, debug_option, shared_options
from graphile_worker_py.cli._output import Column, json_option, note, show
from graphile_worker_py.cron.crontab import read_crontab
from graphile_worker_py.cron.schedule import next_times

FORMAT = "%a %Y-%m-%d %H:%M"


@click.group("crontab", cls=Group)
def command() -> None:
    """Check a crontab, see when its items are due, pause one, or run one now."""


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


COLUMNS = (
    Column("item", lambda item: item.identifier),
    Column("paused", lambda item: item.paused, style=lambda item: "yellow" if item.paused else ""),
    Column("last run", lambda item: item.last_execution),
    Column("known since", lambda item: item.known_since),
)


@command.command("list", cls=Epilog)
@json_option
@shared_options()
def known(*, as_json: bool, database: str | None, schema: str | None) -> None:
    """List the items that workers have made known, when each last ran, and which are paused."""
    with Queue(database, schema=schema) as queue:
        items = queue.crontab.known()
    show(items, COLUMNS, as_json=as_json)
    if not items:
        note("No worker has made an item known here yet.")


@command.command("pause", cls=Epilog)
@click.argument("identifier", metavar="ID")
@shared_options()
def pause(identifier: str, *, database: str | None, schema: str | None) -> None:
    """Let no worker, Node's included, add jobs for the item ID until it is resumed."""
    with Queue(database, schema=schema) as queue:
        queue.crontab.pause(identifier)
    click.echo(f"{identifier}: paused")


@command.command("resume", cls=Epilog)
@click.argument("identifier", metavar="ID")
@shared_options()
def resume(identifier: str, *, database: str | None, schema: str | None) -> None:
    """Let the item ID go on from now; what was due meanwhile is not made up for."""
    with Queue(database, schema=schema) as queue:
        queue.crontab.resume(identifier)
    click.echo(f"{identifier}: goes on")


@command.command("run", cls=Epilog)
@click.argument("identifier", metavar="ID")
@click.argument("file", default="crontab")
@shared_options()
def run(identifier: str, file: str, *, database: str | None, schema: str | None) -> None:
    """Add the job of the item ID of FILE now, and print its id; when it is due next does not change."""
    items = {item.identifier: item for item in read_crontab(file)}
    if identifier not in items:
        raise click.UsageError(f"{file} has no item {identifier!r}; it has: {', '.join(items) or 'none'}")
    with Queue(database, schema=schema) as queue:
        click.echo(queue.crontab.run(items[identifier]).id)
