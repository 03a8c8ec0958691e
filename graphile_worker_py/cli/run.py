"""`graphile-worker-py run`: a worker for the tasks of somebody's module, as a daemon or --once.

The first SIGTERM or SIGINT stops it gracefully, a second ends the grace. Threads cannot be ended from outside, so what
still runs then is given back and the process ends at once: no handler goes on beside the next holder of its job.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import click
import psycopg

from graphile_worker_py import (
    GraphileWorkerError,
    InvalidCrontab,
    Job,
    MigrationError,
    Queue,
    Tasks,
    WorkerPool,
    executable_tasks,
    executables,
)
from graphile_worker_py.cli._options import Epilog, ExitCode, NotThere, not_empty, report, shared_options, span
from graphile_worker_py.cli._supervisor import Supervisor, stop_with_the_parent

logger = logging.getLogger(__name__)

NOT_THEIRS = (f"{Path(__file__).parents[1]}{os.sep}", str(importlib.__file__), "<frozen")  # code on the way to a module
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def check_target(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, str] | None:
    """Return a module's name and the path of an attribute in it; raise click.BadParameter if text is not like that."""
    if text is None:
        return None
    module, _, attribute = text.partition(":")
    if module.endswith(".py"):
        raise click.BadParameter(f"expected the name of a module, not of a file: leave out the .py of {module!r}")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise click.BadParameter("expected module:attribute, such as myapp.jobs:queue")
    return module, attribute


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


@click.command("run", cls=Epilog)
@click.argument("target", metavar="[MODULE:ATTRIBUTE]", required=False, callback=check_target)
@click.option(
    "--tasks",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Run the executables of this folder as tasks, as Node's worker does.",
)
@click.option(
    "--tasks-timeout",
    metavar="S",
    type=float,
    default=executables.TIMEOUT.total_seconds(),
    show_default=True,
    callback=check_seconds,
    help="Seconds that one of them may run.",
)
@click.option(
    "-c",
    "--concurrency",
    metavar="N",
    type=int,
    default=8,
    show_default=True,
    help="Jobs at a time.",
)
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Worker processes, each with so many jobs at a time; what dies is started anew.",
)
@click.option("--once", is_flag=True, help="Run what is ready, print a summary, and end.")
@click.option(
    "--poll-interval",
    metavar="S",
    type=float,
    default=2.0,
    show_default=True,
    help="Seconds between looks when nothing wakes it.",
)
@click.option(
    "--grace",
    metavar="S",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds that running jobs get after the signal to stop.",
)
@click.option(
    "--stuck-after",
    metavar="S",
    type=float,
    default=600.0,
    show_default=True,
    help="Seconds until a job that still runs is reported, with its stack.",
)
@click.option(
    "--forbidden-flag",
    "forbidden_flags",
    metavar="FLAG",
    multiple=True,
    help="Leave jobs with this flag alone. Repeatable.",
)
@click.option(
    "--crontab",
    metavar="FILE",
    help="Add jobs by the clock, as this file says; else ./crontab, if there is one. Read again at SIGHUP.",
)
@click.option(
    "--history",
    metavar="TIME",
    callback=read_history,
    help="Remember every run for so long, such as 7d; graphile-worker-py history shows them.",
)
@click.option(
    "--listen",
    metavar="URL|off",
    callback=read_listen,
    help="Where to hear of new jobs, if --database is a pooler; off: poll only. Else GRAPHILE_WORKER_LISTEN.",
)
@click.option(
    "--log-level",
    metavar="LEVEL",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log to standard error: debug, info, warning or error.",
)
@shared_options(
    else_database="that of the queue; of a registry, DATABASE_URL or PG*",
    else_schema="that of the queue; of a registry, GRAPHILE_WORKER_SCHEMA or graphile_worker",
)
@click.pass_context
def command(
    context: click.Context,
    *,
    target: tuple[str, str] | None,
    folder: str | None,
    tasks_timeout: float,
    concurrency: int,
    processes: int,
    once: bool,
    poll_interval: float,
    grace: float,
    stuck_after: float,
    forbidden_flags: tuple[str, ...],
    crontab: str | None,
    history: timedelta | None,
    listen: str | bool | None,
    log_level: str,
    database: str | None,
    schema: str | None,
) -> int:
    """Work on the jobs of a Queue, or of a Tasks registry, found at MODULE:ATTRIBUTE, of --tasks, or of both.

    The module is looked for in the current directory first. --database and --schema move the queue there.
    SIGTERM and SIGINT stop it: running jobs are let finish, for the grace; a second signal ends the grace.
    """
    # A stop during a slow import is a clean stop as well; the pool has handlers of its own while it works. SIGINT too:
    # a shell without job control starts what it runs in the background with SIGINT ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if target is None and folder is None:
        raise click.UsageError("nothing to run: give MODULE:ATTRIBUTE, --tasks DIR, or both")
    if processes > 1:
        return supervise(processes, once=once, reloads=find_crontab(crontab, once=once) is not None, level=log_level)
    stop_with_the_parent()
    try:
        queue = find_queue(target, database=database, schema=schema, listen=listen)
        context.obj.unnamed &= queue.database.source is None
        set_up_logging(log_level)
        if folder is not None:
            queue.include(executable_tasks(folder, timeout=timedelta(seconds=tasks_timeout)))
        pool = WorkerPool(
            queue,
            concurrency,
            poll_interval=poll_interval,
            grace=grace,
            stuck_after=stuck_after,
            forbidden_flags=forbidden_flags,
            crontab=find_crontab(crontab, once=once),
            history=history,
        )
    except KeyboardInterrupt:
        return ExitCode.OK
    try:
        code = work(pool, once=once)
    except KeyboardInterrupt:
        code = ExitCode.OK
    except (MigrationError, InvalidCrontab) as error:
        code = report(error, context.obj)
    return ended(pool, code)


def ended(pool: WorkerPool, code: ExitCode) -> ExitCode:
    """Stop what is left of the pool, heeding no signal any more; return the exit code, or end with one at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if jobs := pool.stop(timeout=0):
        end_at_once(pool, jobs, code or ExitCode.UNFINISHED)
    pool.queue.close()
    return ExitCode.UNREACHABLE if code == ExitCode.OK and pool.leaves_jobs() else code


def supervise(processes: int, *, once: bool, reloads: bool, level: str) -> int:
    """Run so many workers under this process, which works on nothing itself; return the exit code for all."""
    try:
        set_up_logging(level)
        return Supervisor(processes, once=once, reloads=reloads).run()
    except KeyboardInterrupt:  # before it had handlers of its own, and children
        return ExitCode.OK


def find_crontab(path: str | None, *, once: bool) -> str | None:
    """Return the path of the crontab to follow, None without one; --once takes no option for it, and ignores it."""
    if once and path is not None:
        raise click.UsageError("--once runs what is ready and ends, so it follows no --crontab")
    if path is None and os.path.isfile("crontab"):
        return "crontab"
    return path


def work(pool: WorkerPool, *, once: bool) -> ExitCode:
    """Run the pool until it is told to stop, or once; return the exit code for what it did."""
    if not once:
        pool.run()
        return ExitCode.OK
    summary = pool.run_once()
    click.echo(
        f"{summary.completed} completed, {summary.retrying} failed and will be tried again, "
        f"{summary.failed} failed for good"
    )
    return ExitCode.FAILED if summary.failed else ExitCode.OK


def end_at_once(pool: WorkerPool, jobs: list[Job], code: ExitCode) -> NoReturn:
    """Give back the jobs whose handlers still run, and end the process before they can do more."""
    names = ", ".join(f"{job.id} ({job.task_identifier})" for job in jobs)
    if pool.unwritten():
        logger.error("%s outcomes could not be written; their jobs stay locked", pool.unwritten())
    try:
        pool.release(jobs)
        logger.error("given back while their handlers still ran: %s", names)
    except (psycopg.Error, GraphileWorkerError) as error:
        logger.error("these jobs still run and stay locked, for they could not be given back: %s: %s", names, error)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def set_up_logging(level: str) -> None:
    """Log to standard error, unless the module has set up logging itself; our own level is as asked in any case."""
    logging.basicConfig(level=level.upper(), format=LOG_FORMAT)
    logging.getLogger("graphile_worker_py").setLevel(level.upper())


def find_queue(
    target: tuple[str, str] | None, *, database: str | None, schema: str | None, listen: str | bool | None
) -> Queue:
    """Return the queue to work on, moved where the options say; raise NotThere if the target is none."""
    if target is None:
        return Queue(database, schema=schema, listen=listen)
    module, attribute = target
    found = find(module, attribute)
    if isinstance(found, Tasks):
        queue = Queue(database, schema=schema, listen=listen)
        queue.include(found)
        return queue
    if not isinstance(found, Queue):
        raise NotThere(f"{module}:{attribute} is of type {type(found).__name__}, expected a Queue or a Tasks registry")
    if database or schema or listen is not None:
        # A schema alone moves the queue within the database it has.
        found.point_at(database or found.database.source, schema=schema, listen=listen)
    return found


def find(module: str, attribute: str) -> object:
    """Import the module and return its attribute; raise NotThere, saying which of the two could not be had and why."""
    sys.path.insert(0, os.getcwd())
    imported = load(module)
    try:
        return functools.reduce(getattr, attribute.split("."), imported)
    except AttributeError as error:
        names = [name for name, value in vars(imported).items() if isinstance(value, (Queue, Tasks))]
        hint = f"; it has {', '.join(names)}" if names else ""
        raise NotThere(f"module {module!r} has no attribute {attribute!r}{hint}") from error


def load(module: str) -> object:
    """Import a module; what it raises itself becomes NotThere, unless the exit code of the error says more."""
    try:
        return importlib.import_module(module)
    except (psycopg.Error, MigrationError):
        raise  # it looks into the database when it is imported
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise NotThere(f"there is no module {error.name!r}, here ({os.getcwd()}) or installed") from error
        raise NotThere(f"module {module!r} imports {error.name!r}, which is not there{where(error)}") from error
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise NotThere(f"module {module!r} cannot be imported: {error.msg} ({place})") from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}"
        raise NotThere(f"module {module!r} cannot be imported, it raised {what}{where(error)}") from error


def where(error: BaseException) -> str:
    """Return the place in somebody else's code that raised an error, in parentheses."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_THEIRS)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
