"""`run --processes N`: a parent that does no work, starts N worker processes, and starts anew what dies.

Signals are passed on as they come, so the children stop as one worker does; SIGHUP stops them where there is no crontab
to read again. A child that ended for a reason no further try can mend (a wrong command line, no schema, a task that is
not there) ends all. Should the parent be killed, they stop too.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading

import attrs

from graphile_worker_py import Health
from graphile_worker_py._service import next_of
from graphile_worker_py.cli._children import Child, exit_code, tell_of_signals
from graphile_worker_py.cli._configuration import Origins
from graphile_worker_py.cli._options import ExitCode
from graphile_worker_py.cli._parent import Parent

logger = logging.getLogger(__name__)

HOPELESS = (ExitCode.USAGE, ExitCode.NO_SCHEMA, ExitCode.TOO_NEW, ExitCode.NOT_THERE)
SETTLED = 30.0  # seconds: a child that lived so long is started anew at once
LONGEST_BACKOFF = 30.0


@attrs.frozen
class Vacancy:
    """A place whose child has died, when it is time for another."""

    number: int
    deaths: int


class Supervisor:
    """Starts so many children with this process's own command line and settings, and keeps them running until stopped.

    `reloads`: they have a crontab, and read it again at SIGHUP.
    """

    def __init__(self, processes: int, origins: Origins, *, once: bool, reloads: bool) -> None:
        self._origins = origins
        self._once = once
        self._reloads = reloads
        self._news: queue.SimpleQueue[int | Child | Vacancy] = queue.SimpleQueue()
        self._stopping = False
        self._codes: list[int] = []
        self._places: dict[int, Child | None] = dict.fromkeys(range(1, processes + 1))

    def run(self) -> int:
        """Return the exit code for all: the highest that a child ended with."""
        tell_of_signals(self._news.put, reloads=self._reloads)
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

    def health(self) -> Health:
        """Return the health of all together; any thread may ask."""
        children = list(self._places.items())
        told = [(child.number, child.health) for _, child in children if child is not None]
        reasons = [f"process {number}: {reason}" for number, one in told for reason in one.reasons]
        dead = [f"process {number}: it has died, and is started anew" for number, child in children if child is None]
        return Health(
            live=all(one.live for _, one in told),
            ready=not self._stopping and not dead and bool(told) and all(one.ready for _, one in told),
            stopping=self._stopping,
            running=sum(one.running for _, one in told),
            reasons=("stopping",) if self._stopping else (*dead, *reasons),
        )

    def _start(self, number: int, deaths: int) -> None:
        if self._stopping:
            del self._places[number]
            return
        handed_down = Parent(number, self._origins.file, self._origins.found)
        self._places[number] = Child(handed_down, self._news.put, deaths=deaths)

    def _pass_on(self, number: int) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP or not self._reloads
        for child in self._places.values():
            if child is not None:
                child.signal(number)

    def _bury(self, child: Child) -> None:
        code, young = child.code, child.age < SETTLED
        hopeless = code in HOPELESS or (code == ExitCode.UNREACHABLE and young and not child.deaths)
        if self._stopping or self._once or hopeless:
            del self._places[child.number]
            self._codes.append(exit_code(child, told=self._stopping))
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
