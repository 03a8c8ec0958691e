"""Payloads: what Python has becomes JSON text or a clear refusal with a path, and comes back as it went."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphile_worker_py import InvalidJobSpec, JobSpec, Queue

NAN = float("nan")


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)
    NOTHING = None


class Mode(str, enum.Enum):
    FAST = "fast"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class Number(int):
    def __repr__(self) -> str:
        return "another"


class Fraction(float):
    def __repr__(self) -> str:
        return "another"


class Point(NamedTuple):
    x: int
    y: int


@attrs.frozen
class Line:
    product: str
    price: Any = Decimal("1.10")


@dataclass
class Order:
    number: int
    lines: list[Line] = field(default_factory=list)
    extra: Any = None


class Model:
    """What pydantic's models look like from outside."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return self.fields


MOMENT = datetime(2031, 2, 3, 4, 5, 6, 7, tzinfo=timezone.utc)


def text_of(payload: object) -> str:
    return JobSpec("task", payload).raw_payload or "nothing"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"a": [1, 1.5, "x", True, None]}, '{"a":[1,1.5,"x",true,null]}'),
        ([], "[]"),
        ({}, "{}"),
        (0, "0"),
        (False, "false"),
        ("", '""'),
        ("é雪😀\t\x7f\u2028", '"é雪😀\\t\x7f\u2028"'),
        ([10**400, -(10**20), 1e308, 5e-324, -0.0], f"[1{'0' * 400},-1{'0' * 20},1e+308,5e-324,-0.0]"),
        ((1, (2,)), "[1,[2]]"),
        (Point(1, 2), "[1,2]"),
        ([frozenset({7}), deque([8])], "[[7],[8]]"),
        ({"a": 1}.keys(), '["a"]'),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        ([Colour.RED, Colour.PAIR, Colour.NOTHING, Mode.FAST, Level.HIGH], '["red",[1,2],null,"fast",3]'),
        ({Mode.FAST: Mode.FAST, Word("word"): Word("word")}, '{"fast":"fast","word":"word"}'),
        ([Number(5), Fraction(0.5)], "[5,0.5]"),
        ([MOMENT, date(2031, 2, 3), time(4, 5)], '["2031-02-03T04:05:06.000007+00:00","2031-02-03","04:05:00"]'),
        ([UUID(int=1), Decimal("1.10")], '["00000000-0000-0000-0000-000000000001","1.10"]'),
        (Line("tea"), '{"product":"tea","price":"1.10"}'),
        ([Line("tea", {1.5})], '[{"product":"tea","price":[1.5]}]'),
        (
            Order(7, [Line("tea", MOMENT.date())], {"by": Model(colour=Colour.RED, line=Line("x", 0))}),
            '{"number":7,"lines":[{"product":"tea","price":"2031-02-03"}],'
            '"extra":{"by":{"colour":"red","line":{"product":"x","price":0}}}}',
        ),
    ],
)
def test_what_python_has_becomes_json(payload: object, expected: str) -> None:
    assert text_of(payload) == expected


@pytest.mark.parametrize("payload", [None, Colour.NOTHING])
@pytest.mark.parametrize("add", ["add_job", "add_jobs"])
def test_no_payload_is_an_empty_object(queue: Queue, payload: object, add: str) -> None:
    job = queue.add_job("task", payload) if add == "add_job" else queue.add_jobs([JobSpec("task", payload)])[0]
    assert (job.payload, queue.job(job.id)) == ({}, job)


class Raising:
    """An object that raises, with something secret, wherever it is touched in one way."""

    def _raise(self, *_: object, **__: object) -> Any:
        raise ZeroDivisionError("sesame")


class RaisingAttributes(Raising):
    __getattr__ = Raising._raise


class RaisingClass(Raising):
    __class__ = property(Raising._raise)  # type: ignore[assignment]


class RaisingMapping(dict[str, int]):
    items = keys = __iter__ = Raising._raise  # type: ignore[assignment]


class RaisingList(list[int]):
    __iter__ = __len__ = Raising._raise  # type: ignore[assignment]


class RaisingModel(Raising):
    model_dump = Raising._raise


class RaisingKey(str):
    __slots__ = ()
    __str__ = __repr__ = __format__ = Raising._raise  # type: ignore[assignment]


class Endless:
    def model_dump(self, *, mode: str) -> object:
        return type("Endless", (Endless,), {})()


def cycle() -> Any:
    first: dict[str, Any] = {"secret": "sesame"}
    first["order"] = Order(1, extra=[first])
    return first


def nested(depth: int) -> Any:
    payload: Any = "sesame"
    for _ in range(depth):
        payload = [payload]
    return payload


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: NAN, "payload: nan is not JSON"),
    (lambda: {"a": [0, {"b": math.inf}]}, "payload.a[1].b: inf is not JSON"),
    (lambda: [Fraction("-inf")], "payload[0]: -inf is not JSON"),
    (lambda: {"sesame": {RaisingKey("a"): NAN}}, "payload.sesame.a: nan"),
    (lambda: {"a" * 1000: NAN}, f"payload.{'a' * 40}: nan"),
    (lambda: Order(1, [Line("tea", NAN)]), "payload.lines[0].price: nan"),
    (lambda: Model(items=[{"x": NAN}]), "payload.items[0].x: nan"),
    (lambda: {"a": "sesame\x00"}, "payload.a: holds a NUL character"),
    (lambda: ["sesame\ud800"], "payload[0]: holds a lone surrogate"),
    (lambda: "\udfff", "payload: holds a lone surrogate"),
    (lambda: Order(1, extra=Word("sesame\x00")), "payload.extra: holds a NUL"),
    (lambda: {"a": {"sesame\x00": 1}}, "payload.a: a key holds a NUL character"),
    (lambda: {"\ud800": 1}, "payload: a key holds a lone surrogate"),
    (lambda: {"a": {1: 2}}, "payload.a: keys must be str in JSON, got int"),
    (lambda: {None: 2}, "payload: keys must be str in JSON, got NoneType"),
    (lambda: {True: 2}, "payload: keys must be str in JSON, got bool"),
    (lambda: {Level.HIGH: 2}, "payload: keys must be str in JSON, got Level"),
    (lambda: {(1, 2): 2}, "payload: keys must be str in JSON, got tuple"),
    (lambda: {"a": [10**5000]}, "payload.a[0]: holds an integer of more digits"),
    (lambda: -(10**5000), "payload: holds an integer of more digits"),
    (lambda: {"a": b"sesame"}, "payload.a: bytes is not JSON"),
    (lambda: bytearray(b"sesame"), "payload: bytearray is not JSON"),
    (lambda: memoryview(b"sesame"), "payload: memoryview is not JSON"),
    (lambda: 1j, "payload: complex is not JSON"),
    (lambda: (number for number in [1]), "payload: generator is not JSON"),
    (lambda: range(3), "payload: range is not JSON"),
    (object, "payload: object is not JSON"),
    (lambda: SimpleNamespace(a="sesame"), "payload: SimpleNamespace is not JSON"),
    (lambda: Order, "payload: type is not JSON"),
    (lambda: Model, "payload: type did not convert"),
    (lambda: print, "payload: builtin_function_or_method is not JSON"),
    (lambda: sys, "payload: module is not JSON"),
    (lambda: ValueError("sesame"), "payload: ValueError is not JSON"),
    (lambda: [RaisingAttributes()], "payload[0]: RaisingAttributes did not convert to JSON (ZeroDivisionError)"),
    (lambda: [RaisingModel()], "payload[0]: RaisingModel did not convert to JSON (ZeroDivisionError)"),
    (lambda: [RaisingClass()], "payload: reading it raised ZeroDivisionError"),
    (lambda: [RaisingMapping(a=1)], "payload: reading it raised ZeroDivisionError"),
    (lambda: [RaisingList([1])], "payload: reading it raised ZeroDivisionError"),
    (Endless, "payload: nested too deeply, or contains itself"),
    (cycle, "payload: nested too deeply, or contains itself"),
    (lambda: nested(100_000), "payload: nested too deeply, or contains itself"),
]


@pytest.mark.parametrize(("payload", "start"), BAD, ids=[start.partition(",")[0] for _, start in BAD])
def test_what_json_does_not_have_is_refused_with_its_path(payload: Callable[[], object], start: str) -> None:
    with pytest.raises(InvalidJobSpec) as caught:
        JobSpec("task", payload())
    message = str(caught.value)
    assert message.startswith(start)
    assert "sesame" not in message.partition(": ")[2]


def test_memory_that_ran_out_is_not_the_payloads_fault() -> None:
    class Hungry:
        def model_dump(self, *, mode: str) -> object:
            return Hungrier()

    class Hungrier(dict[str, int]):
        def items(self) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        JobSpec("task", Hungry())


@pytest.mark.parametrize("add", ["add_job", "add_jobs"])
def test_a_payload_of_fifty_megabytes_is_stored(queue: Queue, db: psycopg.Connection, add: str) -> None:
    payload = {"text": "x" * 50_000_000}
    job = queue.add_job("task", payload) if add == "add_job" else queue.add_jobs([JobSpec("task", payload)])[0]
    (size,) = db.execute("select octet_length(payload::text) from graphile_worker._private_jobs").fetchone()
    assert size == 50_000_011
    assert queue.job(job.id).payload == payload


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=20)
numbers = st.integers() | st.integers(10**300, 10**4000) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
ON_ONE_DATABASE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def exactly(value: object) -> str:
    """Tell 1 from 1.0 and True, and 0.0 from -0.0."""
    return json.dumps(value)


@ON_ONE_DATABASE
@given(payload=json_values.filter(lambda value: value is not None))
def test_any_json_comes_back_as_it_went(queue: Queue, payload: Any) -> None:
    one, (two,) = queue.add_job("task", payload), queue.add_jobs([JobSpec("task", payload)])
    for job in (one, two):
        assert exactly(job.payload) == exactly(payload)
        assert exactly(queue.job(job.id).payload) == exactly(payload)


lists = st.lists(json_values.filter(lambda value: "e+" not in exactly(value)), max_size=3)


@ON_ONE_DATABASE
@given(old=lists, new=lists)
def test_any_lists_are_joined(queue: Queue, old: list[Any], new: list[Any]) -> None:
    """But for floats beyond 1e16: PostgreSQL writes 1e+22 out, and Python then reads an int near it."""
    queue.remove_job("k")
    queue.add_job("task", old, job_key="k")
    assert queue.add_job("task", new, job_key="k").payload == old + new


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5)
    | st.binary(max_size=3)
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([Colour.RED, Mode.FAST, Level.HIGH, Number(1), Word("w"), PurePosixPath("/x"), Order])
    | st.builds(lambda: 10**5000)
    | st.builds(Raising)
    | st.builds(RaisingAttributes)
    | st.builds(RaisingClass)
    | st.builds(RaisingModel)
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=3) | st.integers() | st.none(), inner, max_size=4)
        | st.builds(Line, st.text(max_size=3), inner)
        | st.builds(Order, inner, st.lists(inner, max_size=2), inner)
        | st.builds(lambda value: Model(field=value), inner)
        | st.builds(iter, st.lists(inner, max_size=2))
    ),
    max_leaves=15,
)


def members(value: Any) -> Iterator[Any]:
    yield value
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    for inner in inside:
        yield from members(inner)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(payload=anything)
def test_whatever_it_is_it_becomes_json_or_an_invalid_job_spec(payload: Any) -> None:
    try:
        text = JobSpec("task", payload).raw_payload
    except InvalidJobSpec as error:
        assert str(error).startswith("payload")  # noqa: PT017 - not every payload is refused
        return
    for value in members(json.loads(text or "{}", parse_constant=pytest.fail)):
        if isinstance(value, str):
            assert "\x00" not in value
            value.encode()


def test_a_timedelta_is_no_json() -> None:
    with pytest.raises(InvalidJobSpec, match=r"^payload.wait: timedelta is not JSON"):
        JobSpec("task", {"wait": timedelta(1)})
