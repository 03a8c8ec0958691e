"""What systemd is told of a service of Type=notify, by its protocol (man sd_notify): lines in a datagram."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


class Systemd:
    """The socket that systemd listens on; watchdog: the seconds within which it expects a sign of life, if it does."""

    def __init__(self, address: str, *, watchdog: float | None = None) -> None:
        self.watchdog = watchdog
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # an abstract one
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._failed = False

    @staticmethod
    def of_environment() -> Systemd | None:
        """Return what the environment says, which is then taken from it: it is not for what a job starts."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = (os.environ.pop(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID"))
        if not address:
            return None
        if address[0] not in "/@":
            logger.warning("NOTIFY_SOCKET is no Unix socket, so systemd is told nothing: %s", address)
            return None
        expected = microseconds.isdigit() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return Systemd(address, watchdog=int(microseconds) / 1e6 if expected else None)

    def tell(self, line: str) -> bool:
        """Send an assignment such as READY=1, and return whether that went; a failure is logged once."""
        try:
            self._socket.sendto(line.encode(), self._address)
            self._failed = False
        except OSError as error:
            if not self._failed:
                logger.warning("systemd cannot be told how this service is: %s", error)
            self._failed = True
        return not self._failed

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
