"""Watch: reports handlers that go on for long, with what their threads are doing.

Nothing is measured while jobs run: now and then the watch looks at which jobs the threads have, and remembers since
when it has seen each. So a report may come a quarter of the time too late, and costs nothing until then.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from graphile_worker_py._service import Service
from graphile_worker_py.events import Events, JobStuck
from graphile_worker_py.jobs import Job

CALLS_HANDLERS = str(Path(__file__).with_name("executor.py")), "_called"  # a file, and a function in it
LONGEST_PAUSE = 30.0  # seconds


class Watch(Service):
    """Tells of each job that runs for `after` seconds, then for twice as long, and so on.

    `at_work` returns the jobs that are running, with the identifiers of their threads.
    """

    def __init__(self, at_work: Callable[[], list[tuple[Job, int]]], *, after: float, events: Events) -> None:
        super().__init__("watch")
        self._at_work = at_work
        self._after = after
        self._events = events
        self._seen: dict[int, tuple[Job, float, float]] = {}  # by thread: its job, since when, when to tell of it

    def step(self) -> float | None:
        """Look once at all threads."""
        now = time.monotonic()
        before, self._seen = self._seen, {}
        for job, thread in self._at_work():
            seen, since, due = before.get(thread, (None, now, now + self._after))
            if seen is not job:
                since, due = now, now + self._after
            if now >= due:
                due = now + (now - since)
                self._tell(job, thread, now - since)
            self._seen[thread] = job, since, due
        return min(self._after / 4, LONGEST_PAUSE)

    def _tell(self, job: Job, thread: int, seconds: float) -> None:
        stack = stack_of(thread)
        if stack is not None and any(job is other for other, at in self._at_work() if at == thread):
            self._events.emit(JobStuck(job, seconds, stack))


def stack_of(thread: int) -> str | None:
    """Return a thread's stack from the handler on, as in a traceback: lines of code, no values. None: it has ended."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return None
    frames = traceback.extract_stack(frame)
    calls = [place for place, entry in enumerate(frames) if (entry.filename, entry.name) == CALLS_HANDLERS]
    return "".join(traceback.format_list(frames[calls[-1] + 1 :] if calls else frames))
