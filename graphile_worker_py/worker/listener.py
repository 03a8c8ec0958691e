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
from graphile_worker_py.errors import SchemaTooNew
from graphile_worker_py.migrate import LATEST, check

ADDED = "jobs:insert"
MIGRATED = "worker:migrate"


class Listener(Service):
    """Hears what is added and migrated. `on_jobs` is called for new jobs and after every (re)connect."""

    def __init__(
        self, database: Database, *, on_jobs: Callable[[], None], on_breaking: Callable[[SchemaTooNew], None]
    ) -> None:
        super().__init__("listener")
        self._database = database
        self._on_jobs = on_jobs
        self._on_breaking = on_breaking
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)

    def wake(self) -> None:
        """End the wait for notifications now."""
        super().wake()
        with contextlib.suppress(OSError):  # the thread has ended already, or has enough bytes to read
            self._outer.send(b"!")

    def step(self) -> float | None:
        """Listen until the connection fails or the service stops."""
        connection = self._database.connect()
        try:
            self._database.listen(connection, ADDED, MIGRATED)
            self._look_back()
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

    def _look_back(self) -> None:
        """Make up for what was not heard while nobody listened: jobs, and a breaking migration."""
        self._on_jobs()
        try:
            check(self._database)
        except SchemaTooNew as error:
            self._on_breaking(error)

    def _wait(self, connection: Connection) -> None:
        """Wait until the server has sent something, or wake() is called."""
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        waiting.register(self._inner.fileno(), select.POLLIN)
        waiting.poll()
        with contextlib.suppress(BlockingIOError):
            self._inner.recv(4096)

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
                self._on_breaking(
                    SchemaTooNew(
                        f"the schema was changed by breaking migration {number or 'of unknown number'}, "
                        "which this version does not know: upgrade graphile-worker-py"
                    )
                )


def _told(payload: str) -> dict[str, object]:
    try:
        told = json.loads(payload)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
