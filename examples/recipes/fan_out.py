"""A text is counted in parts, in parallel; whoever counts the last part adds the job that adds them up."""

from __future__ import annotations

import os
from typing import Any

import psycopg

from graphile_worker_py import JobContext, JobSpec, Queue

queue = Queue()

COUNTS = """
create table if not exists counts (
    id integer generated always as identity primary key, missing integer not null, words integer not null default 0
)
"""
TEXT = ["the quick brown fox", "jumps over", "the lazy dog"]


@queue.task
def split(payload: dict[str, Any], ctx: JobContext) -> None:
    """Make the row that counts down, and a job for each part; none is seen before all are there."""
    with ctx.transaction() as connection:
        insert = "insert into counts (missing) values (%s) returning id"
        (id,) = connection.execute(insert, [len(payload["lines"])]).fetchone()
        parts = [JobSpec("count", {"id": id, "line": line}) for line in payload["lines"]]
        ctx.add_jobs(parts or [JobSpec("tell", {"id": id})], connection=connection)


@queue.task
def count(payload: dict[str, Any], ctx: JobContext) -> None:
    """Count the words of a part, add them to the row, and see whether it was the last one."""
    words = len(payload["line"].split())
    with ctx.transaction() as connection:
        update = "update counts set missing = missing - 1, words = words + %s where id = %s returning missing"
        (missing,) = connection.execute(update, [words, payload["id"]]).fetchone()
        if missing == 0:
            ctx.add_job("tell", {"id": payload["id"]}, connection=connection)


@queue.task
def tell(payload: dict[str, Any]) -> None:
    """Print the sum, once all parts are in it."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        (words,) = connection.execute("select words from counts where id = %s", [payload["id"]]).fetchone()
    print(words, "words")


def main() -> None:
    """Count a text."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(COUNTS)
        split.add_job({"lines": TEXT}, connection=connection)
    print(queue.run_once(concurrency=4))


if __name__ == "__main__":
    main()
