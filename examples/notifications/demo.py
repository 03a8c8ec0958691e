"""Run the chat's notifications on a real mailbox, a real database and a real mail server, and count the mails.

    python examples/notifications/demo.py        or:  make demo        or:  graphile-worker-py demo

A producer reads messages.mbox and notifies of one message after the other; a worker sends the digests to an SMTP
server that turns some recipients' mails away at first. At the end every message must have been delivered exactly once.
"""

from __future__ import annotations

import mailbox
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import app
import psycopg
from psycopg import sql
from rich.console import Console
from rich.live import Live
from rich.table import Table

from graphile_worker_py import JobCompleted, JobFailed, NotSupported, Queue, WorkerPool

MAILBOX = Path(__file__).with_name("messages.mbox")
ARRIVAL = 0.03  # seconds between two messages
PATIENCE = 25.0  # seconds until what is not delivered counts as lost
BUSY = {"bo@example.org": 3, "gus@example.org": 4}  # recipients turned away at first, and how often
BOOKINGS = 12
DELAY = timedelta(seconds=3)


def read_messages(path: Path = MAILBOX) -> list[app.Message]:
    """Return the messages of a mailbox, oldest first."""
    with closing(mailbox.mbox(path, create=False)) as box:
        return [
            {
                "id": mail["Message-ID"],
                "from": mail["From"],
                "to": mail["To"].split("<")[-1].rstrip(">"),
                "subject": mail["Subject"],
                "text": mail.get_payload(decode=True).decode(),
            }
            for mail in box
        ]


class MailServer:
    """What aiosmtpd asks: whether it takes a recipient, and what to do with a mail. Keeps (recipient, id) of each."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []
        self.refusals = 0
        self._busy = Counter(BUSY)

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: ANN001, N802, PLR0913, PLR0917
        if self._busy[address] > 0:
            self._busy[address] -= 1
            self.refusals += 1
            return "450 4.2.1 mailbox busy, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: ANN001, N802
        head = envelope.content.decode().split("\r\n\r\n", 1)[0]
        (number,) = [line.split(": ", 1)[1] for line in head.split("\r\n") if line.startswith("Message-ID: ")]
        self.mails += [(address, number) for address in envelope.rcpt_tos]
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """Run an SMTP server on a free port of this machine."""
    try:
        from aiosmtpd.controller import Controller
    except ImportError:
        raise NotSupported("the demo needs a mail server: pip install 'graphile-worker-py[demo]'") from None
    handler = MailServer()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host, port = probe.getsockname()
    controller = Controller(handler, hostname=host, port=port)
    controller.start()
    try:
        app.mail_server.update(host=host, port=port)
        yield handler
    finally:
        controller.stop()


@contextmanager
def installed(queue: Queue, database: str | None, schema: str | None) -> Iterator[None]:
    """Give the queue a server of its own, or a schema of its own on the server that was named; remove it at the end."""
    with ExitStack() as stack:
        if database is None:
            from graphile_worker_py.embedded import EmbeddedPostgres

            database = stack.enter_context(EmbeddedPostgres()).url
        name = schema or "graphile_worker_demo"
        queue.point_at(database, schema=name)
        with psycopg.connect(database, autocommit=True) as connection:
            if connection.execute("select from pg_namespace where nspname = %s", [name]).fetchone():
                raise NotSupported(f"schema {name!r} exists already and the demo drops its own: name another one")
        stack.callback(drop, database, name)
        stack.callback(queue.close)
        queue.migrate()
        yield


def drop(database: str, schema: str) -> None:
    """Remove a schema and all in it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))


class Story:
    """Counts what happens, and shows it: a table that is drawn anew, or lines where there is no terminal."""

    def __init__(self, server: MailServer, messages: int) -> None:
        self.counts: Counter[str] = Counter()
        self._server = server
        self._messages = messages

    def completed(self, event: JobCompleted) -> None:
        self.counts["run"] += 1

    def failed(self, event: JobFailed) -> None:
        self.counts["failed for good" if event.final else "to be retried"] += 1
        self.counts["items retried"] += event.remaining or 0

    def __rich__(self) -> Table:
        table = Table("what", "how many", title="Notifications of a small chat")
        for name in ("added", "merged", "run", "to be retried", "items retried", "failed for good"):
            table.add_row(name, str(self.counts[name]))
        table.add_row("refused by the mail server", str(self._server.refusals))
        table.add_row("delivered", f"{len(self._server.mails)} of {self._messages}")
        return table


def add_everything(messages: list[app.Message], story: Story) -> None:
    """Notify of each message as it arrives, and add a job or two of every other kind."""
    app.remind.add_job("stand up", run_at=DELAY)
    for number in range(BOOKINGS):
        app.book.add_job(number)
    for name in ("Ad", "Ada", "Ada Brandt"):
        app.publish_profile.add_job({"name": name}, job_key="profile:ada", run_at=timedelta(seconds=1))
    app.charge.add_job({"card": "0000"})
    for message in messages:
        job = app.notify(message)
        story.counts["merged" if job.revision else "added"] += 1
        time.sleep(ARRIVAL)


def wait_until_done(queue: Queue, server: MailServer, messages: int) -> None:
    """Return when no job is left to run, or after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        left = [job for job in queue.jobs(limit=1000) if job.state != "failed"]
        if not left and len(server.mails) >= messages:
            return
        time.sleep(0.1)


def find_differences(messages: list[app.Message], mails: list[tuple[str, str]]) -> list[str]:
    """Compare what was sent with what arrived; one sentence for each mail missing, doubled or unexpected."""
    sent = Counter((message["to"], message["id"]) for message in messages)
    arrived = Counter(mails)
    missing = [f"{number} for {address} never arrived" for address, number in sent - arrived]
    return missing + [f"{number} for {address} arrived once too often" for address, number in arrived - sent]


def find_broken_promises(queue: Queue) -> list[str]:
    """Check the other jobs: order, delay, replacement, and the one that fails."""
    done = {task: [what for name, what in app.diary if name == task] for task in ("book", "publish_profile", "remind")}
    failed = [job.task_identifier for job in queue.jobs(state="failed")]
    checks = {
        f"the serial queue ran out of order: {done['book']}": done["book"] == list(range(BOOKINGS)),
        f"the replaced job ran as {done['publish_profile']}": done["publish_profile"] == ["Ada Brandt"],
        "the delayed job did not run once": len(done["remind"]) == 1,
        f"failed for good: {failed}": failed == ["charge"],
    }
    return [problem for problem, kept in checks.items() if not kept]


def main(database: str | None, schema: str | None = None) -> list[str]:
    """Run the demo and return what went wrong, one sentence each; [] when every message is accounted for."""
    console = Console()
    messages, queue = read_messages(), app.queue
    with installed(queue, database, schema), mail_server() as server:
        story = Story(server, len(messages))
        queue.events.subscribe(JobCompleted, story.completed)
        queue.events.subscribe(JobFailed, story.failed)
        with WorkerPool(queue, 4, poll_interval=0.5, helper_threads=8):
            with Live(story, console=console, refresh_per_second=8) if console.is_terminal else ExitStack():
                producer = threading.Thread(target=add_everything, args=(messages, story))
                producer.start()
                producer.join()
                wait_until_done(queue, server, len(messages))
        problems = find_differences(messages, server.mails) + find_broken_promises(queue)
        if not console.is_terminal:
            console.print(story)
    if not problems:
        console.print(f"All {len(messages)} messages of {MAILBOX.name} were delivered, each exactly once.")
    return problems


if __name__ == "__main__":
    found = main(os.environ.get("DATABASE_URL"))
    sys.exit("\n".join(found) or None)
