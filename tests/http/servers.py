"""Real servers on loopback, in a thread of their own, so that every client library and event loop can use them."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Asked", "Peer", "Server", "answer", "answering"]


@dataclass
class Asked:
    """A request as the server read it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Peer:
    """One connection, from the server's side."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def request(self, *, body: bool = True) -> Asked | None:
        """The next request, or None once the client has hung up."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *fields = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in fields)}
        asked = Asked(method, target, headers)
        self.server.requests.append(asked)
        if body:
            asked.body = await self._body(headers)
        return asked

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(parts)

    async def send(self, *data: bytes) -> None:
        """Send pieces, each one out of the door before the next."""
        for piece in data:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """Hang up with RST in place of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Handler = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs `handle(peer)` for each connection and hangs up when it returns.

    Attributes:
        url: where it listens.
        connections: how many were accepted.
        requests: what was asked, in order.
    """

    def __init__(self, handle: Handler, *, receive_buffer: int | None = None) -> None:
        self.connections = 0
        self.requests: list[Asked] = []
        self._handle = handle
        self._tasks: set[asyncio.Task[None]] = set()
        self._receive_buffer = receive_buffer
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="loopback", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._connected, sock=listener)
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
                await self._handle(Peer(self, reader, writer, self.connections))
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if self._stop.is_set() else writer.close()


def answer(status: int = 200, body: bytes = b"", *fields: str) -> bytes:
    """An HTTP/1.1 answer, whole."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answering(*answers: bytes, delay: float = 0.0) -> Handler:
    """A handler that keeps connections alive and gives one answer a request, the last one again and again."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            if delay:
                await asyncio.sleep(delay)
            asked = len(peer.server.requests)
            await peer.send(answers[min(asked, len(answers)) - 1])

    return handle
