"""Run the chat's notifications with a real mailbox, a real database and a real mail server, and count the mails.

    python examples/notifications/demo.py        or: make demo        or: graphile-worker-py demo

A producer reads messages.mbox and plays the chat, one message after the other, while a worker sends the digests to a
mail server that turns some people away at first. At the end every message must have arrived, and none twice.
"""

from __future__ import annotations

import logging
import mailbox
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from email import message_from_binary_file, policy
from email.utils import parseaddr
from pathlib import Path

import app
import attrs
import psycopg
from psycopg import sql

from graphile_worker_py import Job, JobInfo, NotSupported, Queue, WorkerPool
from graphile_worker_py.embedded import EmbeddedPostgres

try:
    from mail_server import MailServer, running, text_of
except ModuleNotFoundError as error:
    raise NotSupported("the demo needs a mail server: pip install 'graphile-worker-py[demo]'") from error

from reckoning import compare, out_of_order, too_early, unbalanced, wrongly_failed
from story import Screen, Story

MAILBOX = Path(__file__).with_name("messages.mbox")
SECONDS_PER_MESSAGE = 0.04
PATIENCE = 25.0  # seconds after which what has not arrived is missing
DELAY = timedelta(seconds=4)
BUSY = {"bo@example.org": 3, "dara@example.org": 2, "gus@example.org": 4}  # whom the mail server refuses, how often


def mail(id: str, to: str, subject: str, text: str) -> app.Message:
    """Return a message of the chat itself."""
    return {"id": f"<{id}@chat.example.org>", "from": "chat@example.org", "to": to, "subject": subject, "text": text}


REMINDER = mail("reminder", "walkers@example.org", "Reminder", "The walk begins at half past seven.")
DRAFTS = [
    mail("news", "gardeners@example.org", "News", f"The garden opens at {hour}.") for hour in ("ten", "11", "noon")
]
CHAPTERS = [mail(f"chapter.{n}", "readers@example.org", f"Chapter {n}", f"This is chapter {n}.") for n in range(1, 7)]
INVITATION = mail("invitation", "nobody@example.org", "Invitation", "Join us!")


def read_messages(path: Path = MAILBOX) -> list[app.Message]:
    """Return the messages of a mailbox, oldest first."""
    with closing(mailbox.mbox(path, lambda file: message_from_binary_file(file, policy=policy.default), False)) as box:
        return [
            {
                "id": mail["Message-ID"],
                "from": mail["From"],
                "to": parseaddr(mail["To"])[1],
                "subject": mail["Subject"],
                "text": text_of(mail),
            }
            for mail in box
        ]


@contextmanager
def installed(queue: Queue, database: str | None, schema: str | None) -> Iterator[str]:
    """Give the queue a schema of its own, on a server of its own if none is named; both are removed at the end.

    Yields what to call this place.
    """
    schema = schema or f"graphile_worker_demo_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        if not database:
            database = stack.enter_context(EmbeddedPostgres()).url
        queue.point_at(database, schema=schema)
        stack.callback(queue.close)
        where = change(database, "create schema {}", schema)  # fails if it exists, so what is dropped below is ours
        stack.callback(change, database, "drop schema {} cascade", schema)
        queue.migrate()
        yield f"{where}, schema {schema}"


def change(database: str, statement: str, schema: str) -> str:
    """Run a statement about a schema; return the server's version and the database's name."""
    with psycopg.connect(database) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(schema)))
        return f"PostgreSQL {connection.info.parameter_status('server_version')}, database {connection.info.dbname}"


@attrs.frozen
class Played:
    """What must be known of the play to judge its end: when the reminder was due, and the job that had to fail."""

    reminder_due: float
    invited: Job


def play(messages: list[app.Message], story: Story, stopping: threading.Event) -> Played:
    """Add the jobs of the chat: some of each other kind, then the messages as they arrive."""
    played = Played(time.monotonic() + DELAY.total_seconds(), app.invite(INVITATION))
    story.added(played.invited)
    story.added(app.remind(REMINDER, DELAY))
    for chapter in CHAPTERS:
        story.added(app.publish(chapter))
    for draft in DRAFTS:
        story.added(app.announce(draft), otherwise="replaced")
    for message in messages:
        story.check()
        story.notified(app.notify(message), message["to"])
        if stopping.wait(SECONDS_PER_MESSAGE):
            break
    return played


def play_until_done(messages: list[app.Message], story: Story) -> Played:
    """Play in a thread, and return once no job is left but the one that had to fail, or patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as producer:
        try:
            played = producer.submit(play, messages, story, stopping).result()
        finally:
            stopping.set()
    while time.monotonic() < deadline and any(job.id != played.invited.id for job in app.queue.jobs()):
        story.check()
        time.sleep(0.1)
    return played


def judge(played: Played, failed: list[JobInfo], server: MailServer, story: Story) -> list[str]:
    """Return what is not as it should be, one sentence each, and print the tables."""
    messages = read_messages()
    comparison = compare([*messages, REMINDER, DRAFTS[-1], *CHAPTERS], server.mails)
    story.end(len(messages), comparison)
    return [
        *comparison.problems(),
        *out_of_order(CHAPTERS, server.mails),
        *too_early(REMINDER, server.mails, played.reminder_due),
        *wrongly_failed(played.invited, failed),
        *unbalanced(story.counts, server.refused.total()),
    ]


def main(database: str | None, schema: str | None = None) -> list[str]:
    """Run the demo and return what went wrong, one sentence each: [] when every message is accounted for."""
    logging.getLogger("graphile_worker_py").addHandler(logging.NullHandler())  # the story tells what happens
    server = MailServer(busy=BUSY, unknown={INVITATION["to"]})
    story = Story(Screen(), server)
    story.subscribe(app.queue)
    story.tell(f"starting a mail server {'for the database given' if database else 'and a PostgreSQL'}")
    with installed(app.queue, database, schema) as where, running(server) as app.smtp_server:
        story.tell(f"ready: {where}")
        with WorkerPool(app.queue, 4, poll_interval=0.25, helper_threads=8), story.shown():
            played = play_until_done(read_messages(), story)
        failed = list(app.queue.jobs(state="failed"))
    story.check()
    problems = judge(played, failed, server, story)
    for line in problems or [f"Every message of {MAILBOX.name} arrived, and none twice."]:
        story.say(line)
    return problems


if __name__ == "__main__":
    sys.exit(1 if main(os.environ.get("DATABASE_URL")) else 0)
