"""What comes back: streams that settle their call at the end of the body, drained answers, answers of our own."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from ..body import END, Body
from ..runtime import drive
from .abandoned import Home, leave_word

if TYPE_CHECKING:
    from ..protocols import Runtime
    from .library import Library
    from .request import HttpCall

__all__ = ["AsyncGuard", "SyncGuard", "answer_with", "drain", "falls_silent"]

DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS = 0.05


class AsyncGuard:
    """A response's stream that holds the call's permits until the body's end, an error, or `aclose`.

    Bound to a library by inheriting its AsyncByteStream as well.
    """

    def __init__(self, inner: Any, body: Body) -> None:
        self._inner = inner
        self._body = body
        self._closed = False
        self._home = Home()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._body
        chunks = self._inner.__aiter__()
        try:
            while (chunk := await body.next(lambda: anext(chunks, END))) is not END:
                yield chunk
        except GeneratorExit:
            body.close()
            raise

    async def aclose(self) -> None:
        # Permits first, without awaiting: a native cancellation pierces even a shielded scope.
        self._body.close()
        if not self._closed:
            self._closed = True
            await self._inner.aclose()

    def __del__(self) -> None:
        if not self._closed:
            self._home.send_back(self._body, self._inner)


class SyncGuard:
    """The same for synchronous clients; bound by inheriting SyncByteStream."""

    def __init__(self, inner: Any, body: Body) -> None:
        self._inner = inner
        self._body = body
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        body = self._body
        chunks = iter(self._inner)
        try:
            while (chunk := drive(body.next(lambda: next(chunks, END)))) is not END:
                yield chunk
        except GeneratorExit:
            body.close()
            raise

    def close(self) -> None:
        self._body.close()
        if not self._closed:
            self._closed = True
            self._inner.close()

    def __del__(self) -> None:
        if not self._closed:
            leave_word(self._body, self._inner.close)


def falls_silent(response: Any) -> bool:
    """Whether the body may pause for as long as it likes: event streams and upgraded connections."""
    content_type = response.headers.get("content-type", "")
    return response.status_code == 101 or bool(content_type.startswith("text/event-stream"))


async def drain(runtime: Runtime, library: Library, response: Any) -> bool:
    """Read a failed answer's body into memory, so that its connection can be used again and the answer kept.

    Returns:
        False if it was too large or too slow (64 KiB, 50 ms) and has been closed instead.
    """
    stream = response.stream
    if isinstance(stream, library.module.ByteStream):
        return True
    length = response.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 9 or int(length) > DRAIN_BYTES):
        await _close(stream)
        return False
    chunks: list[bytes] = []
    try:
        in_time, whole = await runtime.bounded(runtime.now() + DRAIN_SECONDS, lambda: _read(stream, chunks))
    except library.module.TransportError:
        in_time, whole = False, False  # it broke on the way; its status is known, and was a failure already
    await _close(stream)
    if in_time and whole:
        response.stream = library.module.ByteStream(b"".join(chunks))
    return bool(in_time and whole)


def _read(stream: Any, chunks: list[bytes]) -> Any:
    """Read a stream to its end or to the limit: a coroutine for an async one, at once for a sync one."""
    return _read_async(stream, chunks) if hasattr(stream, "aclose") else _read_sync(stream, chunks)


async def _read_async(stream: Any, chunks: list[bytes]) -> bool:
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > DRAIN_BYTES:
            return False
        chunks.append(chunk)
    return True


def _read_sync(stream: Any, chunks: list[bytes]) -> bool:
    size = 0
    for chunk in stream:
        size += len(chunk)
        if size > DRAIN_BYTES:
            return False
        chunks.append(chunk)
    return True


async def _close(stream: Any) -> None:
    if hasattr(stream, "aclose"):
        await stream.aclose()
    else:
        stream.close()


def answer_with(library: Library, value: Any, call: HttpCall) -> Any:
    """A response made of a fallback's value: a copy of a response, or 200 with the value as JSON.

    Raises:
        TypeError: the value is neither a response with a body in memory nor anything that JSON can say.
    """
    module = library.module
    if isinstance(value, module.Response):
        answer = module.Response(value.status_code, headers=value.headers.raw, stream=copy.copy(value.stream), extensions=dict(value.extensions))
    else:
        try:
            content = json.dumps(value).encode()
        except (TypeError, ValueError) as error:
            raise TypeError(f"fallback: expected a response or a value that JSON can say, got {value!r}") from error
        answer = module.Response(200, headers={"content-type": "application/json"}, content=content)
    answer.extensions["degraded"] = {"dependency": call.owner.name, "cause": call.degraded}
    return answer
