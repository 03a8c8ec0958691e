"""In a process that `run` has started as a child: its parent, which it ends with, and tells how it is.

Both hold an end of a socket; the child's is its standard input. What it reads there means nothing, the end of it that
the parent is gone, however it went. What it writes there are lines of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import suppress
from typing import Any

import attrs

SUPERVISED = "GRAPHILE_WORKER_SUPERVISED"


@attrs.frozen
class Parent:
    """What a parent hands down: the number of this child, and the settings of a file; None: it reads them itself."""

    number: int
    file: str | None = None
    found: dict[str, Any] | None = None

    @staticmethod
    def of_environment() -> Parent | None:
        """Return this process's parent, if it is a child; what a job starts later is none."""
        text = os.environ.pop(SUPERVISED, None)
        return None if text is None else Parent(**json.loads(text))

    def environment(self) -> dict[str, str]:
        """Return the environment for a child."""
        return {**os.environ, SUPERVISED: json.dumps(attrs.asdict(self))}

    def end_with(self) -> None:
        """End as on SIGTERM once the parent is gone."""
        threading.Thread(target=_wait_for_the_end_of_input, name="parent", daemon=True).start()

    def tell(self, news: object) -> None:
        """Send a line to the parent; one that it has no room for, since it does not read, is lost."""
        with suppress(OSError), socket.socket(fileno=os.dup(0)) as link:
            link.send(json.dumps(news).encode() + b"\n", socket.MSG_DONTWAIT)


def _wait_for_the_end_of_input() -> None:
    with suppress(OSError):  # reset, where the parent has not read all
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
