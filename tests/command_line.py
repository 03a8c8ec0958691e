"""Run graphile-worker-py as its users do: the real program, in a process of its own."""

from __future__ import annotations

import os
import queue as queues
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest

from graphile_worker_py.cli import main

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "graphile_worker_py"]
DEADLINE = 30.0  # seconds; whatever is waited for takes far less

JOBS = """
from pathlib import Path
from graphile_worker_py import Queue, Tasks

queue = Queue()
tasks = Tasks()
number = 3

class jobs:
    queue = queue

@queue.task
@tasks.task
def note(payload):
    print("note", payload, flush=True)

@queue.task(max_attempts=1)
def fail(payload):
    raise ValueError("secret")

@queue.task
def fail_once(payload):
    raise ValueError("later")

@queue.task
def wait(payload):
    print("waiting", flush=True)
    Path(payload).read_text()  # a named pipe: until somebody opens its other end
    print("waited", flush=True)
"""


ALWAYS: dict[str, str] = {}  # further environment variables, which a module's fixture may set


def environment(**more: str) -> dict[str, str]:
    home = os.environ.get("HOME", "/")
    return {"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": str(ROOT), **ALWAYS, **more}


def graphile(*arguments: str, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `more` are further environment variables."""
    options = {
        "cwd": cwd,
        "env": environment(**options.pop("more", {})),
        "input": "",
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "timeout": DEADLINE,
        **options,
    }
    return subprocess.run([*COMMAND, *arguments], text=True, check=False, **options)


def in_process(capsys: pytest.CaptureFixture[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: for the many that are refused at once, and alike in both."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    output, errors = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), output, errors)


def assert_error(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """Check that a command ended with this code and with one line that says what happened."""
    assert (done.returncode, done.stdout or "") == (code, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: "), line
    for text in texts:
        assert text in line


def with_jobs(folder: Path) -> Path:
    """Write a module jobs into a folder, make a named pipe called gate beside it, and return the folder."""
    (folder / "jobs.py").write_text(JOBS)
    os.mkfifo(folder / "gate")
    return folder


class Daemon:
    """A worker in a process of its own, whose lines on standard output can be waited for."""

    def __init__(self, folder: Path, *arguments: str, more: dict[str, str] | None = None) -> None:
        self._errors = (folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            [*COMMAND, "run", *arguments],
            cwd=folder,
            env=environment(**more or {}),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # so that a test can do what Ctrl-C on a terminal does
        )
        self._lines: queues.SimpleQueue[str] = queues.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def next_line(self) -> str:
        return self._lines.get(timeout=DEADLINE)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: the whole group gets the signal, what the daemon has started too."""
        os.killpg(self._process.pid, signal.SIGINT)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written to standard error."""
        code = self._process.wait(DEADLINE)
        self._errors.seek(0)
        return code, self._errors.read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


def options_of(command: click.Command) -> set[str]:
    """Return the options of a command and of those below it."""
    options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        below = [command.get_command(context, name) for name in command.list_commands(context)]
        options = options.union(*(options_of(one) for one in below if one is not None))
    return options


def listeners(db: psycopg.Connection) -> int:
    """Return how many connections to this database listen: a daemon that was told to stop does not any more."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
    (count,) = db.execute(query).fetchone() or (0,)
    return count


def locks(db: psycopg.Connection) -> list[tuple[bool, int]]:
    """Return for each job whether it is locked, and its attempts."""
    return db.execute("select locked_at is not null, attempts from graphile_worker.jobs order by id").fetchall()


@contextmanager
def server_that_asks_for_a_password() -> Iterator[int]:
    """Speak just enough of PostgreSQL's protocol to refuse a password; the tests' own server may trust everybody."""
    refusal = b'SFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.recv(1000)
                client.sendall(b"R\0\0\0\x08\0\0\0\x03")
                client.recv(1000)
                client.sendall(b"E" + (len(refusal) + 4).to_bytes(4, "big") + refusal)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@contextmanager
def closed_pipe() -> Iterator[int]:
    """Yield the writing end of a pipe that nobody reads, as `| head` leaves it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)
