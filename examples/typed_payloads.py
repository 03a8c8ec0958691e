"""One task for each kind of class that a payload may be, and what becomes of payloads that do not fit.

python typed_payloads.py    in the database of DATABASE_URL, where it installs the tables if they are missing
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import TypedDict

import attrs
from pydantic import BaseModel, Field

from graphile_worker_py import InvalidPayload, JobFailed, Queue

queue = Queue()


class Currency(Enum):
    """What is paid with."""

    EUR = "EUR"
    USD = "USD"


@attrs.frozen
class Charge:
    """What is to be paid, and until when."""

    order: int
    amount: Decimal
    due: datetime
    currency: Currency = Currency.EUR


@dataclass
class Refund:
    """What is to be paid back."""

    order: int
    reason: str | None = None


class Mail(TypedDict):
    """What a mail is about."""

    to: str
    subject: str


class SignUp(BaseModel):
    """Who wants to be a customer; pydantic's own rules hold."""

    name: str = Field(min_length=1, max_length=40)
    age: int = Field(ge=18)


@queue.task
def charge(payload: Charge) -> None:
    """Take an object of attrs."""
    print(f"charge {payload.amount} {payload.currency.name} for order {payload.order} until {payload.due:%d %B}")


@queue.task
def refund(payload: Refund) -> None:
    """Take a dataclass."""
    print(f"refund order {payload.order}: {payload.reason or 'no reason given'}")


@queue.task
def send(payload: list[Mail]) -> None:
    """Take a batch of dicts whose fields are known."""
    for mail in payload:
        print(f"send {mail['subject']!r} to {mail['to']}")


@queue.task
def sign_up(payload: SignUp) -> None:
    """Take a model of pydantic."""
    print(f"sign up {payload.name}, {payload.age}")


def tell(event: JobFailed) -> None:
    """Print each thing that is wrong with a payload."""
    if isinstance(event.exception, InvalidPayload):
        print(f"{event.job.task_identifier} cannot be done:", *event.exception.problems, sep="\n    ")


def main() -> None:
    """Add jobs, some of them as a careless program elsewhere would, and run them."""
    queue.events.subscribe(JobFailed, tell)
    queue.migrate()

    charge.add_job(Charge(7, Decimal("12.50"), datetime(2030, 1, 31, 9, tzinfo=timezone.utc)))
    refund.add_job(Refund(7, "broken"))
    send.add_job([{"to": "ann@example.com", "subject": "hello"}, {"to": "bob@example.com", "subject": "hello again"}])
    sign_up.add_job(SignUp(name="Cid", age=42))

    queue.add_job("charge", {"order": "7", "amount": "much", "due": "2030-01-31", "currency": "DM"})
    queue.add_job("refund", {"reason": 5})
    queue.add_job("send", [{"to": "ann@example.com", "subject": "hello"}, {"to": None}])
    queue.add_job("sign_up", {"name": "", "age": 7})

    print(queue.run_once(concurrency=1))


if __name__ == "__main__":
    with queue:
        main()
