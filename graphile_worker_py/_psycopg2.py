"""Psycopg2Connection: a caller's connection of the older driver, by the names that psycopg's have for the same things.

psycopg2 writes parameters into the text and reads results from text, both as the program has registered it, perhaps in
ways of its own. So parameters are handed to it as the text that psycopg would send, for which each statement names the
type, and results are taken as they come and read by psycopg: a Job is the same, whoever carried it. psycopg2 is never
imported; who passes one of its connections has done that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format, TransactionStatus

from graphile_worker_py._statements import statement_of_psycopg2
from graphile_worker_py.errors import InvalidJobSpec

# Begin, end, undo: a transaction where none is open and none begins by itself, else a savepoint.
_TRANSACTION = ("begin", "commit", "rollback")
_SAVEPOINT = (
    "savepoint graphile_worker_py",
    "release savepoint graphile_worker_py",
    "rollback to savepoint graphile_worker_py; release savepoint graphile_worker_py",
)

_READ_HERE = ("bool", "int2", "int4", "int8", "float8", "text", "json", "jsonb", "timestamptz")
_TIME = re.compile(r"(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)(?:\.(\d+))?([+-])(\d+)(?::(\d+))?(?::(\d+))?( BC)?")
_ENDS_OF_TIME = {"infinity": 2**63 - 1, "-infinity": -(2**63)}
_FOUR_CENTURIES = 146_097  # days, in every calendar that repeats itself after them


class Psycopg2Connection:
    """An open psycopg2 connection; its transaction is the caller's, as is when it ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Psycopg2Connection) and self._connection is other._connection

    def __hash__(self) -> int:
        return hash(self._connection)

    @property
    def autocommit(self) -> bool:
        """Say whether each statement is a transaction."""
        return bool(self._connection.autocommit)

    @property
    def closed(self) -> bool:
        """Say whether the connection is closed, or lost."""
        return bool(self._connection.closed)

    @property
    def info(self) -> Psycopg2Connection:
        """Return what knows the transaction_status."""
        return self

    @property
    def transaction_status(self) -> TransactionStatus:
        """Return how the transaction is."""
        return TransactionStatus(self._connection.get_transaction_status())

    def rollback(self) -> None:
        """End the transaction, undone."""
        self._connection.rollback()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def cursor(self) -> Any:
        """Return a cursor, for handlers whose transaction this is."""
        return self._connection.cursor()

    def execute(self, text: str, params: Any = None) -> Any:
        """Run a statement, in psycopg2's ways, and return the cursor."""
        cursor = self.cursor()
        cursor.execute(text, params)
        return cursor

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Do without: each statement waits for its answer."""
        yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Undo what the block did if it fails, and no more than that; psycopg.Rollback does so without an error."""
        alone = self.autocommit and self.transaction_status == TransactionStatus.IDLE
        begin, end, undo = _TRANSACTION if alone else _SAVEPOINT
        self._run(begin)
        try:
            yield
        except BaseException as error:
            with suppress(Exception):  # a broken connection has nothing to undo
                self._run(undo)
            if isinstance(error, psycopg.Rollback):
                return
            raise
        self._run(end)

    def rows(self, name: str, schema: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run sql/<name>.sql, and return its rows as psycopg would, but times as they are counted."""
        text, values = statement_of_psycopg2(name, schema), {key: _as_text(value) for key, value in params.items()}
        with self._plain_cursor() as cursor:
            cursor.execute(text, values)
            if cursor.description is None:
                return []
            read = [_reader(column.type_code) for column in cursor.description]
            return [
                tuple(None if text is None else read[place](text) for place, text in enumerate(row))
                for row in cursor.fetchall()
            ]

    def _run(self, text: str) -> None:
        with self._plain_cursor() as cursor:
            cursor.execute(text)

    def _plain_cursor(self) -> Any:
        """Return a cursor that is none of the program's own kind, and leaves the results as they come."""
        extensions = sys.modules["psycopg2.extensions"]
        cursor = self._connection.cursor(cursor_factory=extensions.cursor)
        extensions.register_type(_unread(extensions), cursor)
        return cursor


def of_psycopg2(given: object) -> Psycopg2Connection | None:
    """Return a psycopg2 connection, or that of a cursor, for use here; None for all else. Raises InvalidJobSpec."""
    extensions: Any = sys.modules.get("psycopg2.extensions")
    if extensions is None:
        return None
    connection = getattr(given, "connection", None) if isinstance(given, extensions.cursor) else given
    if not isinstance(connection, extensions.connection):
        return None
    _check(connection)
    return Psycopg2Connection(connection)


def _check(connection: Any) -> None:
    """Refuse a connection that cannot be used, or whose texts and times could not be read."""
    if connection.closed:
        raise InvalidJobSpec("connection: this one is closed; pass an open connection, or none")
    if connection.async_:
        raise InvalidJobSpec("connection: an asynchronous one cannot be used from synchronous code")
    encoding = re.sub(r"\W|_", "", connection.get_parameter_status("client_encoding") or "").upper()
    if encoding == "SQLASCII":
        raise InvalidJobSpec("connection: its client_encoding is SQL_ASCII, which is none; set client_encoding to utf8")
    if encoding != re.sub(r"\W|_", "", connection.encoding).upper():
        raise InvalidJobSpec("connection: psycopg2 does not know its client_encoding; set it by set_client_encoding()")
    style = connection.get_parameter_status("DateStyle") or "ISO"
    if not style.startswith("ISO"):
        raise InvalidJobSpec(f"connection: psycopg2 reads no times in its DateStyle, {style}; set datestyle to iso")


@lru_cache(maxsize=1)
def _unread(extensions: Any) -> Any:
    """Return the type for psycopg2 that reads nothing."""
    types = [psycopg.adapters.types[name] for name in _READ_HERE]
    oids = (*(one.oid for one in types), *(one.array_oid for one in types))
    return extensions.new_type(oids, "GRAPHILE_WORKER_PY_UNREAD", lambda text, cursor: text)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    dumped = Transformer().get_dumper(value, PyFormat.TEXT).dump(value)
    return None if dumped is None else bytes(dumped).decode()


def _reader(oid: int) -> Callable[[str], Any]:
    """Return what reads the text of a value of that type."""
    if oid == psycopg.adapters.types["timestamptz"].oid:
        return microseconds
    kind = psycopg.adapters.get_loader(oid, Format.TEXT)
    if kind is None:
        return str
    loader = kind(oid)
    return lambda text: loader.load(text.encode())


def microseconds(text: str) -> int:
    """Return a time in PostgreSQL's ISO style as PostgreSQL counts it, from the year 2000, whatever its year."""
    if text in _ENDS_OF_TIME:
        return _ENDS_OF_TIME[text]
    found = _TIME.fullmatch(text)
    if found is None:
        raise InvalidJobSpec(f"connection: what kind of time is {text:.40}? set datestyle to iso")
    year, month, day, hours, minutes, seconds = map(int, found.group(1, 2, 3, 4, 5, 6))
    cycles, year_of_cycle = divmod(1 - year if found[12] else year, 400)
    days = (date(2000 + year_of_cycle, month, day) - date(2000, 1, 1)).days + (cycles - 5) * _FOUR_CENTURIES
    east = sum(int(part or 0) * unit for part, unit in zip(found.group(9, 10, 11), (3600, 60, 1), strict=True))
    whole = days * 86_400 + hours * 3600 + minutes * 60 + seconds - (east if found[8] == "+" else -east)
    return whole * 1_000_000 + int((found[7] or "").ljust(6, "0"))
