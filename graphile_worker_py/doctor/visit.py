"""Visit: one look at one database, over a connection of its own, in which no check can do harm or hang.

Each look is a transaction that writes nothing, waits 0.3 seconds for a lock and 2 for its answer. These limits are sent
with it, in a pipeline, and not set on the session, which behind a pooler would be somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import psycopg

from graphile_worker_py._database import Connection, Database, Row
from graphile_worker_py.doctor.findings import Thresholds
from graphile_worker_py.errors import GraphileWorkerError, NotSupported


class Unseen(GraphileWorkerError):
    """Something could not be looked at; the text says why, and after a colon what to do."""


class Visit:
    """What the checks look through; `tasks` are those with handlers, None where nobody said which."""

    def __init__(
        self, database: Database, connection: Connection, *, tasks: frozenset[str] | None, thresholds: Thresholds
    ) -> None:
        self.database = database
        self.connection = connection
        self.tasks = tasks
        self.thresholds = thresholds
        self._kept: dict[str, list[Row] | Exception] = {}

    def look(self, name: str, params: Mapping[str, Any] | None = None, *, off: tuple[str, ...] = ()) -> list[Row]:
        """Run sql/<name>.sql within the limits, and return its rows. Raises Unseen where that cannot be."""
        with self.limited(off):
            return self.database.run_on(self.connection, name, {"schema": self.database.schema, **(params or {})})

    def look_once(self, name: str) -> list[Row]:
        """Do the same, once for several checks: they get the same rows, or the same Unseen."""
        if name not in self._kept:
            try:
                self._kept[name] = self.look(name)
            except Unseen as error:
                self._kept[name] = error
        kept = self._kept[name]
        if isinstance(kept, Exception):
            raise kept
        return kept

    @contextmanager
    def limited(self, off: tuple[str, ...] = ()) -> Iterator[None]:
        """Let the limits hold for what is run on the connection in the block, in one transaction."""
        try:
            with self.connection.pipeline():
                self.database.begin_on(self.connection, "doctor_limits", {"off": list(off)})
                yield
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
            raise Unseen(f"{_first_line(error)}: look again when the server is less busy") from error
        except NotSupported as error:
            raise Unseen(f"{_first_line(error)}: look as the role that workers connect as") from error
        except (psycopg.Error, GraphileWorkerError) as error:
            if self.connection.closed:
                raise
            raise Unseen(f"{_first_line(error)}: see the server's log") from error

    @cached_property
    def settings(self) -> dict[str, str]:
        """Return the server's settings, as sql/doctor_settings.sql names them."""
        return dict(self.look("doctor_settings"))

    @cached_property
    def hidden(self) -> dict[str, str]:
        """Return the tables whose rows row security hides from this role, each with a policy that shows them."""
        return dict(self.look("doctor_row_security"))

    def must_see(self, *tables: str) -> None:
        """Raise Unseen if row security hides one of these tables: it would seem to be empty."""
        if found := [table for table in tables if table in self.hidden]:
            raise Unseen(f"row security hides the rows of {', '.join(found)}: see row-security")


def _first_line(error: BaseException) -> str:
    """Return what PostgreSQL says, also where that was translated, without its detail, which quotes rows."""
    while isinstance(error, NotSupported) and error.__cause__ is not None:
        error = error.__cause__
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or str(error).split("\n", 1)[0] or type(error).__name__
