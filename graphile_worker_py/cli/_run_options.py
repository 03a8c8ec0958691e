"""The options of `run`, as click reads them and as the worker gets them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import attrs
import click

from graphile_worker_py import executables
from graphile_worker_py.cli._configuration import AddressSetting, Setting, SettingArgument, read_file
from graphile_worker_py.cli._options import not_empty, shared_options, span
from graphile_worker_py.cli._target import check_target

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("text", "json")


@attrs.frozen(kw_only=True)
class RunOptions:
    """What was asked of `run`, by options, the environment, a file and defaults; each is named as its option."""

    target: tuple[str, str] | None
    tasks: str | None
    tasks_timeout: float
    concurrency: int
    processes: int
    once: bool
    reload: bool
    poll_interval: float
    grace: float
    stuck_after: float
    forbidden_flag: tuple[str, ...]
    crontab: str | None
    history: timedelta | None
    listen: str | bool | None
    log_level: str
    log_format: str
    health_port: tuple[str, int] | None
    print_config: bool
    database: str | None
    schema: str | None


def check_seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Return the seconds if they can be a time limit; raise click.BadParameter otherwise, for NaN too."""
    longest = executables.TIMEOUT.total_seconds()
    if not 0 < value <= longest:
        raise click.BadParameter(f"expected more than 0 and at most {longest:.0f} seconds")
    return value


def read_listen(context: click.Context, parameter: click.Parameter, text: str | None) -> str | bool | None:
    """Return a connection string, or False for off; raise click.BadParameter for nothing at all."""
    return False if text == "off" else not_empty(context, parameter, text)


def read_history(context: click.Context, parameter: click.Parameter, text: str | None) -> timedelta | None:
    """Return for how long to keep a history; raise click.BadParameter for what is no such time."""
    kept_for = None if text is None else span(text)
    if text is not None and not kept_for:
        raise click.BadParameter("expected a time such as 12h or 7d")
    return kept_for


def read_address(context: click.Context, parameter: click.Parameter, value: object) -> tuple[str, int] | None:
    """Return a host, empty for all interfaces, and a port; raise click.BadParameter for what is neither."""
    if value is None:
        return None
    host, _, port = str(value).rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    is_number = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
    if not is_number or (":" in host and not bracketed):
        hint = "; Kubernetes sets this variable for a Service of that name: enableServiceLinks: false keeps it away"
        linked = str(value).startswith("tcp://")
        raise click.BadParameter(
            f"expected a port, such as 8080, or HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080{hint if linked else ''}"
        )
    return host[1:-1] if bracketed else host, int(port)


def _setting(*names: str, **options: Any) -> Callable[[F], F]:
    return click.option(*names, cls=Setting, **options)


# The first of them finds the file in which the others look.
DECLARED: tuple[Callable[[Any], Any], ...] = (
    click.argument(
        "target",
        metavar="[MODULE:ATTRIBUTE]",
        required=False,
        cls=SettingArgument,
        callback=check_target,
        envvar="GRAPHILE_WORKER_TARGET",
    ),
    click.option(
        "--config",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=read_file,
        help="Read settings from this file; else ./graphile-worker-py.toml, else ./pyproject.toml.",
    ),
    click.option("--print-config", is_flag=True, help="Print each setting, and where it comes from, as TOML, and end."),
    _setting(
        "--tasks",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        help="Run the executables of this folder as tasks, as Node's worker does.",
    ),
    _setting(
        "--tasks-timeout",
        metavar="S",
        type=float,
        default=executables.TIMEOUT.total_seconds(),
        show_default=True,
        callback=check_seconds,
        help="Seconds that one of them may run.",
    ),
    _setting("-c", "--concurrency", metavar="N", type=int, default=8, show_default=True, help="Jobs at a time."),
    _setting(
        "--processes",
        metavar="N",
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="Worker processes, each with so many jobs at a time; what dies is started anew.",
    ),
    click.option("--once", is_flag=True, help="Run what is ready, print a summary, and end."),
    _setting(
        "--reload/--no-reload",
        default=False,
        help="For development: start the worker anew when a file of Python's, the crontab or a setting has changed.",
    ),
    _setting(
        "--poll-interval",
        metavar="S",
        type=float,
        default=2.0,
        show_default=True,
        help="Seconds between looks when nothing wakes it.",
    ),
    _setting(
        "--grace",
        metavar="S",
        type=float,
        default=30.0,
        show_default=True,
        help="Seconds that running jobs get after the signal to stop.",
    ),
    _setting(
        "--stuck-after",
        metavar="S",
        type=float,
        default=600.0,
        show_default=True,
        help="Seconds until a job that still runs is reported, with its stack.",
    ),
    _setting("--forbidden-flag", metavar="FLAG", multiple=True, help="Leave jobs with this flag alone. Repeatable."),
    _setting(
        "--crontab",
        metavar="FILE",
        callback=not_empty,
        help="Add jobs by the clock, as this file says; else ./crontab, if there is one. Read again at SIGHUP.",
    ),
    _setting(
        "--history",
        metavar="TIME",
        callback=read_history,
        help="Remember every run for so long, such as 7d; graphile-worker-py history shows them.",
    ),
    _setting(
        "--listen",
        metavar="URL|off",
        allow_from_autoenv=False,
        callback=read_listen,
        help="Where to hear of new jobs, if --database is a pooler; off: poll only. Else GRAPHILE_WORKER_LISTEN.",
    ),
    _setting(
        "--log-level",
        metavar="LEVEL",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="What to log to standard error: debug, info, warning or error.",
    ),
    _setting(
        "--log-format",
        metavar="FORMAT",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="How to log it: text, or json for a JSON object in each line.",
    ),
    click.option(
        "--health-port",
        cls=AddressSetting,
        metavar="[HOST:]PORT",
        callback=read_address,
        help="Answer GET /live and /ready there; without HOST on all interfaces.",
    ),
    shared_options(
        else_database="that of the queue; of a registry, DATABASE_URL or PG*",
        else_schema="that of the queue; of a registry, GRAPHILE_WORKER_SCHEMA or graphile_worker",
        kind=Setting,
    ),
)


def run_options(function: F) -> F:
    """Declare the options of `run` on a function; what it is given makes RunOptions."""
    for declare in reversed(DECLARED):
        function = declare(function)
    return function
