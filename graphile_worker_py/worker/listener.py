"""Listener: LISTEN on a connection of its own, and wake the local queue when jobs are added.

Channels are not per schema: a nudge may be about another schema of the same database, which costs one claim; and a
breaking migration is announced by its number only, so one we already know, such as another schema being installed
beside ours, is no reason to stop.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Callable

from psycopg import Notify

from graphile_worker_py._database import Connection, Database
from graphile_worker_py._service import Service
from graphile_worker_py.migrate import LATEST

ADDED = "jobs:insert"
MIGRATED = "worker:migrate"


class Listener(Service):
    """Hears what is added and migrated. `on_jobs` is called for new jobs and after every (re)connect."""

    def __init__(
        self, database: Database, *, on_jobs: Callable[[], None], on_breaking: Callable[[int | None], None]
    ) -> None:
        super().__init__("listener")
        self._database = database
        self._on_jobs = on_jobs
        self._on_breaking = on_breaking
        self._inner, self._outer = socket.socketpair()

    def wake(self) -> None:
        """End the wait for notifications now."""
        super().wake()
        with contextlib.suppress(OSError):  # the thread has ended already
            self._outer.send(b"!")

    def step(self) -> float | None:
        """Listen until the connection fails or the service stops."""
        connection = self._database.connect()
        try:
            self._database.listen(connection, ADDED, MIGRATED)
            self._on_jobs()  # what was added while nobody listened
            while not self.stopping.is_set():
                self._wait(connection)
                for notification in connection.notifies(timeout=0):
                    self.hear(notification)
        finally:
            connection.close()
        return None

    def on_stop(self) -> None:
        """Let go of the two sockets."""
        self._inner.close()
        self._outer.close()

    def _wait(self, connection: Connection) -> None:
        """Wait until the server has sent something, or wake() is called."""
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        waiting.register(self._inner.fileno(), select.POLLIN)
        waiting.poll()

    def hear(self, notification: Notify) -> None:
        """Act on a notification; what cannot be read counts as one new job."""
        told = _told(notification.payload)
        if notification.channel == ADDED:
            count = told.get("count", 1)
            if not isinstance(count, (int, float)) or count > 0:
                self._on_jobs()
        elif notification.channel == MIGRATED and told.get("breaking"):
            number = told.get("migrationNumber")
            if not isinstance(number, int) or number > LATEST:
                self._on_breaking(number if isinstance(number, int) else None)


def _told(payload: str) -> dict[str, object]:
    try:
        told = json.loads(payload)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
