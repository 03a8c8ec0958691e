"""An import that shows how far it is, is traced call by call, and logs with its job's id.

python examples/context.py    on the database of DATABASE_URL, in the schema graphile_worker_examples
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graphile_worker_py import JobContext, JobLogFilter, Queue, WorkerPool


@contextmanager
def traced(ctx: JobContext) -> Iterator[None]:
    """Tell of each call of a handler, as a tracing library would be told."""
    print(f"span {ctx.job.task_identifier} begins")
    try:
        yield
    finally:
        print(f"span {ctx.job.task_identifier} ends")


queue = Queue(schema="graphile_worker_examples", around=traced)
logger = logging.getLogger("shop.articles")  # knows nothing of jobs


def store(line: str) -> None:
    """Stand for the part of a program that is called by handlers and by others."""
    if not line:
        logger.warning("an empty line")
    time.sleep(0.03)


@queue.task
def import_articles(payload: dict[str, list[str]], ctx: JobContext) -> None:
    """Store line by line, and tell how many are done."""
    lines = payload["lines"]
    for number, line in enumerate(lines, start=1):
        store(line)
        ctx.progress(number, len(lines), "articles")


def main() -> None:
    """Import a hundred lines, one of them empty, and look on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(JobLogFilter())
    handler.setFormatter(logging.Formatter("%(levelname)s in %(task_identifier)s, attempt %(attempts)s: %(message)s"))
    logger.addHandler(handler)
    queue.migrate()
    seen = []
    with WorkerPool(queue, concurrency=1):
        lines = [f"article {number}" if number else "" for number in range(100)]
        job = queue.add_job("import_articles", {"lines": lines})
        while queue.job(job.id) is not None:
            if (told := queue.progress(job.id)) and told.done not in seen:
                seen.append(told.done)
            time.sleep(0.05)
    print(f"seen on the way: {len(seen) >= 2}, in order: {seen == sorted(seen)}")
    queue.close()


if __name__ == "__main__":
    main()
