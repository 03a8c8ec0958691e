"""A newsletter with a sign-up: who signs up is welcomed, and asked a week later how it is.

The row and the job that follows from it are one transaction, and so are a letter and the end of its job. test_app.py
has the tests.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from graphile_worker_py import JobContext, Queue

queue = Queue()  # the database of DATABASE_URL

TABLES = """
create table readers (address text primary key, gone boolean not null default false);
create table letters (reader text not null references readers, text text not null);
"""


def sign_up(connection: Any, address: str) -> None:
    """Write down a reader in the caller's transaction, and what follows from it."""
    connection.execute("insert into readers (address) values (%s)", [address])
    welcome.add_job({"reader": address}, connection=connection)


@queue.task
def welcome(payload: dict[str, str], ctx: JobContext) -> None:
    """Write a letter, and have another one written in a week; all of it is there with the end of this job."""
    with ctx.transaction() as connection:
        connection.execute("insert into letters values (%s, 'Welcome!')", [payload["reader"]])
        ask.add_job(payload, run_at=timedelta(weeks=1), connection=connection)


@queue.task(max_attempts=3)
def ask(payload: dict[str, str], ctx: JobContext) -> None:
    """Ask a reader how it is; who is gone is nobody to write to."""
    with ctx.transaction() as connection:
        query = "insert into letters select address, 'How is it?' from readers where address = %s and not gone"
        if not connection.execute(query, [payload["reader"]]).rowcount:
            raise LookupError("this reader is gone")
