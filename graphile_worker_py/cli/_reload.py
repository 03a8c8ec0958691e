"""`run --reload`, for development: a parent that watches files, and starts its worker anew when one has changed.

The worker is stopped as by SIGTERM: its jobs are let finish, for the grace. One that ends by itself, for a mistake in
the code for instance, is started again at the next change. It reads the settings itself, each time.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Iterable
from importlib.util import find_spec

import attrs

from graphile_worker_py import Health
from graphile_worker_py._service import next_of
from graphile_worker_py.cli._children import Child, exit_code, tell_of_signals
from graphile_worker_py.cli._configuration import OWN_FILE, PROJECT_FILE
from graphile_worker_py.cli._options import NotThere
from graphile_worker_py.cli._parent import Parent

logger = logging.getLogger(__name__)

MOST_NAMED = 3  # files in a line of the log
NOT_OURS = ("venv", "env", "site-packages")  # folders, beside those that watchfiles leaves out


@attrs.frozen
class Changed:
    """Files have changed; their paths."""

    paths: tuple[str, ...]


class Reloader:
    """Keeps one worker running on the newest files below the current directory, until it is stopped.

    What counts is Python, the files with settings, `files`, and all below `folders`. `reloads`: the worker reads its
    crontab again at SIGHUP. Raises NotThere where watchfiles is missing.
    """

    def __init__(self, files: Iterable[str], folders: Iterable[str], *, reloads: bool) -> None:
        if find_spec("watchfiles") is None:
            raise NotThere("--reload needs watchfiles: pip install 'graphile-worker-py[reload]'")
        self._files = {os.path.realpath(path) for path in (OWN_FILE, PROJECT_FILE, *files)}
        self._folders = tuple(os.path.realpath(path) + os.sep for path in folders)
        self._reloads = reloads
        self._news: queue.SimpleQueue[int | Child | Changed | Exception] = queue.SimpleQueue()
        self._child: Child | None = None
        self._code = 0
        self._outdated = False
        self._stopping = False
        self._unwatched = threading.Event()

    def run(self) -> int:
        """Return the exit code of the last worker."""
        tell_of_signals(self._news.put, reloads=self._reloads)
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        try:
            return self._run()
        finally:
            self._unwatched.set()
            watching.join()

    def _run(self) -> int:
        self._start()
        while True:
            news = next_of(self._news)
            if isinstance(news, Exception):
                raise NotThere(f"--reload: files cannot be watched: {news}") from news
            if isinstance(news, Changed):
                self._replace(news)
            elif isinstance(news, int):
                self._pass_on(news)
            else:
                self._child = None
                self._go_on(exit_code(news, told=self._stopping))
            if self._stopping and self._child is None:
                return self._code

    def health(self) -> Health:
        """Return the health of the worker; any thread may ask."""
        child = self._child
        if child is None:
            return Health(stopping=self._stopping, reasons=("the worker has ended: waiting for a change",))
        return attrs.evolve(child.health, stopping=self._stopping)

    def _start(self) -> None:
        self._child, self._outdated = Child(Parent(1), self._news.put), False

    def _replace(self, changed: Changed) -> None:
        """Let another worker take the place of this one, now or when it has ended; told twice, it would end at once."""
        if self._outdated or self._stopping:
            logger.debug("another change while the worker ends, in %s", _named(changed.paths))
            return
        logger.info("the worker is started anew, for a change in %s", _named(changed.paths))
        if self._child is None:
            self._start()
        else:
            self._outdated = True
            self._child.signal(signal.SIGTERM)

    def _go_on(self, code: int) -> None:
        """Start another worker after one that has ended, if there is a reason."""
        self._code = code
        if self._stopping:
            return
        if self._outdated:
            self._start()
        else:
            logger.warning("the worker has ended with %s: waiting for a change", code)

    def _pass_on(self, number: int) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP or not self._reloads
        if self._child is not None:
            self._child.signal(number)

    def _watch(self) -> None:
        import watchfiles

        class Ours(watchfiles.DefaultFilter):
            ignore_dirs = (*watchfiles.DefaultFilter.ignore_dirs, *NOT_OURS)

        not_hidden = Ours()

        def counts(change: watchfiles.Change, path: str) -> bool:
            return not_hidden(change, path) and self._counts(path)

        try:
            for changes in watchfiles.watch(
                os.getcwd(), watch_filter=counts, stop_event=self._unwatched, raise_interrupt=False
            ):
                self._news.put(Changed(tuple(sorted({path for _, path in changes}))))
        except Exception as error:  # of too many folders, for instance
            self._news.put(error)

    def _counts(self, path: str) -> bool:
        real = os.path.realpath(path)
        return path.endswith(".py") or real in self._files or real.startswith(self._folders)


def _named(paths: tuple[str, ...]) -> str:
    named = ", ".join(os.path.relpath(path) for path in paths[:MOST_NAMED])
    return f"{named} and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else named
