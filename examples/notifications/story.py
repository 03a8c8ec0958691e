"""What happens in the demo, counted and told while it happens, and summed up in a table at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mail_server import MailServer
from reckoning import Comparison
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from graphile_worker_py import Job, JobCompleted, JobFailed, JobLost, JobStarted, Queue

SUMMARY = {
    "added": "added",
    "merged into a waiting digest": "merged",
    "replaced before they ran": "replaced",
    "attempts run": "run",
    "completed": "completed",
    "to be retried": "retried",
    "items to be retried": "items retried",
    "failed for good": "failed for good",
}


class Screen(Console):
    """A console that says so when nobody reads it any more, where rich would end the thread it is in."""

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled."""
        raise  # noqa: PLE0704 - called while it is


class Story:
    """Counts jobs and says what becomes of them. On a terminal a table by person is kept up to date below the lines."""

    def __init__(self, console: Console, server: MailServer) -> None:
        self.counts: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()  # by person
        self._lock = threading.Lock()  # handlers are started in several threads
        self._console = console
        self._server = server
        self._began = time.monotonic()
        self._unheard: OSError | None = None

    def subscribe(self, queue: Queue) -> None:
        """Listen to what the worker does."""
        queue.events.subscribe(JobStarted, self.started)
        queue.events.subscribe(JobCompleted, self.completed)
        queue.events.subscribe(JobFailed, self.failed)
        queue.events.subscribe(JobLost, self.lost)

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of the counts."""
        with self._lock:
            self.counts[what] += number

    def added(self, job: Job, *, otherwise: str = "merged") -> None:
        """Count a job that was added; `otherwise` says what it did if it met one of its key that was waiting."""
        self.count(otherwise if job.revision else "added")

    def notified(self, job: Job, person: str) -> None:
        """Count a message that was put into a person's digest."""
        self.added(job)
        self.messages[person] += 1

    def started(self, event: JobStarted) -> None:
        """Count an attempt."""
        self.count("run")

    def completed(self, event: JobCompleted) -> None:
        """Count a job that is done."""
        self.count("completed")
        self.tell(f"{name(event.job)} sent")

    def failed(self, event: JobFailed) -> None:
        """Count an attempt that failed."""
        if event.job.attempts >= event.job.max_attempts:
            self.count("failed for good")
            self.tell(f"{name(event.job)} failed for good")
        else:
            self.count("retried")
            self.count("items retried", event.remaining or 1)
            self.tell(f"{name(event.job)}: {event.remaining or 1} refused, to be tried again")

    def lost(self, event: JobLost) -> None:
        """Count what should not happen here: somebody else took a job from this worker."""
        self.count("lost")

    def tell(self, what: str) -> None:
        """Write a line with the seconds since the beginning; what goes wrong is kept for `check`."""
        try:
            self.say(f"{time.monotonic() - self._began:5.1f} s  {what}")
        except OSError as error:
            self._unheard = error

    def check(self) -> None:
        """Raise what went wrong when a line was written, in whichever thread; the story needs a reader."""
        if self._unheard is not None:
            raise self._unheard

    def say(self, line: str) -> None:
        """Write a line."""
        self._console.print(line, markup=False, highlight=False)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the table on the terminal, if there is one."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self, console=self._console, refresh_per_second=8, transient=True):
            yield

    def __rich__(self) -> Table:
        table = Table("to", "messages", "mailed", "refused")
        mailed = Counter(mail.to for mail in list(self._server.mails))
        for person, messages in sorted(self.messages.copy().items()):
            table.add_row(first(person), str(messages), str(mailed[person]), str(self._server.refused[person]))
        return table

    def end(self, messages: int, comparison: Comparison) -> None:
        """Print what it all came to."""
        jobs = {label: self.counts[key] for label, key in SUMMARY.items()}
        mails = {
            "messages in the mailbox": messages,
            "other mails to be sent": comparison.expected - messages,
            "refused by the mail server": self._server.refused.total(),
            "delivered": comparison.delivered,
            "missing": len(comparison.missing),
            "duplicated": len(comparison.duplicated),
            "unexpected": len(comparison.unexpected),
        }
        self._console.print(counted(jobs, "Jobs"), counted(mails, "Mails"))


def counted(rows: Mapping[str, int], title: str) -> Table:
    """Return a table of names and numbers."""
    table = Table("", Column(justify="right"), title=title, title_justify="left", show_header=False, min_width=38)
    for label, number in rows.items():
        table.add_row(label, str(number))
    return table


def name(job: Job) -> str:
    """Return what to call a job: a digest by its reader, another mail by its subject."""
    if job.task_identifier == "send_digest":
        return f"digest of {len(job.payload)} to {first(job.payload[0]['to'])}"
    return f"{job.payload['subject']!r} to {first(job.payload['to'])}"


def first(address: str) -> str:
    """Return the part of an address before the @."""
    return address.partition("@")[0]
