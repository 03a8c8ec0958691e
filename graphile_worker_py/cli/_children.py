"""Processes that `run` starts as children of its own: the same command again, told by the environment what it is.

A child leads a session of its own, so that Ctrl-C on a terminal reaches it once, through its parent: a second signal
would end the grace.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from graphile_worker_py.cli._parent import Parent


class Child:
    """A worker process; `on_end` is called with it, in a thread of its own, when it has ended.

    deaths: how often in a row its predecessors died young.
    """

    def __init__(self, handed_down: Parent, on_end: Callable[[Child], object], *, deaths: int = 0) -> None:
        self.number = handed_down.number
        self.deaths = deaths
        self.started_at = time.monotonic()
        self._link, theirs = socket.socketpair()
        with theirs:
            # As it was called, by whatever name and with whatever options of Python's.
            command = [sys.executable, *sys.orig_argv[1:]]
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - ourselves
                command, stdin=theirs.fileno(), env=handed_down.environment(), start_new_session=True
            )
        self._on_end = on_end
        threading.Thread(target=self._await, daemon=True).start()

    @property
    def code(self) -> int:
        """Return what it ended with; minus the number of the signal that killed it."""
        return self._process.returncode

    @property
    def age(self) -> float:
        """Return for how many seconds it has lived."""
        return time.monotonic() - self.started_at

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    def _await(self) -> None:
        self._process.wait()
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)  # what it has started may hold the other end
        self._link.close()
        self._on_end(self)
