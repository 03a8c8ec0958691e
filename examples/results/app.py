"""A shop that asks carriers for their prices and waits for the answers, but not for long.

graphile-worker-py migrate
python app.py                   asks once, with a worker of its own
graphile-worker-py history      what ran
"""

from __future__ import annotations

import time
from datetime import timedelta

from graphile_worker_py import JobContext, JobFailedForGood, Queue, WorkerPool

queue = Queue()

PRICES = {"snail": 3.5, "hare": 9.0, "tortoise": 1.0}
PATIENCE = 2.0  # seconds for all answers


@queue.task(keep_result=timedelta(minutes=10), max_attempts=1)
def ask(carrier: str, ctx: JobContext) -> float:
    """Return a carrier's price; the tortoise takes its time."""
    if carrier not in PRICES:
        raise LookupError("the price list is gone")
    if carrier == "tortoise":
        ctx.cancelled.wait()
    return PRICES[carrier]


def main() -> None:
    """Ask all carriers and print who is cheapest."""
    with WorkerPool(queue, concurrency=4, grace=0, history=timedelta(days=1)):
        jobs = {carrier: ask.add_job(carrier) for carrier in (*PRICES, "fox")}
        ends_at = time.monotonic() + PATIENCE
        answers: dict[str, float] = {}
        problems: list[str] = []
        for carrier, job in jobs.items():
            try:
                answers[carrier] = queue.wait_for(job, max(0.0, ends_at - time.monotonic()))
            except TimeoutError:
                problems.append(f"not heard of: {carrier}")
            except JobFailedForGood as error:
                problems.append(f"{carrier}: {(error.last_error or '').splitlines()[0].partition(': ')[2]}")
    cheapest = min(answers, key=answers.__getitem__)
    print(f"cheapest carrier: {cheapest}, {answers[cheapest]:.2f}")
    print(*problems, sep="\n")


if __name__ == "__main__":
    main()
