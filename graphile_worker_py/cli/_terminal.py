"""The terminal as a screen of its own and a keyboard, which is left as it was found, however the program ends.

Signals only set flags here, and wake whoever waits for a key: drawing is never interrupted in the middle. Ctrl-Z gives
the terminal back before the process stops, and takes it again when the shell lets it go on.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import selectors
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live

# What terminals send for keys that are no characters, after the escape.
SEQUENCES = {
    "[A": "up",
    "OA": "up",
    "[B": "down",
    "OB": "down",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "OH": "home",
    "[F": "end",
    "OF": "end",
    "[Z": "tab",
}
CONTROLS = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\b": "backspace", "\x15": "clear"}
KEY = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]?|O.?)|.", re.S)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)  # Ctrl-C, kill, Ctrl-\
ESCAPE = 0.05  # seconds after which an escape is a key by itself, and no beginning


def keys_of(text: str) -> Iterator[str]:
    """Yield the keys that a terminal means by what it has sent: characters, or names; pass over what is unknown."""
    for key in KEY.finditer(text):
        if key[1] is not None:
            if name := SEQUENCES.get(key[1]):
                yield name
        elif key[0] == "\x1b":
            yield "escape"
        elif key[0] in CONTROLS:
            yield CONTROLS[key[0]]
        elif key[0].isprintable():
            yield key[0]


class Terminal:
    """Takes the terminal of standard input and output in a `with` block.

    `key(seconds)` waits for a key, `show` draws. Any thread may `wake` who waits for a key. `ended_by` is the number of
    the signal that asks the program to end, 0 before.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # what its encoding lacks is no error, and stays one column wide
        self.console = Console(markup=False, highlight=False, emoji=False)
        self.ended_by = 0
        self._stops = self._continued = False
        self._keyboard = sys.stdin.fileno()
        self._settings = termios.tcgetattr(self._keyboard)
        self._typed: list[str] = []
        self._before: dict[signal.Signals, Any] = {}
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._writing = -1

    def __enter__(self) -> Terminal:
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._keyboard, selectors.EVENT_READ)
        self._selector.register(self._reading, selectors.EVENT_READ)
        self._woken_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (*ENDING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH):
            self._before[number] = signal.signal(number, self._on_signal)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._give_back()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._woken_before)
            self._selector.close()
            with self._lock:
                os.close(self._reading)
                os.close(self._writing)
                self._writing = -1

    @property
    def size(self) -> tuple[int, int]:
        """Return how many columns and rows there are now; what the environment says of them is no longer so."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return columns or 80, rows or 24

    def show(self, drawing: RenderableType) -> None:
        """Draw what is to be seen now."""
        if self._live is not None:
            self.console.size = ConsoleDimensions(*self.size)
            self._live.update(drawing, refresh=True)

    def key(self, seconds: float) -> str | None:
        """Return the next key; None after so many seconds, when woken, or when the size of the terminal has changed."""
        if not self._typed:
            ready = {key.fd for key, _ in self._selector.select(max(0.0, seconds))}
            if self._reading in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._reading, 4096)
            if self._keyboard in ready:
                self._typed = list(keys_of(self._read()))
            self._heed()
        return self._typed.pop(0) if self._typed else None

    def wake(self) -> None:
        """Let key() return."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full: there is a reason to wake already
            if self._writing >= 0:
                os.write(self._writing, b"\0")

    def _read(self) -> str:
        """Return what was typed; nobody can type any more where the terminal is gone, which ends the program."""
        try:
            data = os.read(self._keyboard, 4096)
            if data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and select.select([self._keyboard], [], [], ESCAPE)[0]:
                data += os.read(self._keyboard, 4096)
        except OSError:
            data = b""
        if not data:
            self.ended_by = self.ended_by or signal.SIGHUP
        return data.decode("utf-8", errors="ignore")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in ENDING:
            self.ended_by = self.ended_by or number
        elif number == signal.SIGTSTP:
            self._stops = True
        elif number == signal.SIGCONT:
            self._continued = True

    def _heed(self) -> None:
        """Stop, or go on, as a signal has asked."""
        if self._stops:
            self._stops = False
            self._give_back()
            before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # here the process stops
            signal.signal(signal.SIGTSTP, before)
            self._take()
        elif self._continued:  # it was stopped by SIGSTOP, and somebody else had the terminal meanwhile
            self._give_back()
            self._take()
        self._continued = False

    def _take(self) -> None:
        self._settings = termios.tcgetattr(self._keyboard)
        tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._live = Live(
            console=self.console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()

    def _give_back(self) -> None:
        live, self._live = self._live, None
        try:
            if live is not None:
                live.stop()
        finally:
            with contextlib.suppress(termios.error):  # the terminal may be gone
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._settings)
