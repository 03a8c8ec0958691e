"""Signals become messages in a pool's inbox; a signal handler does no more."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

RELOAD = "reload"


@contextmanager
def told_of_signals(
    inbox: queue.SimpleQueue[object], *, reloads: bool, on_second: Callable[[], None]
) -> Iterator[None]:
    """Put the number of each SIGTERM, SIGINT and SIGHUP into the inbox; the second one calls `on_second` as well.

    SIGHUP is RELOAD where the pool `reloads`, and else asks to stop, as a terminal does that is closed; a program that
    ignores it (nohup) is not stopped by it. Outside the main thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and reloads:
            inbox.put(RELOAD)
            return
        inbox.put(number)
        seen.append(number)
        if len(seen) > 1:
            on_second()

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and not reloads
    numbers = (signal.SIGTERM, signal.SIGINT, *([] if ignored else [signal.SIGHUP]))
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
