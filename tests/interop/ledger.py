"""Node's ledger of migrations as tests read and rewrite it."""

from __future__ import annotations

from typing import Any

import psycopg

BREAKING = {1, 3, 11, 13, 14, 16, 19}
LATEST = {"0.16.6": 18, "0.17.3": 19, "0.18.0": 20}  # what each version of Node's worker brings a schema to


def rows(conninfo: str) -> list[tuple[int, bool]]:
    """Return the numbers and whether each is breaking, in order."""
    with psycopg.connect(conninfo) as connection:
        return connection.execute("select id, breaking from graphile_worker.migrations order by id").fetchall()


def rows_with_times(conninfo: str) -> list[tuple[Any, ...]]:
    """Return all that the ledger holds: equal only if nobody touched it."""
    with psycopg.connect(conninfo) as connection:
        return connection.execute("select id, breaking, ts from graphile_worker.migrations order by id").fetchall()


def rewrite(conninfo: str, *statements: str) -> None:
    """Run statements, in which `migrations` is the ledger."""
    with psycopg.connect(conninfo, autocommit=True, options="-c search_path=graphile_worker") as connection:
        for statement in statements:
            connection.execute(statement)


def as_written(last: int) -> list[tuple[int, bool]]:
    """Return the rows 1 to `last` as Node's worker writes them, and ours."""
    return [(number, number in BREAKING) for number in range(1, last + 1)]
