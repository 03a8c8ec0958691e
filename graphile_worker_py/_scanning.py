"""Looking through all jobs in pieces, by ranges of their ids, for what no index finds.

The shared table has few indexes, for every job pays for each. What has none is looked for in the order of the ids,
range after range, each as wide as can be read in a moment, so that the search can end at a deadline and say how far it
came. Ids may have wide gaps, where the ranges grow quickly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from graphile_worker_py._database import Database, Row
from graphile_worker_py._own_connection import AnyConnection
from graphile_worker_py.checks import LARGEST_ID

FIRST_PIECE = 5_000  # ids
QUICK, SLOW = 0.05, 0.2  # seconds that a piece should take
QUERY_CANCELED = "57014"


def look_through(
    database: Database,
    statement: str,
    params: Mapping[str, Any],
    *,
    take: Callable[[list[Row]], bool],
    after: int = 0,
    patience: float | None = None,
    at_once: bool = False,
) -> int | None:
    """Run a statement on ranges of the ids after `after`, giving `take` its rows, until that returns true.

    `patience` is in seconds, None for ever; `at_once`: an index finds what is looked for, so there is one range.
    Returns the id up to which jobs were looked at where patience ended, None where it did not.
    """
    deadline = math.inf if patience is None else time.monotonic() + patience
    search = _Search(database, statement, params, deadline=deadline)
    search.reached = after
    search.size = LARGEST_ID if at_once else FIRST_PIECE
    with database.connection() as connection, connection.transaction():
        search.run(connection, take)
    return search.reached if search.gave_up else None


class _Search:
    """A search that is under way: up to which id it came, how many are next, and whether it gave up."""

    def __init__(self, database: Database, statement: str, params: Mapping[str, Any], *, deadline: float) -> None:
        self._database = database
        self._statement = statement
        self._params = params
        self._deadline = deadline
        self.reached = 0
        self.size = FIRST_PIECE
        self.gave_up = False

    def run(self, connection: AnyConnection, take: Callable[[list[Row]], bool]) -> None:
        """Look at one range after the other, until there are no more, `take` has enough, or it is late.

        Then roll back: nothing was written, and the limit on statements may not outlast this in an outer transaction.
        """
        try:
            self._look(connection, take)
        except Exception as error:
            if self._deadline == math.inf or _sqlstate(error) != QUERY_CANCELED:
                raise
            self.gave_up = True
        raise psycopg.Rollback

    def _look(self, connection: AnyConnection, take: Callable[[list[Row]], bool]) -> None:
        ((first, last),) = self._limited(connection, "job_ids", {"after": self.reached})
        self.reached = self.reached if first is None else first - 1
        while last is not None and self.reached < last:
            began = time.monotonic()
            piece = {"after": self.reached, "until": min(self.reached + self.size, last)}
            rows = self._limited(connection, self._statement, {**self._params, **piece})
            self.reached = piece["until"]
            if take(rows):
                return
            self._resize(time.monotonic() - began)

    def _limited(self, connection: AnyConnection, statement: str, params: Mapping[str, Any]) -> list[Row]:
        """Run a statement for no longer than there is time, a millisecond at least."""
        left = self._deadline - time.monotonic()
        milliseconds = None if left == math.inf else str(max(1, math.ceil(left * 1000)))
        self._database.run_on(connection, "limit_statement", {"milliseconds": milliseconds})
        return self._database.run_on(connection, statement, params)

    def _resize(self, seconds: float) -> None:
        if seconds < QUICK:
            self.size *= 4
        elif seconds > SLOW:
            self.size = max(self.size // 2, 1)


def _sqlstate(error: Exception) -> str | None:
    """Return PostgreSQL's code for an error of either driver."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
