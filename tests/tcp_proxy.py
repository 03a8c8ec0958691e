"""A TCP proxy between a client and its server, to do to connections what networks do.

    with TcpProxy(host, port) as proxy:     # a target that is a folder is that of a Unix socket
        ...                                 # connect to 127.0.0.1, proxy.port
        proxy.pause()                       # half-open: both ends are connected, and nothing arrives any more
        proxy.resume()                      # what was held back arrives after all
        proxy.delay(0.2)                    # each piece arrives so much later, in either direction: a latency
        proxy.throttle(0.1)                 # each piece takes so long, one after the other: a narrow line
        proxy.reset()                       # all connections are torn down; new ones are taken
        proxy.refuse(); proxy.accept()      # new connections are refused; taken again

What is paused stays so: a connection that is made meanwhile is taken, and hears nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType

PIECE = 65_536  # bytes
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class TcpProxy:
    """Listens on `port` of 127.0.0.1 (0: any that is free), and passes on to the target; safe in threads."""

    def __init__(self, host: str, target_port: int, port: int = 0) -> None:
        self.target = (host, target_port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._delay = self._each = 0.0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._server: socket.socket | None = None
        self.port = port
        self.connections = 0  # so many were taken
        self._closing = False
        self._resets = 0
        self.accept()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pause(self) -> None:
        """Pass nothing on until resume()."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on again, first what was held back."""
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Let each piece arrive so many seconds later, in either direction; 0 for none."""
        self._delay = seconds

    def throttle(self, seconds: float) -> None:
        """Let each piece take so long, one after the other, in either direction; 0 for none."""
        self._each = seconds

    def reset(self) -> None:
        """Tear down all connections, as a firewall or a reboot does."""
        with self._lock:
            ends, self._sockets = self._sockets, set()
            self._resets += 1
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads, which closes it

    def refuse(self) -> None:
        """Take no more connections; those there are stay."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()

    def accept(self) -> None:
        """Take connections (again), on the same port."""
        if self._server is None:
            self._server = socket.create_server(("127.0.0.1", self.port))
            self.port = self._server.getsockname()[1]
            self._start(self._serve, self._server)

    def close(self) -> None:
        """End all connections and threads."""
        self._closing = True
        self.refuse()
        self._flowing.set()
        self.reset()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp proxy", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            resets = self._resets
            if server is not self._server:  # refused by now
                client.close()
                return
            self.connections += 1
            self._start(self._connect, client, resets)

    def _connect(self, client: socket.socket, resets: int) -> None:
        self._flowing.wait()
        host, port = self.target
        try:
            if os.path.isabs(host):
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(f"{host}/.s.PGSQL.{port}")
            else:
                upstream = socket.create_connection(self.target, timeout=10)
                upstream.settimeout(None)
        except OSError:
            client.close()
            return
        for end in (client, upstream):
            if end.family != socket.AF_UNIX:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as libpq has it
        with self._lock:
            torn_down = resets != self._resets
            if not torn_down:
                self._sockets |= {client, upstream}
        if torn_down:
            client.close()
            upstream.close()
            return
        self._start(self._pump, client, upstream)
        self._start(self._pump, upstream, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass on until either end is closed, then let the other know; each piece arrives so much later, on its own."""
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        arriving = threading.Thread(target=self._arrive, args=(under_way, source, sink), name="tcp proxy", daemon=True)
        arriving.start()
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                under_way.put((time.monotonic() + self._delay, data))
        under_way.put((0.0, b""))
        arriving.join()
        self._flowing.wait()  # the end of a connection is news as well
        with self._lock:
            torn_down = source not in self._sockets
            self._sockets.discard(source)
        if not torn_down:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        source.close()

    def _arrive(
        self, under_way: queue.SimpleQueue[tuple[float, bytes]], source: socket.socket, sink: socket.socket
    ) -> None:
        """Write what was read when it is due, up to an empty piece; where it cannot be written, read no more."""
        try:
            while True:
                due, data = under_way.get()
                time.sleep(max(self._each, due - time.monotonic()))
                self._flowing.wait()
                if not data or self._closing:
                    return
                sink.sendall(data)
        except OSError:
            with contextlib.suppress(OSError):
                source.shutdown(socket.SHUT_RD)
