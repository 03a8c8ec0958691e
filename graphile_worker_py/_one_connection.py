"""OneConnection: a Database that is one connection, the caller's; whatever is run becomes part of its transaction.

It takes the place of a queue's Database while a test has the queue in a transaction of its own. It is a subclass,
because everything that runs statements takes a Database, and only where they run is different.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import psycopg
from psycopg.pq import TransactionStatus

from graphile_worker_py._database import Database, all_or_nothing
from graphile_worker_py._own_connection import AnyConnection, lasting, own_connection
from graphile_worker_py.errors import NotSupported


class OneConnection(Database):
    """Run every statement on `given`, what connection= takes anywhere; it is never committed or closed.

    Each is in a savepoint, so that one that fails leaves the transaction usable. Where no transaction is open and the
    connection is in autocommit, each is a transaction.
    """

    def __init__(self, given: object, *, schema: str) -> None:
        super().__init__(None, schema=schema, listen=False)
        self._given = lasting(given)  # Flask-SQLAlchemy's has one for each context, and a handler has its own
        with own_connection(given):  # or raise now
            pass

    @contextmanager
    def connection(self, given: object = None) -> Iterator[AnyConnection]:
        """Lend the one connection, in a savepoint; another one that is given is left as it is, as ever."""
        if given is not None:
            with own_connection(given) as connection:
                yield connection
            return
        with own_connection(self._given) as connection, all_or_nothing(connection):
            yield connection

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Take a transaction that the block leaves in error back to where the block began."""
        with own_connection(self._given) as connection, connection.transaction() as transaction:
            yield
            if connection.info.transaction_status == TransactionStatus.INERROR:
                raise psycopg.Rollback(transaction)

    def is_on(self, connection: AnyConnection) -> bool:
        """Say whether this is the one connection."""
        with own_connection(self._given) as own:
            return own == connection

    def another(self, *, max_size: int) -> NoReturn:
        """Refuse, as connect() and pool() do."""
        self._refuse()

    def connect(self) -> NoReturn:
        """Refuse: what is on another connection does not see this transaction."""
        self._refuse()

    def pool(self) -> NoReturn:
        """Refuse, as connect() does."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotSupported(
            "this queue is on the one connection of a test, inside its transaction: a worker pool, a migration and "
            "whatever else needs a connection of its own cannot be had there; call drain() to run jobs"
        )
