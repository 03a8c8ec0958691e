"""Orders are sent to a shipping service that is out of order, and each failure is answered in its own way.

python retries.py    in the database of DATABASE_URL, where it installs the tables if they are missing

The service is a function here, and answers as the order's note says. Every job is run once; then the program prints
when each of them would be tried again.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from graphile_worker_py import Backoff, GiveUp, JobFailed, JobInfo, JobSnoozed, Queue, RetryLater, Snooze


class Refused(Exception):
    """The service will not do it, now or later."""


class Busy(Exception):
    """The service asks to be left alone for so many seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"come back in {seconds} s")
        self.seconds = seconds


queue = Queue(retry=Backoff(base=5, cap=timedelta(minutes=30), jitter=0), give_up_on=Refused)


def service(note: str) -> str:
    """Answer, or fail, as the note says."""
    if note == "down":
        raise ConnectionError("no route to host")
    if note == "refused":
        raise Refused("no such address")
    if note == "busy":
        raise Busy(90)
    return "sent on Monday" if note == "weekend" else "sent"


@queue.task
def ship(note: str) -> None:
    """Send one order."""
    try:
        answer = service(note)
    except Busy as busy:
        raise RetryLater(busy.seconds, reason=str(busy)) from busy
    if answer == "sent on Monday":
        raise Snooze(timedelta(days=2), reason="nobody is there")


@queue.task
def ship_all(notes: list[str]) -> list[Exception | None]:
    """Send a batch of orders; what is refused is not tried again, what is not sent for another reason is."""

    def reply(note: str) -> Exception | None:
        try:
            service(note)
        except Refused as refused:
            return GiveUp(str(refused))
        except (ConnectionError, Busy) as error:
            return error
        return None

    return [reply(note) for note in notes]


def tell(event: JobFailed) -> None:
    """Print the items of a batch that are not tried again, for their errors go with the job."""
    for place in event.given_up:
        print(f"{event.job.payload[place]}: dropped from its batch")


def fate(job: JobInfo) -> str:
    """Say when a job is tried again."""
    if job.state == "failed":
        return "given up"
    seconds = round((job.run_at - datetime.now(timezone.utc)).total_seconds())
    return f"again in {timedelta(seconds=seconds)}, attempts made: {job.attempts}"


def main() -> None:
    """Add orders, run each job once, and tell what is left."""
    queue.events.subscribe(JobSnoozed, lambda event: print(f"{event.job.payload}: put off, {event.exception}"))
    queue.events.subscribe(JobFailed, tell)
    queue.migrate()
    names = {ship.add_job(note).id: note for note in ("fine", "down", "refused", "busy", "weekend")}
    names[ship_all.add_job(["fine", "refused", "down"]).id] = "batch"
    print(queue.run_once(concurrency=1))
    for job in queue.jobs():
        if job.id in names:
            print(f"{names[job.id]}: {fate(job)}")


if __name__ == "__main__":
    with queue:
        main()
