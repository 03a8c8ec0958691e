"""Executable tasks: a folder of programs, run as Node's worker runs those in its tasks/ folder.

A program may be written in anything. Its place below the folder is the task's identifier: `mail/send.py` works on the
jobs of `mail/send`. It gets no arguments, the job in environment variables, and its payload as JSON on standard input;
what it prints is logged; exit code 0 is success. Names, variables and input are Node's, so one folder serves both.

What differs is listed in docs/executable-tasks.md, the chief thing here: whoever can write what is run here is, in
effect, the worker. So nothing is run that a user other than root and the worker's own may change.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import signal
import stat
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import attrs

from graphile_worker_py import _processes
from graphile_worker_py._grip import shielded
from graphile_worker_py.errors import DuplicateTask, ExecutableFailed, UnknownTask, UnsafeExecutable
from graphile_worker_py.jobs import Job
from graphile_worker_py.tasks import Tasks

logger = logging.getLogger(__name__)

TIMEOUT = timedelta(hours=4)  # Node's; after as long a job's lock is taken to be stale, so it must not be longer

FOLDER_NAME = re.compile(r"[A-Za-z0-9_-]+")
FILE_NAME = re.compile(r"([A-Za-z0-9_-]+)((?:\.[A-Za-z0-9_-]+)*)")
MODULES = (".js", ".cjs", ".mjs", ".ts", ".mts")  # what Node's worker imports, whether it may be executed or not


class _Context(Protocol):
    """What a program's run needs of a handler's context."""

    job: Job
    told: Exception | None

    @property
    def cancelled(self) -> threading.Event: ...

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]: ...


def executable_tasks(folder: str | os.PathLike[str], *, timeout: timedelta = TIMEOUT) -> Tasks:
    """Return the executables of a folder as tasks, for `queue.include`; the identifier is the path without extension.

    timeout: how long one may run, at most 4 hours. The folder is read once, now. Raises UnsafeExecutable where others
    may write what would be run or a folder it lies in, DuplicateTask for two of one identifier, UnknownTask where there
    is none, and OSError where the folder cannot be read.
    """
    if not timedelta(0) < timeout <= TIMEOUT:
        raise ValueError(f"timeout: expected more than 0 and at most {TIMEOUT}, the age at which locks are cleared")
    root = Path(folder).resolve(strict=True)
    found = _Folder()
    found.read(root, prefix="")
    _refuse_unsafe([*found.folders, *found.executables.values()])
    if not found.executables:
        raise UnknownTask(f"no executable task in {root}: put programs there and chmod u+x them")
    tasks = Tasks()
    for identifier, path in sorted(found.executables.items()):
        tasks.task(identifier)(_Executable(str(path), timeout.total_seconds()))
    return tasks


class _Folder:
    """What a folder holds: executables by identifier, and every folder that was looked into."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.executables: dict[str, Path] = {}

    def read(self, folder: Path, *, prefix: str) -> None:
        """Add what is in this folder and those below it; links to folders are not followed, as Node does not."""
        self.folders.append(folder)
        entries = sorted(folder.iterdir())
        modules = {_identifier(entry) for entry in entries if "".join(entry.suffixes) in MODULES}
        for entry in entries:
            is_folder = entry.is_dir()
            if is_folder and FOLDER_NAME.fullmatch(entry.name) and not entry.is_symlink():
                self.read(entry, prefix=f"{prefix}{entry.name}/")
            elif is_folder or not FILE_NAME.fullmatch(entry.name):
                logger.info("%s is no task: its name is not one, or it is a link to a folder", entry)
            elif _identifier(entry) in modules:
                logger.info("%s is left to Node's worker, which imports the JavaScript of this name", entry)
            else:
                self._add(f"{prefix}{_identifier(entry)}", entry.resolve(strict=True))

    def _add(self, identifier: str, path: Path) -> None:
        if not _is_executable(path):
            logger.warning("%s is no task: it is not a file that this user, and its owner, may execute", path)
        elif identifier in self.executables:
            raise DuplicateTask(f"{self.executables[identifier]} and {path} are both task {identifier!r}: rename one")
        else:
            self.executables[identifier] = path


@attrs.frozen
class _Executable:
    """The handler of one executable task."""

    path: str
    timeout: float

    def __call__(self, payload: Any, ctx: _Context) -> None:
        log = ctx.logger
        self._check()
        try:
            with shielded:  # whoever cancels the job has the program stopped, and an exception would leave it running
                end = _processes.run(
                    self.path,
                    b'{"payload":%b}' % ctx.job.raw_payload.encode(),
                    environment=_environment(ctx.job),
                    hear=(lambda line: log.info("%s", line), lambda line: log.error("%s", line)),
                    cancelled=ctx.cancelled,
                    timeout=self.timeout,
                )
        except ChildProcessError as error:
            raise ExecutableFailed(
                "Process ended, but its exit code was lost: this worker ignores SIGCHLD, or waits for any child"
            ) from error
        except OSError as error:
            raise ExecutableFailed(f"{self.path} cannot be run: {_explain(error)}") from error
        if problem := self._problem(end, ctx.told):
            raise ExecutableFailed(problem)

    def _check(self) -> None:
        """Look at the file again: it may have been there, and safe, when the worker started."""
        path = Path(self.path)
        if not path.exists():
            raise ExecutableFailed(f"{path} is not there any more")
        if not _is_executable(path):
            raise ExecutableFailed(f"{path} is not an executable file any more: run chmod u+x {shlex.quote(self.path)}")
        _refuse_unsafe([path])

    def _problem(self, end: _processes.End, told: Exception | None) -> str | None:
        if end.stopped == "timeout":
            return f"Process was stopped: it ran for longer than {timedelta(seconds=self.timeout)}"
        if end.stopped == "cancelled":
            return f"Process was stopped: {told}" if told else "Process was stopped with its worker"
        if end.code < 0:
            return f"Process was killed by {_signal_name(-end.code)}"
        return f"Process exited with code {end.code}" if end.code else None


def _identifier(path: Path) -> str:
    return path.name.split(".", 1)[0]


def _is_executable(path: Path) -> bool:
    """Say whether it is a file that its owner may execute, which is what Node looks at, and that we can."""
    return path.is_file() and bool(path.stat().st_mode & stat.S_IXUSR) and os.access(path, os.X_OK)


def _environment(job: Job) -> dict[bytes, bytes]:
    """Return our own environment and the variables that Node's worker sets; as UTF-8, whatever the locale is."""
    variables = {
        "PAYLOAD_FORMAT": "json",
        "TASK_IDENTIFIER": job.task_identifier,
        "JOB_ID": job.id,
        "JOB_KEY": job.key,
        "JOB_ATTEMPTS": job.attempts,
        "JOB_MAX_ATTEMPTS": job.max_attempts,
        "JOB_PRIORITY": job.priority,
        "JOB_RUN_AT": job.run_at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    ours = {f"GRAPHILE_WORKER_{name}".encode(): value for name, value in variables.items()}
    inherited = {name: value for name, value in os.environb.items() if name not in ours}
    return inherited | {name: str(value).encode() for name, value in ours.items() if value is not None}


def _explain(error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return "it is no program for this machine, and a script begins with a line such as #!/bin/sh"
    if error.errno == errno.ENOENT:
        return "the interpreter that its first line or its header names is not there"
    return error.strerror or str(error)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _refuse_unsafe(paths: Iterable[Path]) -> None:
    """Raise UnsafeExecutable, with the commands that mend it, if others may write any of these or put another there.

    The last is up to the folders above: who may write one may rename what is in it, unless it is sticky, as /tmp is.
    """
    given = set(paths)
    above = {parent for path in given for parent in path.parents} - given
    writable, foreign = [], []
    for path in sorted(given | above):
        info = path.stat()
        sticky = path in above and info.st_mode & stat.S_ISVTX
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            writable.append(path)
        if info.st_uid not in (0, os.geteuid()):
            foreign.append(path)
    if writable or foreign:
        raise UnsafeExecutable("; ".join(_mend(writable, foreign)))


def _mend(writable: list[Path], foreign: list[Path]) -> Iterator[str]:
    if writable:
        yield f"other users may write what would be run as a task, or its folder: run chmod go-w {_join(writable)}"
    if foreign:
        yield f"another user owns what would be run as a task, or its folder: run chown root {_join(foreign)}"


def _join(paths: list[Path]) -> str:
    return shlex.join(map(str, paths))
