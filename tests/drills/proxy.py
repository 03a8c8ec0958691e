"""A link to a server that can be made slow, silent or rude: a TCP proxy with a latency, in a thread of its own.

A latency is not a bandwidth: each piece arrives `delay` seconds after it was sent, however many are under way. Nothing
is held back to be sent together (asyncio sets TCP_NODELAY), which would cost 40 ms for each pipelined statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable

PIECE = 65_536  # bytes
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class Proxy:
    """Passes what comes to `port` of 127.0.0.1 on to another port there, and back."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0  # so many were taken
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def delay(self, seconds: float) -> None:
        """Let each piece arrive so much later, in either direction."""
        self._delay = seconds

    def pause(self) -> None:
        """Pass nothing on: both ends are connected, and nothing arrives any more; new connections are taken alike."""
        self._call(self._flowing.clear)

    def resume(self) -> None:
        """Pass on again, first what was held back."""
        self._call(self._flowing.set)

    def reset(self) -> None:
        """Tear down all connections; new ones are taken."""
        self._call(self._reset)

    def _call(self, function: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (function(), done.set()))
        done.wait(10)

    async def _serve(self) -> int:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        self._server.close()
        self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _reset(self) -> None:
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            writer.transport.abort()
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, back}
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on until the source ends, then end the sink."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.ensure_future(self._arrive(under_way, writer))
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                under_way.put_nowait((self._loop.time() + self._delay, data))
        under_way.put_nowait((0.0, b""))
        await arriving

    async def _arrive(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - self._loop.time())
                await self._flowing.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()
