"""A terminal for the tests: a program that runs in a pseudo-terminal of so many columns, and what it shows there."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from command_line import COMMAND, DEADLINE, environment

# Makes the terminal that of the new session, so that Ctrl-C is a signal, and becomes the program.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """The program of a command line in a pseudo-terminal; standard error is there too, as a person sees it."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self._process = process
        self._end = end
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until a text is shown."""
        until = time.monotonic() + DEADLINE
        while text not in self.shown:
            assert self._read(until), f"{text!r} is not in {self.shown!r}"

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: the terminal's own keys send none, for the program is not in its foreground."""
        self._process.send_signal(number)

    def interrupt(self, answer: str) -> None:
        """Press Ctrl-C until this is shown; Python loses one that comes right before it reads from the terminal."""
        while answer not in self.shown:
            self.type("\x03")
            until = time.monotonic() + 2
            while answer not in self.shown and self._read(until):
                pass

    def close(self) -> tuple[int, str]:
        """Read to the end of the program; return its exit code and all that was shown, with ordinary line ends."""
        until = time.monotonic() + DEADLINE
        while self._read(until):
            pass
        return self._process.wait(DEADLINE), self.shown.replace("\r\n", "\n")

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], max(0, until - time.monotonic()))
        try:
            data = os.read(self._end, 65536) if ready else b""
        except OSError as error:  # Linux says so where the program has ended
            if error.errno != errno.EIO:
                raise
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)


@contextmanager
def terminal(*arguments: str, columns: int = 100, **more: Any) -> Iterator[Terminal]:
    """Run graphile-worker-py in a terminal; `more` are further environment variables."""
    end, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-ISc", TAKE_TERMINAL, *COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**{"TERM": "xterm", **more}),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, end)
    finally:
        process.kill()
        process.wait()
        os.close(end)


def on_a_terminal(*arguments: str, columns: int = 100, **more: Any) -> tuple[int, str]:
    """Run a command in a terminal to its end; return its exit code and what was shown."""
    with terminal(*arguments, columns=columns, **more) as screen:
        return screen.close()
