"""Money is moved by jobs that fail after they have written, and by orders that are taken back: the sum stays.

python examples/transactions.py    on the database of DATABASE_URL, in the schema graphile_worker_examples
"""

from __future__ import annotations

import os
from typing import Any

import psycopg

from graphile_worker_py import Backoff, JobContext, Queue

queue = Queue(schema="graphile_worker_examples", retry=Backoff(base=0, jitter=0))
TABLE = """
drop table if exists graphile_worker_examples.accounts;
create table graphile_worker_examples.accounts (name text primary key, balance integer not null);
insert into graphile_worker_examples.accounts values ('ann', 100), ('bob', 0);
"""
MOVE = "update graphile_worker_examples.accounts set balance = balance + %s where name = %s"


@queue.task
def move(payload: dict[str, Any], ctx: JobContext) -> None:
    """Move money in the transaction that completes the job; fail in the middle of every third job's first attempt."""
    with ctx.transaction() as connection:
        connection.execute(MOVE, [-payload["sum"], payload["from"]])
        if payload["number"] % 3 == 0 and ctx.job.attempts == 1:
            raise ConnectionError("the line is down")
        connection.execute(MOVE, [payload["sum"], payload["to"]])
        ctx.add_job("receipt", payload, connection=connection)


receipts: list[int] = []


@queue.task
def receipt(payload: dict[str, Any]) -> None:
    """Write a receipt for what was moved."""
    receipts.append(payload["number"])


def order(connection: psycopg.Connection[Any], number: int) -> None:
    """Order that money is moved, in the transaction of the caller."""
    move.add_job({"number": number, "from": "ann", "to": "bob", "sum": 1}, connection=connection)


def main() -> None:
    """Order 40 times, take a quarter of it back, and look what came of it."""
    queue.migrate()
    with psycopg.connect(os.environ.get("DATABASE_URL", "")) as connection:
        connection.execute(TABLE)
        connection.commit()
        for number in range(40):
            order(connection, number)
            if number % 4 == 3:
                connection.rollback()
            else:
                connection.commit()
        done = queue.run_once()
        print(f"{done.completed} jobs done, {done.retrying} failures on the way")
        rows = connection.execute("select name, balance from graphile_worker_examples.accounts order by name")
        print(", ".join(f"{name}: {balance}" for name, balance in rows), f"and {len(set(receipts))} receipts")
    queue.close()


if __name__ == "__main__":
    main()
