"""The command line, `graphile-worker-py COMMAND`, thin over Queue and WorkerPool.

A command's module is imported when it is called, so that `add` does not wait for what only `run` needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from graphile_worker_py import __version__
from graphile_worker_py.cli import _options

NAME = "graphile-worker-py"
COMMANDS = (
    *("migrate", "add", "add-many", "run", "top", "jobs", "queues", "tasks", "workers", "stats", "progress", "history"),
    *("crontab", "unlock", "cleanup", "doctor", "roles", "demo"),
)


class _Commands(_options.Epilog, click.Group):
    """The group of all commands, and the one place where what went wrong becomes a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _closed_output_is_an_error():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_output_is_an_error():
            return super().invoke(ctx)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit; errors are shown here, and not by click."""
        settings = _options.Settings()
        run: Callable[..., Any] = super().main
        width = min(80, shutil.get_terminal_size().columns) - 2
        more = {"prog_name": NAME, "obj": settings, "terminal_width": width, "standalone_mode": False}
        _options.exit_with(lambda: run(*args, **more | extra), settings)


@contextmanager
def _closed_output_is_an_error() -> Iterator[None]:
    """Keep click from ending the process without a word when nobody reads what it prints."""
    try:
        yield
    except BrokenPipeError as error:
        raise click.ClickException("standard output was closed before all was written") from error


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=NAME)
@_options.debug_option
@click.pass_context
def main(context: click.Context) -> _options.ExitCode | None:
    """Work with a job queue in PostgreSQL: install it, add jobs, run them."""
    if context.invoked_subcommand is not None:
        return None
    click.echo(context.get_help())
    return _options.ExitCode.USAGE
