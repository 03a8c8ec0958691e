"""The notifications of a small chat: what its web application would import, and what its worker runs.

`notify` is called for every message. Messages to one person are gathered for a moment: each adds a job with the same
key and a list of one, and lists under one key grow together. The worker sends a mail for every item, and only the
items whose mail was refused are tried again.

Besides, the chat sends single mails in four ways: later, one after the other, only the newest, and only once.
"""

from __future__ import annotations

import math
import os
import smtplib
from concurrent.futures import Future
from datetime import timedelta
from email.message import EmailMessage

from graphile_worker_py import Job, JobContext, JobFailed, Queue

Message = dict[str, str]  # id, from, to, subject, text

queue = Queue()  # the database of DATABASE_URL
smtp_server = (os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25")))
gather_for = timedelta(seconds=1.5)  # minutes, in a real chat


def notify(message: Message) -> Job:
    """Put a message into its recipient's next digest; the first message of a digest sets the time it is sent."""
    return send_digest.add_job(
        [message], job_key=f"digest:{message['to']}", job_key_mode="preserve_run_at", run_at=gather_for
    )


@queue.task
def send_digest(messages: list[Message], ctx: JobContext) -> list[Future[None]]:
    """Send a mail for each message, several at a time; the messages whose mail fails are what is tried again."""
    return ctx.map(deliver, messages)


def try_again(event: JobFailed) -> None:
    """Let a digest go on with what was refused, although the next digest took its key while it was being sent.

    A job whose key is taken loses the attempts it had left, for the new job is meant to do its work. Here it is not:
    the new digest does not hold the messages of the old one. So the old one gets its attempts back.
    """
    job = event.job
    if job.task_identifier == "send_digest" and event.final and job.attempts < job.max_attempts:
        pause = timedelta(seconds=math.exp(min(job.attempts, 10)))
        queue.reschedule_jobs([job.id], attempts=job.attempts, run_at=pause)


queue.events.subscribe(JobFailed, try_again)


@queue.task
def send_mail(message: Message) -> None:
    """Send one mail."""
    deliver(message)


def remind(message: Message, delay: timedelta) -> Job:
    """Send a mail later."""
    return send_mail.add_job(message, run_at=delay)


def publish(chapter: Message) -> Job:
    """Send a mail after all those published before it: jobs of one named queue run one at a time, in order."""
    return send_mail.add_job(chapter, queue_name="story")


def announce(message: Message) -> Job:
    """Send a mail in a moment, unless it is announced anew: then that one is sent in its place."""
    return send_mail.add_job(message, job_key=f"announcement:{message['id']}", run_at=gather_for)


def invite(message: Message) -> Job:
    """Send a mail and do not insist: if it is refused, the job has failed for good."""
    return send_mail.add_job(message, max_attempts=1)


def deliver(message: Message) -> None:
    """Send a mail. It may be sent twice if a worker is killed, so it has the same Message-ID each time."""
    mail = EmailMessage()
    mail["Message-ID"], mail["From"], mail["To"] = message["id"], message["from"], message["to"]
    mail["Subject"] = message["subject"]
    mail.set_content(message["text"])
    # Its own name is given because smtplib would ask the resolver for it, which may take seconds.
    with smtplib.SMTP(*smtp_server, local_hostname="localhost", timeout=10) as server:
        server.send_message(mail)
