"""A payload arrives as what its handler's annotation names, and what does not fit fails for good, path by path."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Sequence
from datetime import time, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Optional

import attrs
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import (
    FULL,
    NOON,
    ORDER,
    SECRET,
    Basket,
    Charge,
    Color,
    Letter,
    Level,
    Line,
    Mail,
    Order,
    Tree,
    UserId,
    handler_of,
    problems,
    read,
)

from graphile_worker_py import (
    InvalidPayload,
    JobContext,
    JobFailed,
    Queue,
    RunSummary,
)
from graphile_worker_py._payload import encode

if TYPE_CHECKING:
    pass

GIVEN: list[tuple[Any, Any]] = [
    (Order, ORDER),
    (Order, attrs.evolve(FULL, day=NOON.date(), hour=time(4, 30))),
    (list[Order], [ORDER, FULL]),
    (Optional[Order], ORDER),  # noqa: UP045
    (Tree, Tree(1, Tree(2, Tree(3)))),
    (Mail, {"to": "a", "copies": 2}),
    (Letter, {"to": "a", "stamp": 3}),
    (list[Mail], [{"to": "a"}, {"to": "b"}]),
    (Charge, Charge(order=1, at=NOON, kind="cash", key=uuid.UUID(int=1))),
    (list[Charge], [Charge(order=1), Charge(order=2)]),
    (Basket, Basket(Charge(order=1), [Charge(order=2, at=NOON)])),
    (Line | Tree, Tree(5)),
    (Line | Tree, Line(Decimal(5), 1)),
    (Annotated[Line, "a line"], Line(Decimal(5), 1)),
    (UserId, 5),
    (Sequence[uuid.UUID], [uuid.UUID(int=1)]),
    (dict[str, Color], {"a": Color.RED}),
]


@pytest.mark.parametrize(("annotation", "payload"), GIVEN, ids=[str(one) for one, _ in GIVEN])
def test_what_is_added_is_what_arrives(queue: Queue, annotation: Any, payload: Any) -> None:
    seen: list[Any] = []
    task = queue.task("work")(handler_of(annotation, seen))
    task.add_job(payload)
    assert queue.run_once(1) == RunSummary(completed=1, retrying=0, failed=0)
    assert seen == [payload]
    assert type(seen[0]) is type(payload)


lines = st.builds(Line, st.decimals(allow_nan=False), st.integers(), st.none() | st.text("abc"))
orders = st.builds(
    Order,
    st.uuids(),
    st.lists(lines, max_size=3),
    st.datetimes(timezones=st.just(timezone.utc)),
    st.sampled_from(Color),
    st.none() | st.sampled_from(Level),
    st.frozensets(st.text("xyz", max_size=2), max_size=3),
    st.dictionaries(st.text("xyz", max_size=2), lines, max_size=2),
    st.booleans(),
    st.tuples(st.integers(), st.text("ab")),
    st.sampled_from(["x", "y"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.dates(),
    st.none() | st.times(),
)


@given(order=orders)
def test_any_order_survives_the_way_through_json(order: Order) -> None:
    assert read(Order, json.loads(encode(order))) == order


# What does not fit.

UNFIT: list[tuple[Any, Any, list[str]]] = [
    (Order, [1], ["payload: expected an object, got list"]),
    (list[Order], {}, ["payload: expected a list, got dict"]),
    (list[str | Color], "ab", ["payload: expected a list, got str"]),
    (list[Mail], [{"to": "a"}, {}, 5], ["payload[1].to: is missing", "payload[2]: expected an object, got int"]),
    (Mail, {"to": 5}, ["payload.to: expected a str, got int"]),
    (Letter, {"to": "a", "stamp": "1"}, ["payload.stamp: expected an int, got str"]),
    (Tree, {"size": 1, "below": {"size": True}}, ["payload.below.size: expected an int, got bool"]),
    (Tree, {"size": None}, ["payload.size: expected an int, got null"]),
    (Line, {"price": [], "count": 1}, ["payload.price: expected a number, or one in a str, got list"]),
    (Line | Tree, {"no": 1}, ["payload: does not fit Line | Tree (ValueError)"]),
    (
        dict[str, uuid.UUID],
        {"a": SECRET, "b": 5},
        ["payload.a: does not fit UUID (ValueError)", "payload.b: expected a str, got int"],
    ),
    (
        Order,
        {
            "id": SECRET,
            "lines": [{"price": SECRET, "count": SECRET}, {"count": 1}],
            "at": SECRET,
            "color": SECRET,
            "level": 9,
            "tags": SECRET,
            "named": {"k": {"price": 1, "count": 1, "note": [SECRET]}},
            "paid": "no",
            "pair": [SECRET],
            "letter": SECRET,
            "weight": SECRET,
        },
        [
            "payload.id: does not fit UUID (ValueError)",
            "payload.lines[0].price: does not fit Decimal (InvalidOperation)",
            "payload.lines[0].count: expected an int, got str",
            "payload.lines[1].price: is missing",
            "payload.at: does not fit datetime (ValueError)",
            "payload.color: does not fit Color (ValueError)",
            "payload.level: does not fit Level | None (ValueError)",
            "payload.tags: expected a list, got str",
            "payload.named.k.note: expected a str, got list",
            "payload.paid: expected a bool, got str",
            "payload.pair: expected 2 items, got 1",
            "payload.letter: does not fit Literal['x', 'y']",
            "payload.weight: expected a float, got str",
        ],
    ),
    (
        Charge,
        {"order": SECRET, "at": SECRET, "kind": SECRET, "key": SECRET, "cents": 0},
        [
            "payload.order: input should be a valid integer",
            "payload.at: does not fit (datetime_parsing)",
            "payload.kind: input should be 'card' or 'cash'",
            "payload.key: does not fit (uuid_parsing)",
            "payload.cents: input should be greater than 0",
        ],
    ),
    (Charge, {"order": 13}, ["payload.order: does not fit (value_error)"]),
    (Charge, [], ["payload: input should be an object"]),
    (
        Basket,
        {"charge": {}, "more": [{"order": 1}, {"order": []}]},
        [
            "payload.charge.order: field required",
            "payload.more[1].order: input should be a valid integer",
        ],
    ),
]


@pytest.mark.parametrize(("annotation", "payload", "expected"), UNFIT)
def test_every_bad_field_is_named_and_none_is_shown(annotation: Any, payload: Any, expected: list[str]) -> None:
    found = problems(annotation, payload)
    assert found == expected
    assert SECRET not in repr(found)


def test_a_validator_of_attrs_names_its_field() -> None:
    @attrs.define
    class Checked:
        any: object = attrs.field(validator=attrs.validators.instance_of(int))

    assert problems(Checked, {"any": SECRET}) == ["payload.any: does not fit Checked (TypeError)"]


def test_hundreds_of_bad_fields_make_no_endless_error() -> None:
    with pytest.raises(InvalidPayload, match=r"payload\[19\]\.to: is missing; and 480 more$") as caught:
        read(list[Mail], [{}] * 500)
    assert len(caught.value.problems) == 500


def test_what_is_nested_without_end_does_not_fit() -> None:
    tree: dict[str, Any] = {"size": 1}
    for _ in range(900):
        tree = {"size": 1, "below": tree}
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(700)
        assert "nested too deeply" in problems(Tree, tree)[0]
    finally:
        sys.setrecursionlimit(limit)


def test_a_payload_that_does_not_fit_fails_for_good(
    queue: Queue, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failures: list[JobFailed] = []
    queue.events.subscribe(JobFailed, failures.append)
    called: list[Order] = []
    queue.task("work")(handler_of(Order, called))
    job = queue.add_job("work", {"id": SECRET, "lines": [], "at": NOON})
    assert queue.run_once(1) == RunSummary(completed=0, retrying=0, failed=1)
    (stored,) = queue.jobs(state="failed")
    expected = "graphile_worker_py.errors.InvalidPayload: payload.id: does not fit UUID (ValueError)"
    assert (stored.id, stored.attempts, stored.max_attempts, stored.last_error) == (job.id, 25, 25, expected)
    assert [(failure.final, type(failure.exception)) for failure in failures] == [(True, InvalidPayload)]
    assert called == []
    assert SECRET not in caplog.text
    assert queue.job(job.id).payload["id"] == SECRET  # type: ignore[union-attr]


def test_it_can_be_tried_again_where_that_is_asked_for(queue: Queue) -> None:
    queue.task("work", retry_invalid=True)(handler_of(Order))
    queue.add_job("work", {})
    assert queue.run_once(1) == RunSummary(completed=0, retrying=1, failed=0)


def test_a_batch_goes_on_with_the_items_as_they_were_stored(queue: Queue, db: psycopg.Connection) -> None:
    @queue.task
    def send(mails: list[Mail], ctx: JobContext) -> list[Exception | None]:
        found = [ValueError("no") if mail["to"] == "b" else None for mail in mails]
        mails.clear()
        return found

    text = '[{"to": "a"}, {"to":   "b", "copies": 1}]'
    (id,) = db.execute("select id from graphile_worker.add_job('send', %s::json)", [text]).fetchone() or ()
    assert queue.run_once(1).retrying == 1
    job = queue.job(id)
    assert job is not None
    assert job.raw_payload == '[{"to":   "b", "copies": 1}]'
