"""AwaitedConnection: psycopg's asynchronous connection, as SQLAlchemy lends it to synchronous code.

Within `await session.run_sync(...)` SQLAlchemy lets a call wait for a coroutine as if it were a function: the call is
left, and gone on with when the answer is there. So a job can be added in the transaction of an AsyncSession.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryLoader

from graphile_worker_py._statements import statement


class AwaitedConnection:
    """An open asynchronous connection, by the names that a synchronous one has.

    `run`: calls a function with the connection, and waits for the coroutine that it returns.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        run: Callable[[Callable[[psycopg.AsyncConnection[Any]], Coroutine[Any, Any, Any]]], Any],
    ) -> None:
        self._connection = connection
        self._run = run
        self.info = connection.info

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AwaitedConnection) and self._connection is other._connection

    def __hash__(self) -> int:
        return hash(self._connection)

    @property
    def autocommit(self) -> bool:
        """Say whether each statement is a transaction."""
        return self._connection.autocommit

    @property
    def closed(self) -> bool:
        """Say whether the connection is closed, or lost."""
        return self._connection.closed

    def rollback(self) -> None:
        """End the transaction, undone."""
        self._run(lambda connection: connection.rollback())

    def close(self) -> None:
        """Close the connection."""
        self._run(lambda connection: connection.close())

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Do without: each statement waits for its answer."""
        yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Undo what the block did if it fails, and no more than that; psycopg.Rollback does so without an error."""
        if not self.autocommit and self.info.transaction_status == TransactionStatus.IDLE:
            self._run(lambda connection: connection.execute("select 1"))  # begins the one that is the caller's
        block = self._connection.transaction()
        self._run(lambda connection: block.__aenter__())
        try:
            yield
        except BaseException as error:
            raised = type(error), error, error.__traceback__
            if not self._run(lambda connection: block.__aexit__(*raised)):
                raise
        else:
            self._run(lambda connection: block.__aexit__(None, None, None))

    def rows(self, name: str, schema: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run sql/<name>.sql, and return its rows, times as they are counted."""
        cursor = psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row)
        cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
        text, names = statement(name, schema)
        values = [params[name] for name in names]
        self._run(lambda connection: cursor.execute(text, values, binary=True))
        found: list[tuple[Any, ...]] = self._run(lambda connection: cursor.fetchall()) if cursor.description else []
        return found
