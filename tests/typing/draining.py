"""Tests of jobs as typed users write them, with the plugin's fixtures; checked by mypy --strict, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import TypedDict

from typing_extensions import assert_type

from graphile_worker_py import Job, JobFailed, Queue
from graphile_worker_py.testing import (
    AssertEnqueued,
    Drain,
    Drained,
    Enqueued,
    assert_enqueued,
    drain,
    enqueued,
    placed,
)

queue = Queue()


class Mail(TypedDict):
    """What a mail is about."""

    to: str


@queue.task
def send(payload: Mail) -> None:
    """Take the payload only."""


def with_fixtures(
    graphile_worker: Queue, drain: Drain, enqueued: Enqueued, assert_enqueued: AssertEnqueued, connection: object
) -> None:
    """Ask for all of them."""
    assert_type(drain(), Drained)
    done = drain(within=timedelta(hours=1), raise_errors=False, at_most=5, connection=connection)
    assert_type(done.tasks, list[str])
    assert_type(done.failed, tuple[JobFailed, ...])
    assert_type(enqueued(send, {"to": "ann"}, subject="Hi"), list[Job])
    assert_type(assert_enqueued("send", to="ann"), Job)
    drain(5)  # type: ignore[call-arg]
    enqueued(task="send")  # type: ignore[call-arg]
    enqueued(None)  # type: ignore[arg-type]


def without_pytest() -> None:
    """Do the same by hand."""
    with placed(queue, "postgresql:///app"):
        assert_type(drain(queue).ran, tuple[Job, ...])
        assert_type(enqueued(queue, send), list[Job])
        assert_type(assert_enqueued(queue, send, to="ann"), Job)
