"""The request on its way out, and the connection on its way back."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..core.deadline import clamp
from .isolation import on_asyncio, run_isolated

if TYPE_CHECKING:
    from .gate import Place
    from .request import HttpCall

__all__ = ["AsyncWire", "Clamped", "Probe", "SyncWire", "outgoing"]

PIECE = 64 * 1024
SHORTEST = 0.001


def outgoing(call: HttpCall) -> Any:
    """The request of `call` as the attempt that begins now sends it: watched, and in time.

    A request of its own, for attempts must not meet each other's: a program may send one request twice at a time.
    """
    request = call.request
    call.probe = call.read_limit = call.moved = None
    call.queues = False
    sent = object.__new__(type(request))
    sent.__dict__.update(request.__dict__)
    if call.attempt_deadline != math.inf:
        sent.extensions = {**request.extensions, "timeout": Clamped(request.extensions.get("timeout") or {}, call)}
    if call.paced or (call.pooled and not call.repeatable):
        call.probe = sent.stream = call.library.probe(request.stream, call)
    return sent


class Clamped(dict[str, "float | None"]):
    """A client's per-operation timeouts, none of them longer than what is left to the call.

    Both libraries look each one up at the moment when its operation begins.
    """

    def __init__(self, own: Mapping[str, float | None], call: HttpCall) -> None:
        super().__init__(own)
        self._call = call

    def get(self, operation: str, default: Any = None) -> Any:
        own, left = super().get(operation, default), self._call.time_for(operation)
        # Not 0, which makes a synchronous socket non-blocking: then it would fail with another error than a timeout.
        return own if left == math.inf else clamp(own, max(left, SHORTEST))

    def __getitem__(self, operation: str) -> float | None:
        return self.get(operation)  # type: ignore[no-any-return]


class Probe:
    """A request's stream that tells whether sending has begun, and while bytes flow stops the clock of the total.

    Both libraries ask for the body only after the headers were written, so an unasked one means: nothing was sent.
    They ask for the next piece once the last one was taken by the network, so a piece that never is stops the flow, and
    the clock runs on. Bound to a library by inheriting its AsyncByteStream and SyncByteStream as well.

    Attributes:
        started: sending has begun.
        starved: the next piece is not there yet; whoever makes it is being waited for.
    """

    def __init__(self, inner: Any, call: HttpCall) -> None:
        self._inner = inner
        self._call = call
        self.started = False
        self.starved = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._begin()
        async for chunk in self._inner:
            self.starved = False
            for piece in self._pieces(chunk):
                yield piece
            self.starved = True
        self._end()

    def __iter__(self) -> Iterator[bytes]:
        self._begin()
        for chunk in self._inner:
            self.starved = False
            yield from self._pieces(chunk)
            self.starved = True
        self._end()

    def _begin(self) -> None:
        self.started = self.starved = True
        if self._call.paced:
            self._call.sending()

    def _pieces(self, chunk: bytes) -> Iterator[bytes]:
        """A chunk as it is, or cut where it is so large that progress could not be seen."""
        paced = self._call.paced
        for start in range(0, len(chunk) or 1, PIECE):
            if paced:
                self._call.sending()
            yield chunk if len(chunk) <= PIECE else chunk[start : start + PIECE]
        if paced:
            self._call.sending()

    def _end(self) -> None:
        self.starved = False
        if self._call.paced:
            self._call.sent()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def close(self) -> None:
        self._inner.close()


class AsyncWire:
    """A response's stream that gives the gate's place back once its connection is really free.

    Bound to a library by inheriting its AsyncByteStream as well.
    """

    def __init__(self, inner: Any, place: Place, isolated: bool) -> None:
        self._inner = inner
        self._place = place
        self._isolated = isolated

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._inner.__aiter__()  # type: ignore[no-any-return]

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
        return iter(self._inner)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._place.leave()
