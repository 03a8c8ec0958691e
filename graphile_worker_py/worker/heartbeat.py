"""Recovery of jobs whose worker did not stay alive: for now Node's rule, locks older than four hours are cleared.

The schedule is Node's too: first within a minute of the start, then every eight to ten minutes, at random, so that a
fleet that started together does not sweep together.
"""

from __future__ import annotations

import logging
import random

from graphile_worker_py._database import Database
from graphile_worker_py._service import Service

logger = logging.getLogger(__name__)

FIRST_SWEEP = 60.0
SWEEP_INTERVAL = (480.0, 600.0)


class Sweeper(Service):
    """Clears stale locks, of jobs and of queues, whoever held them; `first` is the delay before that in seconds."""

    def __init__(self, database: Database, *, first: float | None = None) -> None:
        super().__init__("sweeper")
        self._database = database
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
        return random.uniform(*SWEEP_INTERVAL)  # noqa: S311 - no secret
