"""The request on its way out, and the connection on its way back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from .isolation import on_asyncio, run_isolated

if TYPE_CHECKING:
    from .gate import Place
    from .request import HttpCall

__all__ = ["AsyncWire", "Probe", "SyncWire"]

PIECE = 64 * 1024


class Probe:
    """A request's stream that tells whether sending has begun, and while bytes flow stops the clock of the total.

    Both libraries ask for the body only after the headers were written, so an unasked one means: nothing was sent.
    Bound to a library by inheriting its AsyncByteStream and SyncByteStream as well.
    """

    def __init__(self, inner: Any, call: HttpCall, *, paced: bool) -> None:
        self._inner = inner
        self._call = call
        self._paced = paced
        self.started = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started = True
        if not self._paced:
            async for chunk in self._inner:
                yield chunk
            return
        call = self._call
        call.sending()
        async for chunk in self._inner:
            for piece in pieces(chunk):
                yield piece
                call.sending()
        call.sent()

    def __iter__(self) -> Iterator[bytes]:
        self.started = True
        if not self._paced:
            yield from self._inner
            return
        call = self._call
        call.sending()
        for chunk in self._inner:
            for piece in pieces(chunk):
                yield piece
                call.sending()
        call.sent()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def close(self) -> None:
        self._inner.close()


def pieces(chunk: bytes) -> Iterator[bytes]:
    """Cut a large chunk, so that progress can be seen while it is sent."""
    if len(chunk) <= PIECE:
        yield chunk
        return
    for start in range(0, len(chunk), PIECE):
        yield chunk[start : start + PIECE]


class AsyncWire:
    """A response's stream that gives the gate's place back once its connection is really free.

    Bound to a library by inheriting its AsyncByteStream as well.
    """

    def __init__(self, inner: Any, place: Place, isolated: bool) -> None:
        self._inner = inner
        self._place = place
        self._isolated = isolated

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk

    async def aclose(self) -> None:
        if self._isolated and on_asyncio():
            await run_isolated(self._close)
        else:
            await self._close()

    async def _close(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._place.leave()


class SyncWire:
    """The same for synchronous clients."""

    def __init__(self, inner: Any, place: Place) -> None:
        self._inner = inner
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        yield from self._inner

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._place.leave()
