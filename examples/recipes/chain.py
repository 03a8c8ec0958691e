"""An order goes through three steps: each adds the next in the transaction that completes it."""

from __future__ import annotations

import os
from typing import Any

import psycopg

from graphile_worker_py import JobContext, Queue

queue = Queue()

ORDERS = """
create table if not exists orders (
    id integer generated always as identity primary key,
    state text not null default 'new',
    told integer not null default 0
)
"""


def move(payload: dict[str, Any], ctx: JobContext, *, state: str, then: str) -> None:
    """Put an order into a state and add the next step; both are there, or neither."""
    key = f"order:{payload['order']}"  # to see where an order is: queue.jobs(job_key=...)
    with ctx.transaction() as connection:
        connection.execute("update orders set state = %s where id = %s", [state, payload["order"]])
        ctx.add_job(then, {"order": payload["order"]}, job_key=key, connection=connection)


@queue.task
def pay(payload: dict[str, Any], ctx: JobContext) -> None:
    """The first step."""
    move(payload, ctx, state="paid", then="pack")


@queue.task
def pack(payload: dict[str, Any], ctx: JobContext) -> None:
    """The second step."""
    move(payload, ctx, state="packed", then="tell")


@queue.task
def tell(payload: dict[str, Any], ctx: JobContext) -> None:
    """The last step adds nothing."""
    with ctx.transaction() as connection:
        connection.execute("update orders set told = told + 1 where id = %s", [payload["order"]])


def main() -> None:
    """Send an order through all steps."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(ORDERS)
        (order,) = connection.execute("insert into orders default values returning id").fetchone()
        pay.add_job({"order": order}, job_key=f"order:{order}", connection=connection)
    print(queue.run_once())
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        print(connection.execute("select state, told from orders where id = %s", [order]).fetchone())


if __name__ == "__main__":
    main()
