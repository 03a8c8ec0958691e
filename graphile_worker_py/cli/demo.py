"""`graphile-worker-py demo`: find examples/notifications and run it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from importlib.resources import files
from pathlib import Path

import click

from graphile_worker_py.cli._options import Epilog, ExitCode, NotThere, shared_options


@click.command("demo", cls=Epilog)
@shared_options(else_database="DATABASE_URL, else a server of its own", else_schema="one with a random name")
def command(*, database: str | None, schema: str | None) -> None:
    """Deliver the mail of a small chat, and count whether all of it arrived.

    Without --database or DATABASE_URL a PostgreSQL is started for it. In any case the demo makes a schema of its own,
    and drops it at the end.
    """
    # So that it leaves nothing behind; SIGINT too, which may have been ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(ExitCode.TERMINATED))
    sys.path.insert(0, str(find_example()))
    problems = importlib.import_module("demo").main(database or os.environ.get("DATABASE_URL"), schema)
    if problems:
        raise click.ClickException(f"{len(problems)} things are not as they should be, the first: {problems[0]}")


def find_example() -> Path:
    """Return the folder of the example: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("graphile_worker_py")))
    for parent in (package, package.parent):
        if (folder := parent / "examples" / "notifications").is_dir():
            return folder
    raise NotThere("this installation is without examples/notifications: install the wheel, or run from a checkout")
