"""`flask worker`: the commands of graphile-worker-py, on the queue and the tasks of the application.

What comes after `worker` is read by the same code as the console script's. Options go first, then the environment, then
app.config, then a file.
"""

from __future__ import annotations

from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

NAME = "graphile_worker"  # in app.extensions
TARGET = "graphile_worker_py.contrib.flask.current:queue"


@click.command(
    "worker",
    short_help="Work on jobs; add, list and change them.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@with_appcontext
def worker_command(words: tuple[str, ...]) -> None:
    """Work on jobs (run), add, list and change them; `flask worker --help` has it all."""
    from graphile_worker_py.cli import main  # takes longer to import than all else here; web processes do without

    name = next((word for word in words if not word.startswith("-")), "")
    arguments = list(words)
    if name == "run":
        arguments.insert(words.index(name) + 1, TARGET)
    main(arguments, prog_name="flask worker", default_map={name: _defaults(main, name)})


def _defaults(main: click.Group, name: str) -> dict[str, Any]:
    """Return what a command takes where nothing is said: where the jobs are, and for the worker how to work.

    A group of commands hands each the same.
    """
    attached = current_app.extensions[NAME]
    database = attached.queue.database
    place = {"database": database.source} if isinstance(database.source, str) else {}
    if name == "demo":
        return place  # in a schema that it makes, and drops
    place["schema"] = database.schema
    if name == "run":
        return {**place, **attached.run}
    command = main.get_command(click.Context(main), name)
    return dict.fromkeys(getattr(command, "commands", ()), place) or place
