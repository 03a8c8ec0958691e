"""Classes that payloads are made of, of all the kinds a handler may ask for, and ways to make them."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any, Literal, NewType, Optional, TypedDict

import attrs
import pydantic
import pytest
from typing_extensions import NotRequired

from graphile_worker_py import InvalidPayload, Task

SECRET = "hunter2"  # noqa: S105 - what must not be shown


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Line:
    price: Decimal
    count: int = attrs.field(validator=attrs.validators.instance_of(int))
    note: str | None = None


@attrs.define
class Order:
    id: uuid.UUID
    lines: list[Line]
    at: datetime
    color: Color = Color.RED
    level: Level | None = None
    tags: frozenset[str] = frozenset()
    named: dict[str, Line] = attrs.Factory(dict)
    paid: bool = False
    pair: tuple[int, str] = (1, "a")
    letter: Literal["x", "y"] = "x"
    weight: float = 1.0
    day: date | None = None
    hour: time | None = None


@dataclasses.dataclass
class Tree:
    size: int
    below: Optional[Tree] = None  # noqa: UP045 - as many still write it


class Mail(TypedDict):
    to: str
    copies: NotRequired[int]


class Letter(Mail, total=False):
    stamp: int


class Charge(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    order: int
    at: datetime | None = None
    kind: Literal["card", "cash"] = "card"
    key: uuid.UUID | None = None
    cents: int = pydantic.Field(1, gt=0)

    @pydantic.field_validator("order")
    @classmethod
    def is_lucky(cls, value: int) -> int:
        if value == 13:
            raise ValueError(f"{SECRET} {value}")
        return value


@attrs.define
class Basket:
    charge: Charge
    more: list[Charge]


UserId = NewType("UserId", int)
NOON = datetime(2024, 7, 8, 12, tzinfo=timezone.utc)
ORDER = Order(uuid.UUID(int=7), [Line(Decimal("1.10"), 2, "n")], NOON, Color.BLUE, Level.HIGH, frozenset("ab"))
FULL = attrs.evolve(ORDER, named={"k": Line(Decimal(3), 1)}, paid=True, pair=(5, "b"), letter="y", weight=2.5)


def handler_of(annotation: Any, seen: list[Any] | None = None) -> Callable[[Any], None]:
    def handler(payload: Any) -> None:
        if seen is not None:
            seen.append(payload)

    handler.__annotations__["payload"] = annotation
    return handler


def read(annotation: Any, payload: Any) -> Any:
    """Return what a task with this annotation makes of JSON data."""
    task = Task(handler_of(annotation), "task")
    task.prepare()
    return payload if task.read is None else task.read(payload)


def problems(annotation: Any, payload: Any) -> list[str]:
    with pytest.raises(InvalidPayload) as caught:
        read(annotation, payload)
    assert caught.value.__context__ is None
    return list(caught.value.problems)
