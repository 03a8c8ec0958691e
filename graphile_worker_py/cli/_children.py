"""Processes that `run` starts as children of its own: the same command again, told by the environment what it is.

A child leads a session of its own, so that Ctrl-C on a terminal reaches it once, through its parent: a second signal
would end the grace.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import attrs

from graphile_worker_py import Health
from graphile_worker_py.cli._parent import Parent

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SILENCE = 60.0  # seconds; a child tells of itself once a second, and even an import lets it


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
        self._told: Health | None = None
        self._told_at = self.started_at
        threading.Thread(target=self._await, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def code(self) -> int:
        """Return what it ended with; minus the number of the signal that killed it."""
        return self._process.returncode

    @property
    def age(self) -> float:
        """Return for how many seconds it has lived."""
        return time.monotonic() - self.started_at

    @property
    def health(self) -> Health:
        """Return what it has told last of itself; it is not live if it is silent."""
        silence = time.monotonic() - self._told_at
        told = self._told or Health()
        if silence <= SILENCE:
            return told
        return attrs.evolve(told, live=False, ready=False, reasons=(f"silent for {silence:.0f} s",))

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    def _listen(self) -> None:
        with suppress(OSError), self._link, self._link.makefile("rb") as lines:
            for line in lines:
                with suppress(ValueError, TypeError, LookupError):  # torn, for this process was stopped for long
                    told = json.loads(line)
                    self._told = Health(**{**told, "reasons": tuple(told["reasons"])})
                    self._told_at = time.monotonic()

    def _await(self) -> None:
        self._process.wait()
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)  # what it has started may hold the other end
        self._on_end(self)


def exit_code(child: Child, *, told: bool = False) -> int:
    """Return the code that a child has ended with, as a shell counts; 0 for one that died of what it was told by."""
    code = child.code
    if told and -code in PASSED_ON:  # before it had a handler
        return 0
    return code if code >= 0 else 128 - code


def tell_of_signals(tell: Callable[[int], object], *, reloads: bool) -> None:
    """Call `tell` with each signal to stop, and SIGHUP; but one that nohup ignores where it would stop us."""
    for number in PASSED_ON:
        if number != signal.SIGHUP or reloads or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: tell(number))
