"""`graphile-worker-py run`: a worker for the tasks of somebody's module, as a daemon or --once.

The first SIGTERM or SIGINT stops it gracefully, a second ends the grace. Threads cannot be ended from outside, so what
still runs then is given back and the process ends at once: no handler goes on beside the next holder of its job.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import timedelta
from typing import Any, NoReturn

import click
import psycopg
from click.core import ParameterSource

from graphile_worker_py import (
    GraphileWorkerError,
    InvalidCrontab,
    Job,
    MigrationError,
    WorkerPool,
    executable_tasks,
)
from graphile_worker_py.cli._configuration import PREFIX, Origins, as_toml, misspelt
from graphile_worker_py.cli._logs import formatter, set_up_logging
from graphile_worker_py.cli._options import Epilog, ExitCode, Settings, report
from graphile_worker_py.cli._reload import Reloader
from graphile_worker_py.cli._reports import Reports
from graphile_worker_py.cli._run_options import RunOptions, run_options
from graphile_worker_py.cli._supervisor import Supervisor
from graphile_worker_py.cli._target import find_queue

logger = logging.getLogger(__name__)


@click.command("run", cls=Epilog, context_settings={"auto_envvar_prefix": PREFIX.rstrip("_")})
@run_options
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Work on the jobs of a Queue, or of a Tasks registry, found at MODULE:ATTRIBUTE, of --tasks, or of both.

    The module is looked for in the current directory first. --database and --schema move the queue there.
    SIGTERM and SIGINT stop it: running jobs are let finish, for the grace; a second signal ends the grace.

    Options may stand in a file, as `concurrency = 4`, and in the environment, as GRAPHILE_WORKER_CONCURRENCY=4.
    """
    options = RunOptions(**given)
    if options.print_config:
        click.echo(as_toml(context))
        return ExitCode.OK
    refuse_what_contradicts(context, options)
    # A stop during a slow import is a clean stop as well; the pool has handlers of its own while it works. SIGINT too:
    # a shell without job control starts what it runs in the background with SIGINT ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if options.log_format != "text":
        context.obj.formatter = formatter(options.log_format)
    parent = Origins.of(context).parent
    if parent is not None:
        parent.end_with()
    with Reports(options.health_port, parent) as reports:
        if parent is None and (options.processes > 1 or (options.reload and not options.once)):
            return look_after(context, options, reports)
        try:
            pool = make_pool(context, options)
            reports.log()
        except KeyboardInterrupt:
            return ExitCode.OK
        reports.source = pool.health
        return ended(pool, work(pool, once=options.once, shared=context.obj))


def refuse_what_contradicts(context: click.Context, options: RunOptions) -> None:
    """Raise click.UsageError where options go against each other; for --once a file may say what is for daemons."""
    if options.target is None and options.tasks is None:
        raise click.UsageError("nothing to run: give MODULE:ATTRIBUTE, --tasks DIR, or both, here or in a file")
    if options.once and is_asked_for(context, "crontab"):
        raise click.UsageError("--once runs what is ready and ends, so it follows no --crontab")
    if options.once and is_asked_for(context, "reload"):
        raise click.UsageError("--once runs what is ready and ends, so there is nothing to --reload")
    if options.reload and options.processes > 1 and not options.once:
        raise click.UsageError("--reload looks after one process, so it does not go with --processes")


def is_asked_for(context: click.Context, name: str) -> bool:
    """Return whether an option was given on the command line itself."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def make_pool(context: click.Context, options: RunOptions) -> WorkerPool:
    """Return the pool that was asked for; raise NotThere, UsageError and what the parts of it raise."""
    queue = find_queue(options.target, database=options.database, schema=options.schema, listen=options.listen)
    context.obj.unnamed &= queue.database.source is None
    set_up_logging(options.log_level, options.log_format)
    if Origins.of(context).parent is None:
        warn(context)
    if options.tasks is not None:
        queue.include(executable_tasks(options.tasks, timeout=timedelta(seconds=options.tasks_timeout)))
    return WorkerPool(
        queue,
        options.concurrency,
        poll_interval=options.poll_interval,
        grace=options.grace,
        stuck_after=options.stuck_after,
        forbidden_flags=options.forbidden_flag,
        crontab=find_crontab(options),
        history=options.history,
    )


def warn(context: click.Context) -> None:
    """Log what looks like a mistake."""
    for mistake in misspelt(context):
        logger.warning("%s", mistake)


def look_after(context: click.Context, options: RunOptions, reports: Reports) -> int:
    """Run workers under this process, which works on nothing itself; return the exit code for all."""
    try:
        set_up_logging(options.log_level, options.log_format)
        warn(context)
        reports.log()
        parent = make_parent(Origins.of(context), options)
        reports.source = parent.health
        return parent.run()
    except KeyboardInterrupt:  # before it had handlers of its own, and children
        return ExitCode.OK


def make_parent(origins: Origins, options: RunOptions) -> Supervisor | Reloader:
    """Return what looks after so many processes, or after one and its files."""
    crontab = find_crontab(options)
    if options.processes > 1:
        return Supervisor(options.processes, origins, once=options.once, reloads=crontab is not None)
    files = [path for path in (origins.file, crontab or "crontab") if path is not None]
    folders = [] if options.tasks is None else [options.tasks]
    return Reloader(files, folders, reloads=crontab is not None)


def find_crontab(options: RunOptions) -> str | None:
    """Return the path of the crontab to follow, None without one, and for --once."""
    if options.once:
        return None
    return "crontab" if options.crontab is None and os.path.isfile("crontab") else options.crontab


def work(pool: WorkerPool, *, once: bool, shared: Settings) -> ExitCode:
    """Run the pool until it is told to stop, or once; return the exit code for what it did."""
    try:
        return run_once(pool) if once else run_for_long(pool)
    except KeyboardInterrupt:
        return ExitCode.OK
    except (MigrationError, InvalidCrontab) as error:
        return report(error, shared)


def run_for_long(pool: WorkerPool) -> ExitCode:
    """Run the pool until it is told to stop."""
    pool.run()
    return ExitCode.OK


def run_once(pool: WorkerPool) -> ExitCode:
    """Run what is ready, and print a summary."""
    summary = pool.run_once()
    click.echo(
        f"{summary.completed} completed, {summary.retrying} failed and will be tried again, "
        f"{summary.failed} failed for good"
    )
    return ExitCode.FAILED if summary.failed else ExitCode.OK


def ended(pool: WorkerPool, code: ExitCode) -> ExitCode:
    """Stop what is left of the pool, heeding no signal any more; return the exit code, or end with one at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if jobs := pool.stop(timeout=0):
        end_at_once(pool, jobs, code or ExitCode.UNFINISHED)
    pool.queue.close()
    return ExitCode.UNREACHABLE if code == ExitCode.OK and pool.leaves_jobs() else code


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
