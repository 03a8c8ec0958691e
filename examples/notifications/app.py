"""The notifications of a small chat: what a web application would import, and what its worker runs.

`notify` is called in a view for every message. Messages to one person are gathered for a moment: each adds a job with
the same key and a list of one, and lists under one key grow together. The worker sends a mail for every item, and an
item whose mail is refused is tried again on its own.
"""

from __future__ import annotations

import smtplib
import threading
from concurrent.futures import Future
from datetime import timedelta
from email.message import EmailMessage

from graphile_worker_py import Job, JobContext, Queue

Message = dict[str, str]

queue = Queue()
mail_server = {"host": "localhost", "port": 25}
gather_for = timedelta(seconds=1.5)

diary: list[tuple[str, object]] = []  # what the other tasks did, for the demo to check
writing = threading.Lock()


def notify(message: Message) -> Job:
    """Put a message into its recipient's next digest; the first message of a digest sets the time it is sent."""
    return send_digest.add_job(
        [message], job_key=f"digest:{message['to']}", job_key_mode="preserve_run_at", run_at=gather_for
    )


@queue.task
def send_digest(messages: list[Message], ctx: JobContext) -> list[Future[None]]:
    """Send one mail for each message, several at a time; those that fail are what the next attempt gets."""
    return ctx.map(deliver, messages)


def deliver(message: Message) -> None:
    """Send one mail; raises what smtplib raises."""
    mail = EmailMessage()
    mail["Message-ID"], mail["From"], mail["To"] = message["id"], message["from"], message["to"]
    mail["Subject"] = f"New message: {message['subject']}"
    mail.set_content(message["text"])
    with smtplib.SMTP(mail_server["host"], mail_server["port"], timeout=10) as smtp:
        smtp.send_message(mail)


@queue.task
def remind(payload: str, ctx: JobContext) -> None:
    """Run later: the job was added with run_at."""
    diary.append(("remind", ctx.job.run_at))


@queue.task(queue_name="ledger")
def book(payload: int) -> None:
    """Run one at a time and in order, in all workers together, for all its jobs are in one named queue."""
    if not writing.acquire(blocking=False):
        raise RuntimeError("two bookings at once")
    try:
        diary.append(("book", payload))
    finally:
        writing.release()


@queue.task
def publish_profile(payload: Message) -> None:
    """Run once however often the profile was saved: a second job under the same key replaces the first."""
    diary.append(("publish_profile", payload["name"]))


@queue.task(max_attempts=1)
def charge(payload: Message) -> None:
    """Fail for good: no attempt is left after the first."""
    raise ValueError("the card has expired")
