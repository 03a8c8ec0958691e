"""A program of ours in a pseudo-terminal, and the screen that its user would see, as pyte draws it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import pyte
from command_line import COMMAND, DEADLINE, environment

ALTERNATE = re.compile(rb"\x1b\[\?1049([hl])")

# What a shell does about the one program that it runs.
SHELL = (
    sys.executable,
    "-c",
    """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
pid = os.fork()
if not pid:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    print("stopped", flush=True)
    input()
    os.tcsetpgrp(0, pid)
    os.killpg(pid, signal.SIGCONT)
""",
)


class Screen:
    """Runs `graphile-worker-py` with these arguments, in a terminal of so many columns and rows.

    `job_control`: under a shell, which says "stopped" when it is, and lets it go on after a line was typed.
    """

    def __init__(
        self,
        *arguments: str,
        size: tuple[int, int] = (80, 24),
        more: Mapping[str, str] | None = None,
        job_control: bool = False,
    ) -> None:
        self._pyte = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._pyte)
        self._ours, self._theirs = pty.openpty()
        self.sent = b""
        self.resize(*size)
        self.settings = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            [*(SHELL if job_control else ()), *COMMAND, *arguments],
            env=environment(TERM="xterm-256color", **(more or {})),
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - before there are threads
        )

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    @property
    def lines(self) -> list[str]:
        """Return what is to be seen, line by line."""
        return [line.rstrip() for line in self._pyte.display]

    @property
    def text(self) -> str:
        """Return what is to be seen."""
        return "\n".join(self.lines)

    @property
    def is_taken(self) -> bool:
        """Say whether the program shows a screen of its own, and whoever started it would not see theirs."""
        switches = ALTERNATE.findall(self.sent)
        return bool(switches) and switches[-1] == b"h"

    @property
    def as_found(self) -> bool:
        """Say whether the terminal has the settings it was found with, its own screen, and a cursor."""
        settings = termios.tcgetattr(self._theirs)
        return settings == self.settings and not self.is_taken and not self._pyte.cursor.hidden

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as somebody who pulls at its window."""
        self._pyte.resize(rows, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        self.process.send_signal(number)

    def until(self, wanted: str | Callable[[], object], *, seconds: float = DEADLINE) -> str:
        """Watch until a pattern is to be seen, or something else has come true; return what is to be seen."""
        deadline = time.monotonic() + seconds
        come_true = (lambda: re.search(wanted, self.text)) if isinstance(wanted, str) else wanted
        while not come_true():
            assert time.monotonic() < deadline, f"waited for {wanted!r} in vain:\n{self.text}"
            self._draw(0.02)
        return self.text

    def end(self) -> int:
        """Watch until the program has ended; return its exit code."""
        self.until(lambda: self.process.poll() is not None)
        while self._draw(0):
            pass
        return self.process.returncode

    def _draw(self, seconds: float) -> bool:
        """Draw what has come within so many seconds, if anything."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        data = os.read(self._ours, 65_536)
        self.sent += data
        self._stream.feed(data)
        return True
