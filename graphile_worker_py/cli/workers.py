"""`graphile-worker-py workers`: who works on jobs, and who else holds some."""

from __future__ import annotations

import click

from graphile_worker_py import Queue, WorkerInfo
from graphile_worker_py.cli._choosing import patience_option
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import Column, at_least, json_option, note, show

SIGNS = {True: "alive", False: "silent", None: "not ours"}


def sign(worker: WorkerInfo) -> str:
    """Return in a word whether a worker lives, as far as is known."""
    return SIGNS[worker.alive]


COLUMNS = (
    Column("id", lambda worker: worker.id),
    Column("is", sign, style=lambda worker: {True: "green", False: "red", None: "yellow"}[worker.alive]),
    Column("host", lambda worker: worker.host),
    Column("pid", lambda worker: worker.pid),
    Column("version", lambda worker: worker.version),
    Column("threads", lambda worker: worker.threads),
    Column("jobs", lambda worker: at_least(worker.running, exact=worker.exact)),
    Column("queues", lambda worker: worker.queues, unless=0),
    Column("holds since", lambda worker: worker.since),
    Column("last heard", lambda worker: worker.beat_at, unless=None),
    Column("started", lambda worker: worker.started_at, unless=None),
)


@click.command("workers", cls=Epilog)
@patience_option
@json_option
@shared_options()
def command(*, patience: float, as_json: bool, database: str | None, schema: str | None) -> None:
    """List the worker pools of this library, and whoever else holds jobs or queues.

    alive: it was heard of lately. silent: it was not, and other workers free its jobs soon. not ours: a worker of
    Node's, say, which tells nothing about itself; what it holds is free four hours after it was taken, or after unlock.
    Where the time was not enough to look through all jobs, a + stands behind their number.
    """
    with Queue(database, schema=schema) as queue:
        workers = queue.workers(patience=patience)
    show(workers, COLUMNS, as_json=as_json)
    if not workers:
        note("Nobody works here, and nobody holds a job.")
