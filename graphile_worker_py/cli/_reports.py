"""How this process is, told to those outside who want to know: HTTP clients, systemd, the parent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

import attrs

from graphile_worker_py import Health
from graphile_worker_py._service import Service
from graphile_worker_py.cli._parent import Parent
from graphile_worker_py.cli._systemd import Systemd

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds


class Reports:
    """Tells from `with` on, also while nothing works yet; `source` is set to what knows better as soon as there is one.

    address: where to answer HTTP, if at all. A child tells its parent, and nobody else. Raises NotThere.
    """

    def __init__(self, address: tuple[str, int] | None, parent: Parent | None) -> None:
        self.source: Callable[[], Health] = Health
        self._services: list[Service] = []
        if address is not None and parent is None:
            from graphile_worker_py.cli._health_server import HealthServer  # http.server takes its time

            self._services.append(HealthServer(address, self._health))
        if parent is None and (systemd := Systemd.of_environment()) is not None:
            self._services.append(ToSystemd(systemd, self._health))
        if parent is not None:
            self._services.append(ToParent(parent, self._health))

    def __enter__(self) -> Reports:
        for service in self._services:
            service.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for service in reversed(self._services):
            service.stop()

    def log(self) -> None:
        """Log where it can be asked."""
        for service in self._services:
            if port := getattr(service, "port", None):
                logger.info("port %s answers GET /live and /ready", port)

    def _health(self) -> Health:
        return self.source()


class ToSystemd(Service):
    """Tells systemd when the worker is ready, when it stops, what it does, and that it lives."""

    def __init__(self, systemd: Systemd, health: Callable[[], Health]) -> None:
        super().__init__("report")
        self._systemd = systemd
        self._health = health
        self._said: list[str] = []
        self._interval = min(INTERVAL, systemd.watchdog / 3 if systemd.watchdog else INTERVAL)

    def step(self) -> float | None:
        """Tell what is new, and give the sign of life that is asked for."""
        health = self._health()
        status = "stopping" if health.stopping else "working" if health.ready else "; ".join(health.reasons)
        self._say(f"STATUS={status}, {health.running} jobs running")
        if health.ready:
            self._say("READY=1")
        if health.stopping:
            self._say("STOPPING=1")
        if health.live and self._systemd.watchdog:
            self._systemd.tell("WATCHDOG=1")
        return self._interval

    def on_stop(self) -> None:
        """Tell that the end is near, if nobody has yet."""
        self._say("STOPPING=1")
        self._systemd.close()

    def _say(self, line: str) -> None:
        """Tell a line once, and another of the same name instead of it; one that did not go is told again later."""
        if line not in self._said and self._systemd.tell(line):
            name = line.partition("=")[0]
            self._said = [*(said for said in self._said if not said.startswith(f"{name}=")), line]


class ToParent(Service):
    """Tells the parent of a child how it is, all the time: silence is news as well."""

    def __init__(self, parent: Parent, health: Callable[[], Health]) -> None:
        super().__init__("report")
        self._parent = parent
        self._health = health

    def step(self) -> float | None:
        """Tell it once."""
        self._parent.tell(attrs.asdict(self._health()))
        return INTERVAL
