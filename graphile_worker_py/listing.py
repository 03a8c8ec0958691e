"""Listing: the jobs of a queue by pages, as `Queue.jobs` offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from graphile_worker_py._database import Database
from graphile_worker_py.checks import LARGEST_ID, check_integer, check_text
from graphile_worker_py.errors import InvalidJobSpec
from graphile_worker_py.jobs import JobInfo, JobState, Page


def page_of(
    database: Database, texts: Mapping[str, str | None], *, state: JobState | None, limit: int, after: int
) -> Page:
    """Return up to `limit` jobs in the order of their ids, after that id; `texts`: task, queue_name and job_key."""
    if state is not None and state not in get_args(JobState):
        raise InvalidJobSpec(f"state: expected ready, scheduled, running, retrying or failed, got {state!r}")
    check_integer("limit", limit, lowest=1, highest=10_000)
    check_integer("after", after, lowest=0, highest=LARGEST_ID)
    for name, text in texts.items():
        if text is not None:
            check_text(name, text, longest=512)
    rows = database.run("list_jobs", {"state": state, "after": after, "limit": limit + 1, **texts})
    items = [JobInfo(*row) for row in rows[:limit]]
    return Page(items, items[-1].id if len(rows) > limit else None)
