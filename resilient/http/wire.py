"""The request on its way out, and the connection on its way back."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any

from ..core.deadline import clamp
from .abandoned import close_later
from .isolation import on_asyncio, run_isolated

if TYPE_CHECKING:
    from ..core.propagation import Propagation
    from .gate import Place
    from .request import HttpCall

__all__ = ["AsyncWire", "Clamped", "Probe", "SyncWire", "finish", "outgoing"]

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
        extensions = request.extensions
        clamped = Clamped(extensions.get("timeout") or ())
        clamped.call = call
        sent.extensions = {**extensions, "timeout": clamped}
    propagation = call.propagation
    if call.key is not None or call.numbered or propagation is not None:
        sent.headers = headers = request.headers.copy()
        if propagation is not None:
            _tell(call, propagation, headers)
        if call.key is not None:
            headers["idempotency-key"] = call.key
        if call.numbered:
            headers["x-retry-attempt"] = str(call.attempts)
    if call.paced or (call.pooled and not call.repeatable):
        call.probe = sent.stream = call.library.probe(request.stream, call)
    return sent


def _tell(call: HttpCall, propagation: Propagation, headers: Any) -> None:
    """Say how long the attempt has, and how much it matters; in place of what the program may have handed on of its own caller's."""
    if propagation.criticality is not None:
        headers[propagation.criticality] = call.criticality.name.lower()
    if propagation.deadline is not None:
        told = propagation.time_left(call.attempt_deadline - call.runtime.now())
        if told is not None:
            headers[propagation.deadline] = told
        elif propagation.deadline in headers:
            del headers[propagation.deadline]


class Clamped(dict[str, "float | None"]):
    """A client's per-operation timeouts, none of them longer than what is left to the call.

    Both libraries look each one up at the moment when its operation begins.
    """

    __slots__ = ("call",)

    call: HttpCall

    def get(self, operation: str, default: Any = None) -> Any:
        own, left = super().get(operation, default), self.call.time_for(operation)
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
        self._pieces: Any = None
        self.started = False
        self.starved = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._pieces = self._asynchronously()
        return self._pieces  # type: ignore[no-any-return]

    async def _asynchronously(self) -> AsyncGenerator[bytes, None]:
        self._begin()
        chunks = aiter(self._inner)
        try:
            async for chunk in chunks:
                self.starved = False
                for piece in self._cut(chunk):
                    yield piece
                self.starved = True
            self._end()
        finally:
            await finish(chunks)

    async def until(self, exchange: Awaitable[Any]) -> Any:
        """Await the exchange that this is the body of; then it is over, whether or not all of it was asked for."""
        try:
            return await exchange
        finally:
            await finish(self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        self._begin()
        for chunk in self._inner:
            self.starved = False
            yield from self._cut(chunk)
            self.starved = True
        self._end()

    def _begin(self) -> None:
        self.started = self.starved = True
        if self._call.paced:
            self._call.sending()

    def _cut(self, chunk: bytes) -> Iterator[bytes]:
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


async def finish(iterator: Any) -> None:
    """Let go of an iterator that nobody asks any more: it may be a generator, and trio complains of a lost one."""
    if type(iterator) is AsyncGeneratorType and iterator.ag_frame is not None and not iterator.ag_running:
        await iterator.aclose()


class AsyncWire:
    """A response's stream that gives the gate's place back once its connection is really free.

    Bound to a library by inheriting its AsyncByteStream as well.
    """

    def __init__(self, inner: Any, place: Place, isolated: bool) -> None:
        self._inner = inner
        self._place = place
        self._isolated = isolated
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._inner.__aiter__()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        if self._isolated and on_asyncio():
            await run_isolated(self._close, leftover=self._see_to_it, cancel=False)
        else:
            await self._close()

    async def _close(self) -> None:
        self._begun = True
        try:
            await self._inner.aclose()
        finally:
            self._place.leave()

    def _see_to_it(self, _: None) -> None:
        """The closing is over and its caller gone, unless every task was cancelled and it has not even begun."""
        if not self._begun:
            self._place.leave()
            close_later(self._inner)


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
