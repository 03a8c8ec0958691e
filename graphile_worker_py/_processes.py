"""A program run as a child process: fed, heard line by line, and ended with all it has started.

The child leads a session of its own, so that one signal reaches all it has started, and Ctrl-C on the worker's
terminal does not: it may finish within the grace, like any handler. Nothing here blocks on a pipe, for a child may read
nothing, write without end, or leave a process behind that holds the pipes open. subprocess runs no Python between fork
and exec, which is what makes it safe among threads.
"""

from __future__ import annotations

import atexit
import codecs
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import IO, Literal

import attrs

KILL_AFTER = 5.0  # seconds from SIGTERM to SIGKILL
LINGER = 1.0  # seconds that what a child left behind is still listened to
CHUNK = 65_536  # bytes: what a pipe holds, unless somebody makes it larger
LONGEST_LINE = 16_384  # characters; longer ones are told in pieces, so that memory is bounded
FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.1  # seconds between looks at a child that is silent

Hear = Callable[[str], object]


@attrs.frozen
class End:
    """How a child ended: its exit code, minus the signal's number if it died of one, and why it was stopped, if so."""

    code: int
    stopped: Literal["cancelled", "timeout"] | None


def run(
    path: str,
    data: bytes,
    *,
    environment: Mapping[bytes, bytes],
    hear: tuple[Hear, Hear],
    cancelled: threading.Event,
    timeout: float,
) -> End:
    """Run a program with `data` as its standard input, and return how it ended.

    hear: called with each line of standard output, and of standard error, in this thread. When `cancelled` is set, or
    `timeout` seconds are over, the child and all it has started get SIGTERM, and SIGKILL after KILL_AFTER. Raises
    OSError where the program cannot be started, and ChildProcessError where somebody else took its exit code.
    """
    process = subprocess.Popen(  # noqa: S603 - its caller has looked at who may write the file
        [path],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    with _among_the_running(process), closing(_Pipes(process, data, hear)) as pipes:
        stopped = _attend(process, pipes, cancelled=cancelled, ends=time.monotonic() + timeout)
        if stopped:
            _stop(process, pipes)
    return End(process.returncode, stopped)


def end_all() -> None:
    """Kill every child of this process, and what they have started: for a process that ends right after."""
    with _lock:
        for process in _running:
            _signal_group(process, signal.SIGKILL)


def time_to_end() -> float:
    """Return within how many seconds of their cancellation all children will have ended; 0 if there is none."""
    return KILL_AFTER + 2 * LINGER if _running else 0.0


_lock = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()
atexit.register(end_all)  # a child must not go on beside the next holder of its job
os.register_at_fork(after_in_child=_running.clear)  # they are not the children of a fork, and not its to kill


@contextmanager
def _among_the_running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let end_all() know of a child; whatever goes wrong in the block, the child has ended after it, its pipes too."""
    with _lock:
        _running.add(process)
    try:
        yield
    finally:
        if process.returncode is None:
            _signal_group(process, signal.SIGKILL)
            with suppress(ChildProcessError):
                while not _ended(process):
                    time.sleep(FIRST_PAUSE)
        with _lock:
            _running.discard(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _attend(
    process: subprocess.Popen[bytes], pipes: _Pipes, *, cancelled: threading.Event, ends: float
) -> Literal["cancelled", "timeout"] | None:
    """Serve the pipes until the child has ended, and all it wrote was heard; or say why it has to be stopped."""
    for _ in pipes.served():
        if _ended(process):
            break
        if cancelled.is_set():
            return "cancelled"
        if time.monotonic() > ends:
            return "timeout"
    with _lock:
        _running.discard(process)  # what it has left running is its own affair
    pipes.finish()
    return None


def _stop(process: subprocess.Popen[bytes], pipes: _Pipes) -> None:
    """Ask the child and its descendants to end, then make them; they are listened to meanwhile, so none is stuck."""
    _signal_group(process, signal.SIGTERM)
    patience = time.monotonic() + KILL_AFTER
    for _ in pipes.served():
        if _ended(process) and not _signal_group(process, 0):
            break
        if time.monotonic() > patience:
            _signal_group(process, signal.SIGKILL)
            break
    for _ in pipes.served():
        if _ended(process):  # descendants are not ours to wait for
            break
    pipes.finish()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Say whether a child has ended, and take its exit code. Popen.poll would call a code that was lost 0: success."""
    if process.returncode is None:
        try:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            process.returncode = 255  # nobody knows
            raise
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode is not None


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to a child and its descendants, those that made no session of their own; say if there were any.

    While any of them lives the number of the group is not given to another, whether the child itself was waited for
    or not.
    """
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # the second: of another user by now, or (macOS) not waited for
        return False
    return True


class _Lines:
    """Bytes become lines: UTF-8, what is not is shown as \\xNN; the last one needs no end."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""

    def feed(self, data: bytes) -> None:
        """Tell the lines that this completes; no data is the end."""
        *lines, self._rest = (self._rest + self._decoder.decode(data, final=not data)).split("\n")
        for line in lines:
            self._tell(line.removesuffix("\r"))
        while len(self._rest) > LONGEST_LINE or (self._rest and not data):
            self._tell(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]

    def _tell(self, line: str) -> None:
        for start in range(0, len(line) or 1, LONGEST_LINE):
            self._hear(line[start : start + LONGEST_LINE])


class _Pipes:
    """The three pipes of a child: written and read as it is ready for, never waited for."""

    def __init__(self, process: subprocess.Popen[bytes], data: bytes, hear: tuple[Hear, Hear]) -> None:
        pipes: tuple[IO[bytes], ...] = (process.stdin, process.stdout, process.stderr)  # type: ignore[assignment]
        self._stdin, *outputs = pipes
        self._data = memoryview(data)
        self._outputs = {pipe: _Lines(tell) for pipe, tell in zip(outputs, hear, strict=True)}
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdin, *self._outputs):
            os.set_blocking(pipe.fileno(), False)
            event = selectors.EVENT_WRITE if pipe is self._stdin else selectors.EVENT_READ
            self._selector.register(pipe, event)

    def served(self) -> Iterator[None]:
        """Serve the pipes for ever; yields now and then, soon after something happened, and ten times a second."""
        pause = FIRST_PAUSE
        while True:
            pause = FIRST_PAUSE if self._serve(pause) else min(2 * pause, LONGEST_PAUSE)
            yield

    def finish(self) -> None:
        """Hear what a child wrote before it ended; a process it left behind keeps the pipes open, but not for us."""
        ends = time.monotonic() + LINGER
        while self._outputs and time.monotonic() < ends:
            self._serve(LONGEST_PAUSE)
        self._serve(0)
        for lines in self._outputs.values():
            lines.feed(b"")

    def close(self) -> None:
        """Let go of the pipes; closing them is for whoever opened them."""
        self._selector.close()

    def _serve(self, pause: float) -> bool:
        """Do what the pipes are ready for, after waiting up to `pause` seconds for it; say whether there was any."""
        ready = self._selector.select(pause)
        for key, _ in ready:
            pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]
            if pipe is self._stdin:
                self._write()
            else:
                self._read(pipe)
        return bool(ready)

    def _write(self) -> None:
        with suppress(BlockingIOError):
            try:
                self._data = self._data[os.write(self._stdin.fileno(), self._data[:CHUNK]) :]
            except BrokenPipeError:  # it has read as much as it wants
                self._data = self._data[:0]
        if not self._data:
            self._selector.unregister(self._stdin)
            self._stdin.close()

    def _read(self, pipe: IO[bytes]) -> None:
        data = os.read(pipe.fileno(), CHUNK)
        self._outputs[pipe].feed(data)
        if not data:
            self._selector.unregister(pipe)
            del self._outputs[pipe]
