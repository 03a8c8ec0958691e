"""Record the session of docs/command-line.md: `python tests/session.py` makes docs/session.svg.

The commands are run in a terminal, on jobs made for it. What differs from one run to the next (times, ages, the ids of
pools, where they run) is written as in the first; tests/test_session.py sees that all else is still so.
"""

from __future__ import annotations

import html
import io
import re
import sys
from datetime import timedelta
from pathlib import Path

from command_line import ALWAYS
from rich.console import Console
from rich.text import Text
from terminal import terminal

from graphile_worker_py import JobSpec, Queue, WorkerPool
from graphile_worker_py.embedded import EmbeddedPostgres

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "session.svg"
COLUMNS = 100
SESSION: tuple[tuple[list[str], str], ...] = (
    (["stats"], ""),
    (["jobs", "list", "--state", "failed"], ""),
    (["jobs", "show", "2"], ""),
    (["jobs", "run-now", "--state", "failed", "--error", "bank is closed"], "y\n"),
    (["queues"], ""),
    (["workers", "--json"], ""),
)
SAME = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "2026-03-02 09:15:00Z"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "2026-03-02T09:15:00.123456Z"),
    (r"\b\d+\.\d+s\b", "0.2s"),
    (r'"\S*session.py", line \d+', '"app/cards.py", line 12'),
    (r"pool-\w{18}", "pool-9f86d081884c7d659a"),
    (r'"host": "[^"]*", "pid": \d+, "version": "[^"]*"', '"host": "app-1", "pid": 4711, "version": "0.1.0"'),
)


def charge(payload: object) -> None:
    """Fail, as it does while the bank is closed."""
    raise ValueError("the bank is closed")


def prepare(queue: Queue) -> None:
    """Fill the queue: two jobs that failed, one that failed otherwise, and some that wait."""
    queue.migrate()
    queue.task("charge", max_attempts=1)(charge)
    queue.task("send_email", max_attempts=1)(lambda payload: {}["to"])
    queue.add_job("send_email", {"text": "Hello"})
    for card in (17, 18):
        queue.add_job("charge", {"card": card}, queue_name="cards", job_key=f"charge:{card}")
    queue.run_once(1)
    queue.add_jobs(
        JobSpec("charge", {"card": card}, queue_name="cards", run_at=timedelta(hours=1)) for card in (19, 20)
    )


def record(url: str) -> Text:
    """Run the session on an empty database, and return what a person sees."""
    seen = Text()
    with Queue(url) as queue, Queue(url) as mailing:
        prepare(queue)
        mailing.task("send_email")(lambda payload: None)
        with WorkerPool(mailing, 4):  # which does not run the charges, so that they can be seen to wait
            for arguments, keys in SESSION:
                seen.append(f"$ graphile-worker-py {' '.join(map(quoted, arguments))}\n", style="bold")
                seen.append_text(Text.from_ansi(shown(arguments, keys)))
                seen.append("\n\n")
    return seen


def quoted(argument: str) -> str:
    """Return an argument as it is typed."""
    return f'"{argument}"' if " " in argument else argument


def shown(arguments: list[str], keys: str) -> str:
    """Return what a command shows, with answers to its question, and all that differs written as ever."""
    with terminal(*arguments, columns=COLUMNS) as screen:
        if keys:
            screen.wait_for("[y/N]: ")
            screen.type(keys)
        _, text = screen.close()
    for pattern, same in SAME:
        text = re.sub(pattern, same, text)
    return text.rstrip("\n")


def drawn(seen: Text) -> str:
    """Return the session as an SVG that asks no other site for a font."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(seen)
    picture = console.export_svg(title="graphile-worker-py", unique_id="session")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)


def words(picture: str) -> list[str]:
    """Return the words in an SVG, in order, without what differs between versions of rich."""
    return html.unescape(" ".join(re.findall(r"<text[^>]*>(.*?)</text>", picture, re.S))).split()


def main() -> None:
    """Record the session with a server of its own."""
    with EmbeddedPostgres() as server:
        ALWAYS["DATABASE_URL"] = server.url
        PICTURE.write_text(drawn(record(server.url)), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
