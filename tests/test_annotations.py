"""Which annotations change a payload, where they are found, and which are refused when a worker starts."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from shapes import (
    Charge,
    Line,
    Mail,
    handler_of,
    read,
)

from graphile_worker_py import (
    InvalidHandler,
    InvalidPayload,
    Queue,
    RunSummary,
    WorkerPool,
)

if TYPE_CHECKING:
    from fractions import Fraction


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        dict,
        list,
        dict[str, Any],
        list[dict[str, int]],
        Mapping[str, object],
        str | int | None,
        "dict[str, Any]",
    ],
)
def test_what_json_has_itself_arrives_untouched(annotation: Any) -> None:
    payload = {"any": ["thing"]}
    assert read(annotation, payload) is payload


@pytest.mark.parametrize(
    "annotation", [timedelta, complex, list[complex], object(), Line | Charge, "Fraction", "Nobody"]
)
def test_what_cannot_be_made_is_refused_when_a_worker_starts(queue: Queue, annotation: Any) -> None:
    task = queue.task("work")(handler_of(annotation))
    with pytest.raises(InvalidHandler, match=r"^the payload of handler_of.<locals>.handler: "):
        queue.run_once()
    with pytest.raises(InvalidHandler, match=r"cannot be made of JSON|means nothing at run time"):
        WorkerPool(queue).start()
    task.add_job({})  # which needs no handler


def test_what_only_type_checkers_know_may_annotate_the_context(queue: Queue) -> None:
    seen: list[Mail] = []

    @queue.task
    def work(payload: Mail, ctx: Fraction) -> None:
        seen.append(payload)

    work.add_job({"to": "a"})
    queue.run_once()
    assert seen == [{"to": "a"}]


@contextmanager
def around() -> Iterator[None]:
    """Be a decorator whose wrapper sees the names of contextlib, and not those of this module."""
    yield


def of_a_line(payload: Line) -> None:
    assert type(payload) is Line


class Callable1:
    def __call__(self, payload: Line) -> None:
        of_a_line(payload)

    def method(self, payload: Line) -> None:
        of_a_line(payload)


def second(first: int, payload: Line) -> None:
    of_a_line(payload)


@pytest.mark.parametrize(
    "handler",
    [
        of_a_line,
        around()(of_a_line),
        Callable1(),
        Callable1().method,
        functools.partial(second, 1),
        around()(around()(of_a_line)),
    ],
)
def test_the_annotation_is_found_behind_decorators_and_methods(queue: Queue, handler: Callable[[Any], None]) -> None:
    queue.task("work")(handler)
    queue.add_job("work", Line(Decimal(1), 1))
    assert queue.run_once() == RunSummary(completed=1, retrying=0, failed=0)


def test_a_task_of_a_worker_that_runs_already_is_prepared_by_its_first_job(
    queue: Queue, pools: Callable[..., WorkerPool], expected: Callable[[int], Any]
) -> None:
    seen: list[Any] = []
    queue.task("other")(lambda payload: None)
    with expected(1):
        pools(1)
        queue.task("late")(handler_of(Line, seen)).add_job(Line(Decimal(1), 1))
    assert seen == [Line(Decimal(1), 1)]


def test_an_invalid_payload_can_be_pickled_and_is_a_value_error() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(InvalidPayload(["payload.a: is missing"])))  # noqa: S301 - our own
    assert isinstance(error, ValueError)
    assert (str(error), error.problems) == ("payload.a: is missing", ("payload.a: is missing",))


def test_pydantic_and_cattrs_are_imported_only_where_they_are_needed() -> None:
    code = (
        "import sys; from graphile_worker_py import Queue; from typing import TypedDict\n"
        "Mail = TypedDict('Mail', {'to': str})\n"
        "def send(payload: Mail): ...\n"
        "Queue('').task(send)\n"
        "assert not {'cattrs', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
