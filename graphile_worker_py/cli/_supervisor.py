"""`run --processes N`: a parent that does no work, starts N worker processes, and starts anew what dies.

Signals are passed on as they come, so the children stop as one worker does; SIGHUP stops them where there is no crontab
to read again. A child that ended for a reason no further
try can mend (a wrong command line, no schema, a task that is not there) ends all. Children hold the other end of a pipe
from the parent: should it be killed, they stop too.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import attrs

from graphile_worker_py._service import next_of
from graphile_worker_py.cli._options import ExitCode

logger = logging.getLogger(__name__)

SUPERVISED = "GRAPHILE_WORKER_SUPERVISED"
HOPELESS = (ExitCode.USAGE, ExitCode.NO_SCHEMA, ExitCode.TOO_NEW, ExitCode.NOT_THERE)
OPTION = "--processes"
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SETTLED = 30.0  # seconds: a child that lived so long is started anew at once
LONGEST_BACKOFF = 30.0


@attrs.define(eq=False)
class Child:
    """A worker process, and how often in a row its predecessors and it died young."""

    number: int
    process: subprocess.Popen[bytes]
    started_at: float
    deaths: int


@attrs.frozen
class Vacancy:
    """A place whose child has died, when it is time for another."""

    number: int
    deaths: int


class Supervisor:
    """Starts `processes` children with this process's own arguments, and keeps them running until stopped.

    `reloads`: they have a crontab, and read it again at SIGHUP.
    """

    def __init__(self, processes: int, *, once: bool, reloads: bool) -> None:
        self._command = [sys.executable, "-m", "graphile_worker_py", *_without(OPTION, sys.argv[1:])]
        self._once = once
        self._reloads = reloads
        self._news: queue.SimpleQueue[int | Child | Vacancy] = queue.SimpleQueue()
        self._stopping = False
        self._codes: list[int] = []
        self._places: dict[int, Child | None] = dict.fromkeys(range(1, processes + 1))

    def run(self) -> int:
        """Return the exit code for all: the highest that a child ended with."""
        for number in PASSED_ON:
            if number != signal.SIGHUP or self._reloads or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
                signal.signal(number, lambda number, frame: self._news.put(number))
        for place in self._places:
            self._start(place, 0)
        while self._places:
            news = next_of(self._news)
            if isinstance(news, Child):
                self._bury(news)
            elif isinstance(news, Vacancy):
                self._start(news.number, news.deaths)
            else:
                self._pass_on(news)
        return max(self._codes, default=0)

    def _start(self, number: int, deaths: int) -> None:
        if self._stopping:
            del self._places[number]
            return
        environment = {**os.environ, SUPERVISED: str(number)}
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - ourselves
        child = self._places[number] = Child(number, process, time.monotonic(), deaths)
        threading.Thread(target=self._await, args=(child,), daemon=True).start()

    def _await(self, child: Child) -> None:
        child.process.wait()
        self._news.put(child)

    def _pass_on(self, number: int) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP or not self._reloads
        for child in self._places.values():
            if child is not None:
                child.process.send_signal(number)

    def _bury(self, child: Child) -> None:
        code = child.process.returncode
        if child.process.stdin is not None:
            child.process.stdin.close()
        young = time.monotonic() - child.started_at < SETTLED
        hopeless = code in HOPELESS or (code == ExitCode.UNREACHABLE and young and not child.deaths)
        if self._stopping or self._once or hopeless:
            del self._places[child.number]
            told = self._stopping and -code in PASSED_ON  # before it had a handler: that is what was asked of it
            self._codes.append(0 if told else code if code >= 0 else 128 - code)
            if hopeless and not self._stopping:
                self._pass_on(signal.SIGTERM)
            return
        deaths = child.deaths + 1 if young and code else 0
        delay = min(LONGEST_BACKOFF, 0.25 * 2**deaths) if deaths else 0.0
        logger.warning("worker process %s ended with %s: starting another in %.1f s", child.number, code, delay)
        self._places[child.number] = None
        timer = threading.Timer(delay, self._news.put, [Vacancy(child.number, deaths)])
        timer.daemon = True
        timer.start()


def _without(option: str, arguments: Sequence[str]) -> list[str]:
    """Return arguments without an option and its value, whether it is one word or two."""
    kept = [argument for argument in arguments if not argument.startswith(f"{option}=")]
    if option in kept:
        place = kept.index(option)
        del kept[place : place + 2]
    return kept


def stop_with_the_parent() -> None:
    """In a child: end as on SIGTERM once the parent is gone, however it went."""
    if os.environ.pop(SUPERVISED, None):  # what a job starts is not supervised
        threading.Thread(target=_wait_for_the_end_of_input, name="parent", daemon=True).start()


def _wait_for_the_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
