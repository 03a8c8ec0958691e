"""Listener: LISTEN on a connection of its own, and wake the local queue when jobs are added.

Channels are not per schema: a nudge may be about another schema of the same database, which costs one claim; and a
breaking migration is announced by its number only, so one we already know, such as another schema being installed
beside ours, is no reason to stop.

A connection may be dead, or may not listen any more, without a word. So after a quarter of a minute without a
notification the listener sends itself one, and connects anew if it does not hear it.

Where nothing can be heard, behind a pooler or by choice, jobs are found by polling, which goes on in any case, and the
listener only looks for a breaking migration now and then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import select
import socket
import time
from collections.abc import Callable

from psycopg import Notify, OperationalError

from graphile_worker_py._database import Database
from graphile_worker_py._running import RUNNING
from graphile_worker_py._service import Service
from graphile_worker_py._watched import Watched
from graphile_worker_py.errors import SchemaTooNew
from graphile_worker_py.migrate import LATEST, check

ADDED = "jobs:insert"
MIGRATED = "worker:migrate"

PING_AFTER = 15.0  # seconds without a notification
PING_TIMEOUT = 10.0  # seconds until the answer
LOOK_EVERY = 60.0  # seconds between looks at the ledger, where nothing is heard

logger = logging.getLogger(__name__)


class Listener(Service):
    """Hears what is added and migrated. `on_jobs` is called for new jobs and after every (re)connect.

    on_running: called with the id of a job about which something was asked that may run here; after every (re)connect
    with None. `hears` says whether notifications arrive now, as far as is known.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_jobs: Callable[[], None],
        on_breaking: Callable[[SchemaTooNew], None],
        on_running: Callable[[int | None], None] = lambda id: None,
        ping_after: float = PING_AFTER,
        ping_timeout: float = PING_TIMEOUT,
    ) -> None:
        # Elsewhere may be away while the database is not, and the other way round.
        super().__init__("listener", None if isinstance(database.listen_on, str) else database.outage)
        self._database = database
        self._ping_after = ping_after
        self._ping_timeout = ping_timeout
        self._channel = f"worker:ping:{secrets.token_hex(8)}"
        self._told_of_polling = False
        self._on_jobs = on_jobs
        self._on_breaking = on_breaking
        self._on_running = on_running
        self.hears = False
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)

    def wake(self) -> None:
        """End the wait for notifications now."""
        super().wake()
        with contextlib.suppress(OSError):  # the thread has ended already, or has enough bytes to read
            self._outer.send(b"!")

    def step(self) -> float | None:
        """Listen until the connection fails, has served its time, or the service stops; or see that we cannot."""
        connection = self._database.connect_to_listen()
        if connection is None:
            return self._do_without()
        try:
            self._database.listen(connection, ADDED, MIGRATED, RUNNING, self._channel)
            self.hears = True
            self._outage.answered(connection.opened_at)
            self._look_back()
            self._listen(connection, until=connection.opened_at + self._database.max_lifetime)
        finally:
            self.hears = False
            connection.close()
        return 0

    def _listen(self, connection: Watched, *, until: float) -> None:
        connection.patience = min(connection.patience, self._ping_timeout)
        heard, asked = time.monotonic(), False
        while not self.stopping.is_set() and time.monotonic() < until:
            self.moved()
            for notification in connection.notifies(timeout=0):
                heard, asked = time.monotonic(), False
                self.hear(notification)
            late_at = heard + self._ping_after + (self._ping_timeout if asked else 0)
            if time.monotonic() < late_at:
                self._wait(connection, min(late_at, until))
            elif asked:
                raise OperationalError("the connection does not hear its own notifications")
            else:
                self._database.ping(connection, self._channel)  # the answer has been read with that, perhaps
                asked = True

    def _do_without(self) -> float:
        """Look for a breaking migration; return when to look again."""
        if not self._told_of_polling:
            self._told_of_polling = True
            if self._database.listen_on:
                logger.warning(
                    "connections go through a pooler, which cannot listen: new jobs are found by polling; "
                    "give listen= a direct connection string to hear of them at once, or False"
                )
        self._look_back()
        return LOOK_EVERY

    def on_stop(self) -> None:
        """Let go of the two sockets."""
        self._inner.close()
        self._outer.close()

    def _look_back(self) -> None:
        """Make up for what was not heard while nobody listened: jobs, and a breaking migration."""
        self._on_jobs()
        self._on_running(None)
        try:
            check(self._database)
        except SchemaTooNew as error:
            self._on_breaking(error)

    def _wait(self, connection: Watched, until: float) -> None:
        """Wait until the server has sent something, wake() is called, or it is time."""
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        waiting.register(self._inner.fileno(), select.POLLIN)
        waiting.poll(max(0.0, until - time.monotonic()) * 1000 + 1)
        with contextlib.suppress(BlockingIOError):
            self._inner.recv(4096)

    def hear(self, notification: Notify) -> None:
        """Act on a notification; what cannot be read counts as one new job."""
        if notification.channel == RUNNING:
            self._on_running(int(notification.payload) if notification.payload.isdecimal() else None)
            return
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
