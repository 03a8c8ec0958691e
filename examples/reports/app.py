"""A shop that counts its orders and reports on them by the clock: what runs when stands in the file crontab.

graphile-worker-py crontab next     when is what due
graphile-worker-py migrate
graphile-worker-py run app:queue    follows ./crontab, and what is on tasks
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from graphile_worker_py import JobContext, Queue

queue = Queue()

PERIODS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}


def minute(payload: dict[str, Any]) -> datetime:
    """Return the minute that a job is for, however late it runs."""
    return datetime.fromisoformat(payload["_cron"]["ts"].replace("Z", "+00:00"))


@queue.cron("*/10 * * * *", backfill=timedelta(hours=1))
@queue.task
def count_orders(payload: dict[str, Any], ctx: JobContext) -> None:
    """Count the orders so far; counted twice is counted once, for the minute is the key."""
    with ctx.transaction() as connection:
        connection.execute(
            "insert into counts select %s, count(*) from orders where at < %s on conflict do nothing",
            [minute(payload), minute(payload)],
        )


@queue.task
def report(payload: dict[str, Any], ctx: JobContext) -> None:
    """Write down how many orders came in a period that ends at the minute of the job."""
    end = minute(payload)
    with ctx.transaction() as connection:
        connection.execute(
            "insert into reports select %s, %s, count(*) from orders where at >= %s and at < %s on conflict do nothing",
            [payload["period"], end, end - PERIODS[payload["period"]], end],
        )


@queue.task
def forget(payload: dict[str, Any], ctx: JobContext) -> None:
    """Delete what nobody will ask for any more."""
    with ctx.transaction() as connection:
        connection.execute("delete from counts where at < now() - make_interval(days => %s)", [payload["days"]])
