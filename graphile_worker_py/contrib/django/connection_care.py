"""Django's connections in threads that run handlers: looked after around each job, as Django does around a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import close_old_connections, reset_queries

from graphile_worker_py.tasks import Around


def cared_for(around: Around | None) -> Around:
    """Return what is to be entered around each job: this care, and in it what was asked for besides."""

    @contextmanager
    def cared(context: Any) -> Iterator[None]:
        inner: AbstractContextManager[object] = nullcontext() if around is None else around(context)
        with fresh_connections(), inner:
            yield

    return cared


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Close what this thread has of connections that are broken, or older than CONN_MAX_AGE, before and after."""
    reset_queries()
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
