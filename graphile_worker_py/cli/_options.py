"""What all commands share: --database, --schema, --debug, the exit codes, and one line for whatever went wrong.

The line holds no payload and no password: of PostgreSQL's errors only the message is shown, not the detail, which
quotes rows, and what stands before an `@` is masked, for a password with an `@` in it is taken for a part of the host.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import attrs
import click
import psycopg

from graphile_worker_py import (
    DuplicateTask,
    GraphileWorkerError,
    InvalidConninfo,
    InvalidCrontab,
    InvalidJobSpec,
    InvalidRoles,
    InvalidSchemaName,
    NotSupported,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    UnknownCronItem,
    UnknownTask,
    UnsafeExecutable,
)

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
SPAN = re.compile(rf"(?=.)(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")

F = TypeVar("F", bound=Callable[..., Any])


class ExitCode(enum.IntEnum):
    """What a command ends with; MEANINGS says when.

    57 is that of Node's worker, 69 and 75 are from sysexits.h, 130 and 143 what a shell says of the two signals.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NO_SCHEMA = 4
    TOO_NEW = 57
    NOT_THERE = 69
    UNFINISHED = 75
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    ExitCode.OK: "All is well; a worker was told to stop (SIGTERM, SIGINT) and did.",
    ExitCode.FAILED: "The work failed: jobs of run --once for good, the demo's comparison; doctor has found a problem; "
    "or any other error.",
    ExitCode.USAGE: "The command line is wrong: an option, a payload, a time, a connection string; or a crontab is.",
    ExitCode.UNREACHABLE: "The database cannot be reached, does not let us in, or went away; a worker that was told to "
    "stop meanwhile left jobs locked, for others to recover.",
    ExitCode.NO_SCHEMA: "The schema is missing, or too old: run migrate.",
    ExitCode.TOO_NEW: "The schema has a breaking migration that this version does not know, or got it just now.",
    ExitCode.NOT_THERE: "Something needed is not there, or not fit: what to run, a task, an extra, a port, a right.",
    ExitCode.UNFINISHED: "Handlers still ran when the grace was over; their jobs were given back.",
    ExitCode.INTERRUPTED: "Interrupted (SIGINT); not for run.",
    ExitCode.TERMINATED: "Told to end (SIGTERM); not for run.",
}

# The first class that fits.
CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (InvalidJobSpec, ExitCode.USAGE),
    (InvalidConninfo, ExitCode.USAGE),
    (InvalidCrontab, ExitCode.USAGE),
    (InvalidRoles, ExitCode.USAGE),
    (InvalidSchemaName, ExitCode.USAGE),
    (SchemaTooNew, ExitCode.TOO_NEW),
    (SchemaMissing, ExitCode.NO_SCHEMA),
    (SchemaTooOld, ExitCode.NO_SCHEMA),
    (NotSupported, ExitCode.NOT_THERE),
    (UnknownTask, ExitCode.NOT_THERE),
    (UnknownCronItem, ExitCode.NOT_THERE),
    (psycopg.errors.InsufficientPrivilege, ExitCode.NOT_THERE),
    (click.Abort, ExitCode.INTERRUPTED),
    (UnsafeExecutable, ExitCode.NOT_THERE),
    (DuplicateTask, ExitCode.NOT_THERE),
)

# Connection exceptions, wrong user or password, no such database, too many connections, the server shuts down.
UNREACHABLE_STATES = ("08", "28", "3D", "53", "57P")


class NotThere(click.ClickException):
    """Say that something the command needs cannot be had."""

    exit_code = ExitCode.NOT_THERE


@attrs.define
class Settings:
    """What was asked of all commands alike, before or after the command's name.

    `unnamed`: neither an argument, DATABASE_URL nor a PG* variable says which database. `formatter`: what makes a line
    of an error, where not the usual.
    """

    debug: bool = False
    unnamed: bool = False
    formatter: logging.Formatter | None = None


class _Formatter(click.HelpFormatter):
    """Help that can be read on 40 columns: the names leave room for what is said about them."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(list(rows), min(col_max, self.width // 3), col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


class Epilog(click.Command):
    """A command whose --help ends with the exit codes, and whose description is not cut in a list of commands."""

    context_class = _Context

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence, however long."""
        return super().get_short_help_str(limit=1000)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes, wrapped to the terminal."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])


class Group(Epilog, click.Group):
    """Commands of a command, with the exit codes in its help, which is shown where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what follows the command's name; nothing is a mistake, and asks for the help."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.obj.debug = context.obj.debug or value


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of an error.",
)


def shared_options(
    *,
    else_database: str = "DATABASE_URL, else libpq's PG* variables",
    else_schema: str = "GRAPHILE_WORKER_SCHEMA, else graphile_worker",
    kind: type[click.Option] = click.Option,
) -> Callable[[F], F]:
    """Add --database, --schema and --debug to a command; what it takes where the first two are not given is said."""
    plain: dict[str, Any] = {"cls": kind, "allow_from_autoenv": False}  # DATABASE_URL and the like are read by Queue
    database = click.option(
        "--database",
        metavar="URL",
        callback=_note_database,
        help=f"Connection string or URL; else {else_database}.",
        **plain,
    )
    schema = click.option(
        "--schema", metavar="NAME", callback=not_empty, help=f"Schema of the tables; else {else_schema}.", **plain
    )
    return lambda function: database(schema(debug_option(function)))


def _note_database(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    named = [name for name, text in os.environ.items() if text and (name == "DATABASE_URL" or name.startswith("PG"))]
    context.obj.unnamed = value is None and not named
    return not_empty(context, parameter, value)


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the value; raise click.BadParameter if it is empty."""
    if value == "":
        raise click.BadParameter("is empty; name one, or leave the option out")
    return value


def span(text: str) -> timedelta | None:
    """Return a time such as 90s, 1h30m or 7d, None for what is not written so; raise click.BadParameter if too long."""
    found = SPAN.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (float(number or 0) for number in found.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise click.BadParameter("that delay is longer than Python can count") from None


def exit_with(run: Callable[[], object], settings: Settings) -> NoReturn:
    """Run a command and exit with the code it returns, or with that of the error it raises."""
    try:
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        code = report(error, settings)
    _let_go_of_output()
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def report(error: BaseException, settings: Settings) -> ExitCode:
    """Write one line about an error to standard error, after its traceback if wanted, and return its exit code."""
    hint = (
        " (DATABASE_URL is not set; libpq's defaults were used)" if settings.unnamed and _is_unreachable(error) else ""
    )
    text = f"Error: {describe(error)}{hint}"
    with contextlib.suppress(OSError, AttributeError):  # standard error may be closed, or never have been open
        if settings.formatter is not None:
            told = (type(error), error, error.__traceback__) if settings.debug else None
            text = settings.formatter.format(
                logging.LogRecord(__name__, logging.CRITICAL, __file__, 0, text, None, told)
            )
        elif settings.debug:
            traceback.print_exception(error)
        print(text, file=sys.stderr, flush=True)
    return exit_code(error)


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code for an error."""
    if isinstance(error, click.ClickException):
        return ExitCode(error.exit_code)
    if _is_unreachable(error):
        return ExitCode.UNREACHABLE
    return next((code for kind, code in CODES if isinstance(error, kind)), ExitCode.FAILED)


def describe(error: BaseException) -> str:
    """Return what went wrong, and what to do about it, in one line; only a crontab's mistakes are shown with theirs."""
    if isinstance(error, InvalidCrontab):
        return str(error)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        text = f"{error.format_message()} (see {error.ctx.command_path} --help)"
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, (click.Abort, KeyboardInterrupt)):
        text = "interrupted"
    elif isinstance(error, psycopg.Error):
        text = _database_said(error)
    elif isinstance(error, (GraphileWorkerError, OSError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


def _is_unreachable(error: BaseException) -> bool:
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(UNREACHABLE_STATES)


def _database_said(error: psycopg.Error) -> str:
    message = error.diag.message_primary or (str(error).strip() or type(error).__name__).split("\n", 1)[0]
    message = re.sub(r"[^\s'\"]+@", "…@", message)
    return f"cannot reach the database: {message}" if _is_unreachable(error) else f"the database refused: {message}"


def _let_go_of_output() -> None:
    """Give up what standard output would not take; the interpreter would try again at its end, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
