"""Small programs for the tests of executable tasks, and what is said about them in the log."""

from __future__ import annotations

import logging
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphile_worker_py import Job, Queue, executable_tasks

SHEBANG = "#!/bin/sh\n"

# Writes what it was given, as JSON, into the file named by $DUMP.
DUMP = """
import json, os, sys
given = {name: value for name, value in os.environ.items() if name.startswith("GRAPHILE_WORKER_")}
text = sys.stdin.buffer.read().decode()
dump = {"environment": given, "arguments": sys.argv[1:], "folder": os.getcwd(), "input": text}
with open(os.environ["DUMP"], "w") as file:
    json.dump(dump, file)
"""


def program(folder: Path, name: str, text: str, *, mode: int = 0o755) -> Path:
    """Write a shell script, and folders up to it that nobody else may write, whatever the umask is."""
    path = folder / name
    for parent in [path.parent, *path.parent.parents]:
        if parent == folder.parent:
            break
        parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        parent.chmod(0o755)
    path.write_text(SHEBANG + text)
    path.chmod(mode)
    return path


def python_program(folder: Path, name: str, text: str) -> Path:
    """Write a Python script that runs in the interpreter of the tests, wherever that is."""
    body = folder.parent / f"{name.replace('/', '-')}.body"
    body.write_text(text)
    return program(folder, name, f'exec {shlex.quote(sys.executable)} {shlex.quote(str(body))} "$@"\n')


def run_program(queue: Queue, folder: Path, payload: object = None) -> str | None:
    """Run one job of the task x of a folder, and return its last_error."""
    queue.include(executable_tasks(folder))
    job = queue.add_job("x", payload)
    queue.run_once(1)
    return last_error(queue, job)


def last_error(queue: Queue, job: Job) -> str | None:
    """Return what is stored about a job that failed; None if it was done."""
    stored = queue.job(job.id)
    return stored.last_error if stored else None


class Log(logging.Handler):
    """What programs print, as it is logged: (level, line), in order."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[str, str]] = []
        self._news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._news:
            self.lines.append((record.levelname, record.getMessage()))
            self._news.notify_all()

    def wait_for(self, line: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(said == line for _, said in self.lines), timeout=30)

    def of(self, level: str) -> list[str]:
        return [line for said, line in self.lines if said == level]


@contextmanager
def listening() -> Iterator[Log]:
    """Yield a log of all executable tasks; nothing of it reaches other handlers."""
    log, logger = Log(), logging.getLogger("graphile_worker_py.task")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield log
    finally:
        logger.removeHandler(log)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
