"""`graphile-worker-py unlock`: take the jobs and queues from workers that are dead."""

from __future__ import annotations

import click

from graphile_worker_py import Queue, WorkerInfo
from graphile_worker_py.cli._choosing import patience_option
from graphile_worker_py.cli._options import Epilog, shared_options
from graphile_worker_py.cli._output import at_least, confirm, safe, say, text_of
from graphile_worker_py.cli.workers import sign


@click.command("unlock", cls=Epilog)
@click.argument("ids", metavar="WORKER...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@patience_option
@shared_options()
def command(*, ids: tuple[str, ...], yes: bool, patience: float, database: str | None, schema: str | None) -> None:
    """Free all jobs and queues that each WORKER holds, by its id in the list of workers.

    Make sure that it is dead: one that lives goes on with its jobs, and others begin them as well.
    """
    with Queue(database, schema=schema) as queue:
        workers = {worker.id: worker for worker in queue.workers(patience=patience)}
        if missing := [id for id in ids if id not in workers]:
            raise click.ClickException(
                f"nobody called {safe(missing[0])} works here, or was found to hold anything; "
                "the command workers lists them, --patience 1m looks for longer"
            )
        chosen = [workers[id] for id in dict.fromkeys(ids)]
        confirm(f"Free {'; '.join(map(what_it_holds, chosen))}?", yes=yes)
        queue.force_unlock_workers(ids)
    say(f"Freed what {', '.join(worker.id for worker in chosen)} held.")


def what_it_holds(worker: WorkerInfo) -> str:
    """Return what a worker holds, and whether it seems to live."""
    jobs, queues = at_least(worker.running, exact=worker.exact), worker.queues
    about = "ALIVE" if worker.alive else sign(worker)
    heard = f", last heard {text_of(worker.beat_at)}" if worker.beat_at else ""
    return f"jobs of {worker.id}: {jobs}, queues: {queues} ({about}{heard})"
