"""KnownItems: the cron items that workers have made known, to be looked at, paused, resumed and run by hand.

An item is paused by a last execution in the far future: a scheduler adds only what is later than that, be it ours or
Node's, at the tick and when it makes up for what was missed. So a pause needs no table, no worker has to be told of it,
and it outlasts restarts.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import attrs

from graphile_worker_py._adding import add_one
from graphile_worker_py._database import Database
from graphile_worker_py.checks import check_text
from graphile_worker_py.cron.crontab import CronItem
from graphile_worker_py.errors import UnknownCronItem
from graphile_worker_py.jobs import Job, moment
from graphile_worker_py.tasks import Tasks

PAUSED = datetime(9999, 12, 31, tzinfo=timezone.utc)


@attrs.frozen
class KnownItem:
    """A cron item as the database knows it.

    `last_execution` is the minute of its last run, or when it was resumed; None where it never ran, and while `paused`.
    """

    identifier: str
    known_since: datetime
    last_execution: datetime | None
    paused: bool


class KnownItems:
    """What `queue.crontab` is."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        self._database = database
        self._tasks = tasks

    def known(self) -> list[KnownItem]:
        """Return the items that any worker has made known, by identifier; those of a file nobody follows stay too."""
        rows = self._database.run("known_crontabs", {"paused": PAUSED})
        return [
            KnownItem(identifier, moment(since), None if last is None else moment(last), paused)
            for identifier, since, last, paused in rows
        ]

    def pause(self, identifier: str) -> None:
        """Let no worker, Node's included, add jobs for an item until it is resumed. Raises UnknownCronItem."""
        self._set(identifier, pause=True)

    def resume(self, identifier: str) -> None:
        """Let an item go on from now; what was due meanwhile is not made up for. Raises UnknownCronItem."""
        self._set(identifier, pause=False)

    def run(self, item: CronItem | str) -> Job:
        """Add the job of an item now, also if it is paused: of a CronItem, or the identifier of one on a task.

        Its payload says the minute it is now. When the item is due next does not change. Raises UnknownCronItem.
        """
        if not isinstance(item, CronItem):
            items = {one.identifier: one for one in self._tasks.cron_items()}
            if item not in items:
                raise _unknown(item, items)
            item = items[item]
        ((minute,),) = self._database.run("minute_now")
        task = self._tasks.get(item.task)
        spec = item.spec if task is None else item.spec.with_defaults(task.defaults)
        payload = json.loads(item.payload_at(moment(minute), backfilled=False))
        with self._database.connection() as connection:
            spec = attrs.evolve(spec, payload=payload)
            return add_one(self._database, connection, spec, job_key_mode=item.job_key_mode)

    def _set(self, identifier: str, *, pause: bool) -> None:
        check_text("identifier", identifier, shortest=1, longest=10_000)
        change: dict[str, Any] = {"identifier": identifier, "paused": PAUSED, "pause": pause}
        if self._database.run("set_last_execution", change):
            return
        known = {item.identifier: item for item in self.known()}
        if identifier not in known:
            raise _unknown(identifier, known)


def _unknown(identifier: object, known: dict[str, Any]) -> UnknownCronItem:
    names = ", ".join(sorted(known)) or "none"
    return UnknownCronItem(f"no cron item is called {identifier!r}; known are: {names}")
