"""Outage: what the services of one database share about its being away.

They find out one by one, and would all say so, again and again. Here they say it together: that the database is away,
why, when the reason changes or half a minute has passed, and that it is back; never two lines within a second. And who
is answered first wakes the others from their back-off, so that work goes on at once.

Back is what answers over a connection that was opened after the outage began: while the server has no connection left
for some, those that have one go on as ever.
"""

from __future__ import annotations

import logging
import math
import threading
import time

import psycopg
from psycopg_pool import PoolTimeout

logger = logging.getLogger(__name__)

# What psycopg raises, and the classes of SQLSTATE, where the server is away or busy. psycopg's classes alone say too
# little: OperationalError is also a trigger that has changed the row it was called for, or an index entry too long.
PASSING = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
PASSING_STATES = {"08", "25", "40", "53", "55", "57", "58", "XX"}

# Of these the ones where it is away: no connection, none left, shutting down or starting up, only to be read from.
AWAY_STATES = ("08", "53300", "57P", "25006")

REMIND_EVERY = 30.0  # seconds
SHORTEST_SILENCE = 1.0  # seconds between two lines in the log


def is_passing(error: BaseException) -> bool:
    """Say whether trying again may help, for the server is away or busy, rather than unable to do what it was asked."""
    if not isinstance(error, PASSING):
        return False
    state = error.sqlstate  # None where the connection failed
    return state is None or state[:2] in PASSING_STATES


def _is_away(error: BaseException) -> bool:
    if not is_passing(error) or isinstance(error, PoolTimeout):
        return False
    state = getattr(error, "sqlstate", None)
    return state is None or state.startswith(AWAY_STATES)


class Outage:
    """Whether a database is away; safe in threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._since: float | None = None
        self._announced = False
        self._said = ""
        self._said_at = -math.inf
        self.returns = 0  # how often it has come back

    @property
    def lasts(self) -> bool:
        """Return whether the database is away, as far as anybody has noticed."""
        return self._since is not None

    def note(self, who: str, error: BaseException, delay: float) -> None:
        """Take note that `who` could not do its work, and will try again after so many seconds."""
        reason = first_line(error)
        with self._changed:
            now = time.monotonic()
            if _is_away(error):
                self._since = now if self._since is None else self._since
                self._announce(reason, who, now)
            elif now - self._said_at >= SHORTEST_SILENCE:
                self._said_at = now
                logger.warning("%s: %s; trying again in %.1f s", who, reason, delay)

    def _announce(self, reason: str, who: str, now: float) -> None:
        silence = now - self._said_at
        if silence < SHORTEST_SILENCE:
            return
        if not self._announced:
            logger.warning("the database is away (%s: %s); trying again until it is back", who, reason)
        elif reason != self._said or silence >= REMIND_EVERY:
            logger.warning("the database has been away for %.0f s (%s: %s)", now - (self._since or now), who, reason)
        else:
            return
        self._announced, self._said, self._said_at = True, reason, now

    def answered(self, opened_at: float) -> None:
        """Take note that a statement was answered, over a connection opened then, by time.monotonic()."""
        with self._changed:
            if self._since is None or opened_at < self._since:
                return
            if self._announced:
                logger.warning("the database is back after %.1f s", time.monotonic() - self._since)
            self._since, self._announced = None, False
            self.returns += 1
            self._changed.notify_all()

    def pause(self, seconds: float, stopping: threading.Event) -> None:
        """Wait for so long, or until the database is back, or stir() is called after stopping was set."""
        with self._changed:
            returns = self.returns
            self._changed.wait_for(lambda: stopping.is_set() or self.returns != returns, seconds)

    def stir(self) -> None:
        """Let those who pause see whether they are to stop."""
        with self._changed:
            self._changed.notify_all()


def first_line(error: BaseException) -> str:
    """Return what can be said about an error in one line."""
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
