"""A card is charged once, although the worker fails right after it: the other side is given the job's id as a key."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from graphile_worker_py import JobContext, Queue

queue = Queue()


class Bank:
    """Stands for the other side: it knows the keys it was given."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}

    def charge(self, amount: int, *, idempotency_key: str) -> str:
        """Charge an amount, but not twice for one key; return what happened."""
        if idempotency_key in self.charged:
            return "charged before"
        self.charged[idempotency_key] = amount
        return "charged"


bank = Bank()


@queue.task
def charge(payload: dict[str, Any], ctx: JobContext) -> None:
    """Charge a card; the first attempt fails just after it has."""
    print(f"attempt {ctx.job.attempts}:", bank.charge(payload["amount"], idempotency_key=f"job-{ctx.job.id}"))
    if ctx.job.attempts == 1:
        raise ConnectionError("the answer got lost")


def main() -> None:
    """Charge a card, and do not wait for the second attempt's time."""
    job = charge.add_job({"amount": 100})
    queue.run_once()
    queue.reschedule_jobs([job.id], run_at=datetime.now(timezone.utc))
    print(queue.run_once())
    print("charged in all:", sum(bank.charged.values()))


if __name__ == "__main__":
    main()
