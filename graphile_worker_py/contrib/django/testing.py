"""For tests of a Django project: run the jobs that are due, in the test's thread and on Django's connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connections, transaction

from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.app_queue import queue
from graphile_worker_py.tasks import Around
from graphile_worker_py.testing import Drained, drain


def run_jobs(*, within: timedelta = timedelta(0), raise_errors: bool = True, at_most: int = 1000) -> Drained:
    """Run the jobs that are due, and those that become due by it; the arguments and the answer are those of drain().

    In a TestCase all of it is in the test's transaction: nothing is committed, and a handler that breaks a query is
    taken back to where it began, which in a worker, outside of any transaction, it is not. In a TransactionTestCase
    everything is committed, and stays: see forget_jobs().
    """
    __tracebackhide__ = True
    alias = conf.options().alias
    connection = connections[alias]
    limits: dict[str, Any] = {"within": within, "raise_errors": raise_errors, "at_most": at_most}
    before = queue.around
    queue.around = _healing(alias, before)
    try:
        return drain(queue, connection=connection if connection.in_atomic_block else None, **limits)
    finally:
        queue.around = before


def forget_jobs() -> None:
    """Delete all jobs: for the tearDown of a TransactionTestCase, which empties only the tables that are Django's."""
    queue.database.run("delete_all_jobs")


def _healing(alias: str, around: Around | None) -> Around:
    """Return a manager that leaves the transaction of a test usable, whatever a handler has made of it."""

    @contextmanager
    def healing(context: Any) -> Iterator[None]:
        inner: AbstractContextManager[object] = nullcontext() if around is None else around(context)
        if not connections[alias].in_atomic_block:
            with inner:
                yield
            return
        error: BaseException | None = None
        with suppress(DatabaseError), _savepoint(alias):  # suppressed: what a bare cursor broke, unknown to Django
            try:
                with inner:
                    yield
            except BaseException as raised:  # or it would undo what was written before
                error = raised
        if error is not None:
            raise error

    return healing


def _savepoint(alias: str) -> Any:
    """Return an atomic block in that of the test, which counts for no more than that: durable ones may be in it."""
    block = transaction.atomic(using=alias)
    block._from_testcase = connections[alias].atomic_blocks[-1]._from_testcase
    return block
