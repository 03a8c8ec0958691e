"""GET /live and GET /ready, answered by one thread, whoever asks and however slowly.

The protocol is http.server's; but its servers wait for a client that sends nothing, or take a thread for each. Here all
clients are read as they send, each has a few seconds, and when there are too many the oldest makes room.
"""

from __future__ import annotations

import errno
import io
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from graphile_worker_py import Health
from graphile_worker_py._service import Service
from graphile_worker_py.cli._options import NotThere

PATIENCE = 5.0  # seconds that a client has for its request
MOST_CLIENTS = 64
LONGEST_REQUEST = 16_384  # bytes
BACKLOG = 128


def live(health: Health) -> tuple[HTTPStatus, dict[str, object]]:
    """Return what /live says: 503 asks for a new process."""
    code = HTTPStatus.OK if health.live else HTTPStatus.SERVICE_UNAVAILABLE
    return code, {"live": health.live, "reasons": [] if health.live else health.reasons}


def ready(health: Health) -> tuple[HTTPStatus, dict[str, object]]:
    """Return what /ready says: 200 where jobs are taken."""
    code = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return code, {"ready": health.ready, "reasons": health.reasons, "running": health.running}


class HealthServer(Service):
    """Listens from the moment it is made, answers once it is started. Raises NotThere where it cannot listen."""

    def __init__(self, address: tuple[str, int], health: Callable[[], Health]) -> None:
        super().__init__("health")
        self._health = health
        self._listening = _listen(*address)
        self.port: int = self._listening.getsockname()[1]
        self._inner, self._outer = socket.socketpair()
        self._until: dict[socket.socket, float] = {}  # clients, the oldest first
        self._received: dict[socket.socket, bytes] = {}
        self._selector = selectors.DefaultSelector()
        for one in (self._listening, self._inner, self._outer):
            one.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        self._selector.register(self._inner, selectors.EVENT_READ, lambda: self._inner.recv(4096))

    def wake(self) -> None:
        """End the wait for clients now."""
        super().wake()
        with suppress(OSError):  # the thread has ended already
            self._outer.send(b"!")

    def step(self) -> float | None:
        """Serve whoever has sent something; let go of those whose time is over."""
        first = next(iter(self._until.values()), None)
        for key, _ in self._selector.select(None if first is None else max(0.0, first - time.monotonic())):
            key.data()
        for client, until in list(self._until.items()):
            if until <= time.monotonic():
                self._drop(client)
        return 0

    def on_stop(self) -> None:
        """Let go of everybody, and of the port."""
        for client in list(self._until):
            self._drop(client)
        self._selector.close()
        for one in (self._listening, self._inner, self._outer):
            one.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):  # it has hung up already
            return
        if len(self._until) >= MOST_CLIENTS:
            self._drop(next(iter(self._until)))
        client.setblocking(False)
        self._until[client], self._received[client] = time.monotonic() + PATIENCE, b""
        self._selector.register(client, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: socket.socket) -> None:
        if client not in self._until:  # dropped for another, in this very round
            return
        try:
            data = client.recv(LONGEST_REQUEST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        request = self._received[client] = self._received[client] + data
        whole = b"\r\n\r\n" in request or b"\n\n" in request
        if whole or len(request) >= LONGEST_REQUEST:
            with suppress(OSError):  # a few hundred bytes: the socket takes them at once, or nobody reads
                client.send(_Exchange(request, self._health).answer)
                client.shutdown(socket.SHUT_WR)
        if whole or not data or len(request) >= LONGEST_REQUEST:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        del self._until[client], self._received[client]
        self._selector.unregister(client)
        client.close()


class _Exchange(BaseHTTPRequestHandler):
    """One request, which is here as a whole, and its answer, as bytes."""

    pages: ClassVar[dict[str, Callable[[Health], tuple[HTTPStatus, dict[str, object]]]]] = {
        "/live": live,
        "/ready": ready,
    }

    def __init__(self, request: bytes, health: Callable[[], Health]) -> None:
        self.rfile, self.wfile = io.BytesIO(request), io.BytesIO()
        self._health = health
        self.client_address = ("", 0)
        self.close_connection = True
        self.handle_one_request()
        self.answer = self.wfile.getvalue()

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, f"there are {' and '.join(self.pages)}; metrics are not offered yet")
        else:
            self._send(*page(self._health()))

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._send(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def _send(self, code: HTTPStatus, content: dict[str, object]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Return what the header Server says."""
        return "graphile-worker-py"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; without a host on all interfaces, in both protocols where there are both."""
    try:
        if host:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address, family=family, backlog=BACKLOG)
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
                raise
            return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104 - a machine without IPv6
    except (OSError, UnicodeError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and error.errno > 0 else error
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else f"port {port}"
        raise NotThere(f"--health-port: cannot listen on {where}: {why}") from error
