"""What somebody who watches `top` has chosen to see, and what each key changes about it; no terminal here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

import attrs

from graphile_worker_py import JobInfo, Progress
from graphile_worker_py._looks import Failure, RunningJob, Snapshot, TaskFigures
from graphile_worker_py.checks import LARGEST_ID

Pane = Literal["tasks", "jobs"]

# What tasks are sorted by, most first but for names.
ORDERS: tuple[tuple[str, Callable[[TaskFigures], float]], ...] = (
    ("ready", lambda task: task.ready),
    ("running", lambda task: task.running),
    ("waiting", lambda task: task.scheduled + task.retrying),
    ("failed", lambda task: task.failed),
    ("oldest", lambda task: task.oldest_ready or 0),
    ("done/s", lambda task: task.runs or 0),
    ("p95", lambda task: task.p95 or 0),
    ("task", lambda task: 0),
)
PAGE = 10  # rows that page up and page down move


@attrs.frozen
class Details:
    """What is known of one job: None where it has no row any more, and how far it is, if it tells."""

    id: int
    job: JobInfo | None
    progress: Progress | None


@attrs.frozen
class Silence:
    """Since when, by the clock of the server, there was no answer, and why."""

    since: datetime
    reason: str


@attrs.define
class View:
    """What is to be seen: at the foot `typing`, the answer to what it `asks`; `job`, the id of the one that is open."""

    task: str = ""
    order: int = 0
    ascending: bool = False
    pane: Pane = "tasks"
    shows_running: bool = False
    cursor: int = 0
    job: int | None = None
    scrolled: int = 0
    paused: bool = False
    helps: bool = False
    asks: Literal["task", "id"] | None = None
    typing: str = ""
    over: bool = False

    def tasks(self, snapshot: Snapshot) -> list[TaskFigures]:
        """Return the tasks to be seen, in their order."""
        found = [task for task in snapshot.tasks if self.task in task.task]
        _, key = ORDERS[self.order]
        if self.order_name == "task":
            return found[::-1] if self.ascending else found
        return sorted(found, key=key, reverse=not self.ascending)

    def jobs(self, snapshot: Snapshot) -> list[Failure] | list[RunningJob]:
        """Return the errors or the running jobs to be seen."""
        if self.shows_running:
            return [job for job in snapshot.running if self.task in job.task]
        return [failure for failure in snapshot.errors if self.task in failure.task]

    @property
    def order_name(self) -> str:
        """Return what tasks are sorted by."""
        return ORDERS[self.order][0]

    def press(self, key: str, snapshot: Snapshot) -> None:
        """Do what a key means."""
        if self.asks is not None:
            self._type(key)
        elif key == "q":
            self.over = True
        elif self.helps:
            self.helps = False
        elif key in SIMPLE:
            SIMPLE[key](self)
        elif key in MOVES:
            self._move(MOVES[key], snapshot)
        elif key == "enter" and self.job is None:
            self._open(snapshot)

    def _type(self, key: str) -> None:
        if key == "enter":
            self._answer()
        elif key == "escape":
            self.asks = None
        elif key == "backspace":
            self.typing = self.typing[:-1]
        elif key == "clear":
            self.typing = ""
        elif len(key) == 1 and (self.asks == "task" or (key.isdecimal() and key.isascii())):
            self.typing = (self.typing + key)[:128]

    def _answer(self) -> None:
        if self.asks == "task":
            self.task, self.cursor = self.typing, 0
        elif self.typing and 0 < int(self.typing) <= LARGEST_ID:
            self._see(int(self.typing))
        self.asks = None

    def _see(self, id: int) -> None:
        self.job, self.scrolled = id, 0

    def _move(self, by: int, snapshot: Snapshot) -> None:
        if self.job is not None:
            self.scrolled = max(0, self.scrolled + by)
            return
        rows = self.tasks(snapshot) if self.pane == "tasks" else self.jobs(snapshot)
        self.cursor = max(0, min(len(rows) - 1, self.cursor + by))

    def _open(self, snapshot: Snapshot) -> None:
        """Open the job under the cursor; of a task see only what is its."""
        if self.pane == "tasks":
            tasks = self.tasks(snapshot)
            if self.cursor < len(tasks):
                self.task, self.cursor = tasks[self.cursor].task, 0
            return
        jobs = self.jobs(snapshot)
        if self.cursor < len(jobs):
            chosen = jobs[self.cursor]
            self._see(chosen.id if isinstance(chosen, RunningJob) else chosen.job_id)

    def back(self) -> None:
        """Close the job; if none is open, see all tasks again."""
        if self.job is not None:
            self.job = None
        else:
            self.task, self.cursor = "", 0

    def ask(self, what: Literal["task", "id"]) -> None:
        """Let a task or a job's id be typed."""
        self.asks, self.typing = what, self.task if what == "task" else ""

    def next_order(self) -> None:
        """Sort tasks by the next figure."""
        self.order, self.cursor = (self.order + 1) % len(ORDERS), 0

    def turn(self) -> None:
        """Turn the order of the tasks around."""
        self.ascending = not self.ascending

    def pause(self) -> None:
        """Stay with the last look, or go on."""
        self.paused = not self.paused

    def next_pane(self) -> None:
        """Let the cursor go to the other table."""
        self.pane, self.cursor = "jobs" if self.pane == "tasks" else "tasks", 0

    def other_jobs(self) -> None:
        """See running jobs instead of errors, or the other way round."""
        self.shows_running, self.cursor = not self.shows_running, 0

    def help(self) -> None:
        """See what the keys mean."""
        self.helps = True


SIMPLE: dict[str, Callable[[View], None]] = {
    "escape": View.back,
    "/": lambda view: view.ask("task"),
    "o": lambda view: view.ask("id"),
    "s": View.next_order,
    "r": View.turn,
    "p": View.pause,
    " ": View.pause,
    "tab": View.next_pane,
    "e": View.other_jobs,
    "?": View.help,
    "h": View.help,
}
MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -PAGE, "page down": PAGE, "home": -(10**9), "end": 10**9}

# For people: the keys, and what they do.
KEYS = (
    ("q", "quit"),
    ("p, space", "pause, and go on"),
    ("s", "sort tasks by the next figure"),
    ("r", "turn the order around"),
    ("/", "see only tasks whose name holds what is typed; Esc ends that"),
    ("Tab", "go to the other table"),
    ("up, down", "move the cursor, or scroll a job; j and k too"),
    ("Enter", "open the job under the cursor; of a task, see only its own"),
    ("o", "open the job of an id"),
    ("e", "see running jobs instead of errors, and back"),
    ("Esc", "close the job; see all tasks"),
)
