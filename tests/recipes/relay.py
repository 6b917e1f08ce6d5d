"""A wire between a client and a server that can fall silent and break."""

from __future__ import annotations

import asyncio

from ..http.servers import Peer, Server

__all__ = ["Relay"]


class Relay(Server):
    """Passes bytes on to a local port, both ways, until it is told otherwise; usable from any thread."""

    def __init__(self, port: int) -> None:
        super().__init__(self._pass_on)
        self._upstream = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows: asyncio.Event | None = None

    async def _pass_on(self, peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._writers.add(peer.writer)
        upward = asyncio.create_task(self._pump(peer.reader, writer))
        downward = asyncio.create_task(self._pump(reader, peer.writer, held=True))
        try:
            await asyncio.wait([upward, downward], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(peer.writer)
            writer.close()  # before anything is awaited, where a server that stops would cancel it
            for task in (upward, downward):
                task.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, held: bool = False) -> None:
        while data := await source.read(65536):
            if held:
                await self._flowing().wait()
            sink.write(data)
            await sink.drain()

    def _flowing(self) -> asyncio.Event:
        if self._flows is None:
            self._flows = asyncio.Event()
            self._flows.set()
        return self._flows

    def _tell(self, act: object) -> None:
        done = asyncio.run_coroutine_threadsafe(self._do(act), self._loop)
        done.result(5)

    async def _do(self, act: object) -> None:
        assert callable(act)
        act()

    def hang(self) -> None:
        """From now on the server hears everything, and nothing that it answers arrives."""
        self._tell(lambda: self._flowing().clear())

    def resume(self) -> None:
        """What was held back arrives, where somebody still listens."""
        self._tell(lambda: self._flowing().set())

    def cut(self) -> None:
        """Break every connection there is."""
        self._tell(lambda: [writer.transport.abort() for writer in self._writers])
