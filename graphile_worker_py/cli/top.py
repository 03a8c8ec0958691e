"""`graphile-worker-py top`: see a queue live, on the terminal; without one, a look at it.

One thread looks, at its own pace and for as long as it takes; this one draws and reads keys. Once the first look has
succeeded the database may go away and come back as often as it likes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from operator import attrgetter
from typing import Any

import attrs
import click
import psycopg

from graphile_worker_py import GraphileWorkerError, Queue
from graphile_worker_py._looks import Snapshot
from graphile_worker_py.cli._options import Epilog, ExitCode, describe, shared_options
from graphile_worker_py.cli._output import Column, json_option, note, say, show, show_fields, show_json
from graphile_worker_py.monitor import LATE, Monitor

PATIENCE = 5.0  # seconds for an answer, and for a connection; for a look to be repeated
MORE = 1.0  # seconds of the server's time for a single look, which so counts a million jobs or more
STATES = ("ready", "running", "scheduled", "retrying", "failed")
SHOWN = 20  # errors


def _seconds(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _run(share: str) -> Any:
    """Return what tells how long the runs of a task take, where that is known."""
    return lambda task: None if task.runs is None else _seconds(getattr(task, share))


TASKS = (
    Column("task", lambda task: task.task),
    *(Column(state, attrgetter(state)) for state in STATES),
    Column("oldest ready", lambda task: _seconds(task.oldest_ready)),
    Column("done/s", lambda task: None if task.runs is None else round(task.runs, 1)),
    Column("p50", _run("p50")),
    Column("p95", _run("p95")),
)
WORKERS = (
    Column("worker", lambda worker: worker.id),
    Column("host", lambda worker: worker.host),
    Column("pid", lambda worker: worker.pid),
    Column("running", lambda worker: worker.running),
    Column("threads", lambda worker: worker.threads),
    Column("longest", lambda worker: _seconds(worker.longest_run)),
    Column("heard", lambda worker: _seconds(worker.beat)),
)
ERRORS = (
    Column("seen", lambda failure: failure.at),
    Column("id", lambda failure: failure.job_id),
    Column("attempt", lambda failure: failure.attempt),
    Column("task", lambda failure: failure.task),
    Column("error", lambda failure: failure.error.strip().split("\n", 1)[0], long=True),
)


@click.command("top", cls=Epilog)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="How often to look; less often where that would cost the server too much.",
)
@click.option("--task", metavar="TEXT", default="", help="Only tasks whose name holds this text.")
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print what there is, and end.")
@json_option
@shared_options()
def command(*, interval: float, task: str, once: bool, as_json: bool, database: str | None, schema: str | None) -> None:
    """Watch the queue: jobs in and out, what waits, runs and fails, the workers, and errors as they come.

    ? shows the keys. Nothing is written, so it works on a standby, and as a role that may only read. The server is at
    work on it for a twentieth of the time at most. Where standard input or output is no terminal, it is as with --once.
    --json prints an object for each look, and goes on until it is interrupted, or once with --once.
    """
    live = not once and not as_json and _has_terminal()
    with Queue(
        database, schema=schema, min_size=0, max_size=1, connect_timeout=PATIENCE, statement_timeout=PATIENCE
    ) as queue:
        monitor = Monitor(queue.database, grant=0.3 if live else MORE)
        first = _look(monitor)
        if live:
            _watch(queue, monitor, first, interval=interval, task=task)
        elif as_json and not once:
            _print_looks(monitor, first, interval=interval, task=task)
        else:
            time.sleep(interval)
            _print_once(_only(_look(monitor), task), as_json=as_json)


def _has_terminal() -> bool:
    streams = (sys.stdin, sys.stdout)
    return all(stream is not None and stream.isatty() for stream in streams) and os.environ.get("TERM") != "dumb"


def _look(monitor: Monitor) -> Snapshot:
    """Return a look; one that was late, on a busy server or for a lock that somebody has for a moment, is repeated."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return monitor.look()
        except LATE:
            if time.monotonic() >= until:
                raise


def _watch(queue: Queue, monitor: Monitor, first: Snapshot, *, interval: float, task: str) -> None:
    """Draw until a key or a signal ends it."""
    from graphile_worker_py.cli._terminal import Terminal
    from graphile_worker_py.cli._top_looker import Looker
    from graphile_worker_py.cli._top_screen import screen
    from graphile_worker_py.cli._top_view import View

    view, looker = View(task=task), Looker(queue, monitor, first, interval=interval)
    with Terminal() as terminal:
        looker.on_news = terminal.wake
        looker.start()
        try:
            while not (view.over or terminal.ended_by):
                if looker.problem is not None:
                    raise looker.problem
                silence, details = looker.silence, looker.details
                terminal.show(screen(view, looker.snapshot, size=terminal.size, silence=silence, details=details))
                key = terminal.key(interval)
                while key is not None:
                    view.press(key, looker.snapshot)
                    key = terminal.key(0)
                looker.follow(view.job, paused=view.paused)
        finally:
            looker.ask()
    looker.stop(timeout=0.5)  # it may be waiting for a database that is away, and need not be waited for
    if terminal.ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    if terminal.ended_by:
        sys.exit(ExitCode.TERMINATED)


def _only(snapshot: Snapshot, text: str) -> Snapshot:
    """Return a look at those tasks only whose name holds a text."""
    if not text:
        return snapshot
    tasks = tuple(task for task in snapshot.tasks if text in task.task)
    return attrs.evolve(
        snapshot,
        tasks=tasks,
        oldest_ready=max((task.oldest_ready for task in tasks if task.oldest_ready is not None), default=None),
        running=tuple(job for job in snapshot.running if text in job.task),
        errors=tuple(failure for failure in snapshot.errors if text in failure.task),
    )


def _print_looks(monitor: Monitor, snapshot: Snapshot, *, interval: float, task: str) -> None:
    """Print look after look, and on standard error when there is no answer, and when there is one again."""
    if sys.stdout is None:
        raise click.ClickException("standard output is closed, so nobody sees what is printed")
    silent = False
    while True:
        if not silent:
            show_json(_only(snapshot, task))
        time.sleep(max(interval, monitor.pause))
        try:
            snapshot = monitor.look()
        except (psycopg.Error, GraphileWorkerError) as error:
            if not silent:
                note(f"No answer: {describe(error)}. Trying again until there is one.")
            silent = True
            continue
        if silent:
            note("There is an answer again.")
        silent = False


def _print_once(snapshot: Snapshot, *, as_json: bool) -> None:
    if as_json:
        show_json(snapshot)
        return
    about = "" if snapshot.read == 1 else "about "
    rates = snapshot.rates
    show_fields(
        {
            "at": snapshot.at,
            "server": "standby" if snapshot.standby else "primary",
            "in": _rate(rates.added),
            "out": _rate(rates.removed),
            **{state: f"{about}{snapshot.total(state):,}" for state in STATES},
            "oldest ready": _seconds(snapshot.oldest_ready),
            **({"not known": "\n".join(snapshot.notes)} if snapshot.notes else {}),
        }
    )
    for title, columns, rows in (
        ("Tasks", TASKS, snapshot.tasks),
        ("Workers", WORKERS, snapshot.workers),
        ("Errors", ERRORS, snapshot.errors[:SHOWN]),
    ):
        if rows:
            say("")
            say(f"{title}:")
            show(rows, columns, as_json=False)


def _rate(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:,.1f}/s"
