"""How a `Chaos` harms an HTTP call: answers that no server gave, bodies that break off, servers that say nothing."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..policies.harm import Harms
from .library import library_of
from .response import ENCODED
from .wire import finish

if TYPE_CHECKING:
    from ..call import Call
    from .request import HttpCall

__all__ = ["HttpHarms"]

BODILESS = frozenset({101, 204, 304})


class HttpHarms(Harms):
    """One for all HTTP calls."""

    def begin(self, call: Call) -> float:
        # As `outgoing` does for an attempt that is sent.
        call.probe = call.read_limit = call.moved = None  # type: ignore[attr-defined]
        call.queues = False
        read = (call.request.extensions.get("timeout") or {}).get("read")
        patience = math.inf if read is None else call.runtime.now() + read
        return min(patience, call.attempt_deadline)

    def silence(self, call: Call) -> Exception:
        return _library(call).ReadTimeout("no answer came: injected", request=call.request)  # type: ignore[no-any-return]

    def answer(self, call: Call, value: Any, kind: str) -> Any:
        module = _library(call)
        if kind == "status":
            value = module.Response(value)
        elif not isinstance(value, module.Response):
            origin = library_of(value)
            error = TypeError(f"result: expected a response of {module.__name__}, got {f'one of {origin}: ' if origin else ''}{value!r}")
            call.ignore(error)
            raise error
        elif hasattr(value, "_content"):  # it is in memory, and may be given any number of times
            value = module.Response(value.status_code, headers=_decoded(value), content=value.content, extensions=dict(value.extensions))
        return self.mark(call, value, kind)

    def truncated(self, call: Call, result: Any, size: int) -> Any:
        if call.request.method == "HEAD" or result.status_code in BODILESS:
            return None
        module = _library(call)
        breaks = partial(module.RemoteProtocolError, f"the body broke off after {size} bytes: injected", request=call.request)
        in_memory = hasattr(result, "_content")
        stream = module.ByteStream(result.content) if in_memory else result.stream
        broken = (SyncBroken if call.sync else AsyncBroken)(stream, size, breaks)  # type: ignore[attr-defined]
        fields = _decoded(result) if in_memory else result.headers.raw
        made = module.Response(result.status_code, headers=fields, stream=broken, extensions=result.extensions)
        if call.response is result:
            call.response = made
        return made

    def mark(self, call: Call, result: Any, kind: str) -> Any:
        result.extensions["chaos"] = {"dependency": call.owner.name, "kind": kind}
        return result


def _library(call: Any) -> Any:
    made: HttpCall = call
    return made.library.module


def _decoded(response: Any) -> list[tuple[bytes, bytes]]:
    """The fields of an answer that was read, less those that tell how it was encoded on its way."""
    return [(name, value) for name, value in response.headers.raw if name.lower() not in ENCODED]


class Broken:
    """A body that breaks off.

    Args:
        inner: the stream as it came.
        size: bytes that are given of it.
        breaks: makes the error that comes after them.
    """

    def __init__(self, inner: Any, size: int, breaks: Callable[[], Exception]) -> None:
        self._inner = inner
        self._left = size
        self._breaks = breaks

    def _cut(self, chunk: bytes) -> bytes:
        chunk = chunk[: self._left]
        self._left -= len(chunk)
        return chunk


class AsyncBroken(Broken):
    """One of an async client."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._inner)
        try:
            while self._left and (chunk := await anext(chunks, None)) is not None:
                yield self._cut(chunk)
        finally:
            await finish(chunks)
        raise self._breaks()

    async def aclose(self) -> None:
        await self._inner.aclose()


class SyncBroken(Broken):
    """One of a synchronous client."""

    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._inner)
        while self._left and (chunk := next(chunks, None)) is not None:
            yield self._cut(chunk)
        raise self._breaks()

    def close(self) -> None:
        self._inner.close()
