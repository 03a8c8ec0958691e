"""Heart and Sweeper: stay alive, and recover the jobs of those who did not.

A pool enters itself in a table of ours and gives a sign of life every ten seconds, by the database's clock. One that
was silent for a minute is dead: its jobs fail with "worker vanished" and come back after the ordinary delay. Only
pools in that table are judged so; for Node's and all other holders the Sweeper keeps Node's rule, four hours of lock.

Whoever judges must have been heard itself, without a gap, for as long as it asks of others: after an outage of the
database everybody has been silent, and nobody is dead. And a pool that could not be heard for that long (its process
was stopped, its network gone) begins no job until it knows: `on_alive` tells until when it may. Declared dead, it gives
up what it has not begun and goes on under its old id: what still runs can change nothing, for every write is guarded by
the time of the claim as well.

Where the table is missing, or not ours to write, a pool works without recovery, by Node's rule alone.
"""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from graphile_worker_py._database import Database
from graphile_worker_py._service import Service
from graphile_worker_py._version import __version__
from graphile_worker_py.errors import NotSupported, SchemaMissing

logger = logging.getLogger(__name__)

FIRST_SWEEP = 60.0
SWEEP_INTERVAL = (480.0, 600.0)


CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Return seconds of a clock that goes on while the process is stopped or the machine sleeps, where there is one."""
    return time.clock_gettime(CLOCK)


class Heart(Service):
    """Gives signs of life for a pool, and buries the dead.

    interval and dead_after are in seconds. `on_alive(until)`: the pool may begin jobs until then, by now().
    `on_dead()`: it was declared dead.
    """

    def __init__(
        self,
        database: Database,
        pool_id: str,
        *,
        concurrency: int,
        interval: float,
        dead_after: float,
        on_alive: Callable[[float], None],
        on_dead: Callable[[], None],
    ) -> None:
        super().__init__("heart", database.outage)
        self._database = database
        self._id = pool_id
        self._concurrency = concurrency
        self._interval = interval
        self._dead_after = dead_after
        self._on_alive = on_alive
        self._on_dead = on_dead
        self.leaves_jobs = False  # locked, for others to recover: so it does not leave the living, but dies
        self._registered = False
        self._heard_since = self._heard_at = now()

    def register(self) -> None:
        """Enter the pool among the living, before it claims anything; leave it be where that cannot be."""
        began = now()
        entry = {
            "id": self._id,
            "dead_after": self._dead_after,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "concurrency": self._concurrency,
            "version": __version__,
        }
        try:
            self._database.run("register_pool", entry)
        except (SchemaMissing, NotSupported):
            logger.info("no table of living pools here: jobs of a worker that vanishes are freed after four hours")
            self._on_alive(math.inf)
            return
        self._registered = True
        self._heard(began)

    def step(self) -> float | None:
        """Give a sign of life; after dead_after without a gap in them, judge others."""
        if not self._registered:
            self._database.knock()
            return self._interval
        began = now()
        if not self._database.run("beat", {"id": self._id}):
            logger.error("%s was declared dead after a silence: what it had not begun is given up", self._id)
            self._on_dead()
            self.register()
            return self._interval
        self._heard(began)
        if began - self._heard_since >= self._dead_after:
            for pool_id, jobs in self._database.run("bury_dead_pools"):
                logger.warning("worker pool %s has vanished; jobs taken back from the dead: %s", pool_id, jobs)
        return self._interval

    def on_stop(self) -> None:
        """Leave the living; if that fails, the others will notice. Nobody would recover jobs of one that has left."""
        if self._registered and not self.leaves_jobs:
            try:
                self._database.run("deregister_pool", {"id": self._id})
            except Exception as error:
                logger.warning("%s could not be taken from the list of living pools: %s", self._id, error)

    def _heard(self, began: float) -> None:
        if began - self._heard_at > self._dead_after / 2:
            self._heard_since = began
        self._heard_at = began
        self._on_alive(began + self._dead_after)


class Sweeper(Service):
    """Clears stale locks, of jobs and of queues, whoever held them; `first` is the delay before that in seconds.

    `forget` deletes some of what has expired, and says whether there may be more.

    The schedule is Node's: first within a minute of the start, then every eight to ten minutes, at random, so that a
    fleet that started together does not sweep together.
    """

    def __init__(
        self, database: Database, *, forget: Callable[[], bool] = lambda: False, first: float | None = None
    ) -> None:
        super().__init__("sweeper", database.outage)
        self._database = database
        self._forget = forget
        self._first = random.uniform(0, FIRST_SWEEP) if first is None else first  # noqa: S311 - no secret
        self._begun = False

    def step(self) -> float | None:
        """Sweep, but for the first time wait."""
        if not self._begun:
            self._begun = True
            return self._first
        (cleared,) = self._database.run("clear_stale_locks")[0]
        if cleared:
            logger.warning("freed %s jobs that had been locked for more than four hours", cleared)
        while self._forget() and not self.stopping.is_set():
            self.moved()
        with suppress(SchemaMissing, NotSupported):  # where our own tables could not be made
            self._database.run("sweep_running")
        return random.uniform(*SWEEP_INTERVAL)  # noqa: S311 - no secret
