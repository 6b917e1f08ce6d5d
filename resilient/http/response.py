"""What comes back: streams that settle their call at the end of the body, drained answers, answers of our own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from ..body import END, INFINITY, Body
from ..interruption import EXPIRED, interruptible
from ..runtime import drive
from .abandoned import home, leave_word, send_back
from .library import library_of
from .wire import finish

if TYPE_CHECKING:
    from .library import Library
    from .request import HttpCall

__all__ = ["AsyncGuard", "SyncGuard", "answer_with", "close_stream", "drain", "look"]

logger = logging.getLogger("resilient")
DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS = 0.05
ENCODED = {b"content-encoding", b"content-length", b"transfer-encoding"}


class AsyncGuard:
    """A response's stream that holds the call's permits until the body's end, an error, or `aclose`.

    A reader who stops in between holds the connection, and so the permits, until he closes. Bound to a library by
    inheriting its AsyncByteStream as well.
    """

    # An iterator rather than a generator: a generator that is thrown away half-way has to be closed by somebody.

    def __init__(self, inner: Any, body: Body, length: int | None = None) -> None:
        self._inner = inner
        self._body = body
        self._left = length
        self._closed = False
        self._home = to = home()
        # What `runtime.bounded` would have to find out for each chunk.
        self._stepped = isinstance(to, asyncio.AbstractEventLoop)
        self._chunks: Any = None

    def __aiter__(self) -> Self:
        # Who begins to iterate again goes on where he stopped, as with the libraries' own streams: to let go of the first
        # iterator would end the generators below it, and these close the connection.
        if self._chunks is None:
            self._chunks = self._inner.__aiter__()
        return self

    async def __anext__(self) -> bytes:
        # As `Body.next` does, without its frames.
        body, left = self._body, self._left
        limit = body.begin()
        try:
            # Once as much came as was announced there is nothing to wait for: the stream only has to say so.
            if limit == INFINITY or left == 0:
                chunk = await self._chunks.__anext__()
            elif self._stepped:
                runtime: Any = body.call.runtime
                chunk = await interruptible(self._chunks.__anext__(), limit, runtime.now, runtime.exact)
            else:
                chunk = await body.call.runtime.bounded(limit, self._chunks.__anext__)
        except StopAsyncIteration:
            self._chunks = None
            body.end()
            raise
        except BaseException as error:
            body.broken(error)
            raise
        if chunk is EXPIRED:
            raise body.late()
        body.came()
        if left is not None:
            self._left = left - len(chunk)
        return chunk  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        # Permits first, without awaiting: a native cancellation pierces even a shielded scope.
        if not self._body.settled:
            self._body.close()
        if not self._closed:
            self._closed = True
            await self._inner.aclose()
            if self._chunks is not None:
                await finish(self._chunks)

    def __del__(self) -> None:
        if not self._closed:
            send_back(self._home, self._body, self._inner)


class SyncGuard:
    """The same for synchronous clients; bound to a library by inheriting its SyncByteStream as well."""

    def __init__(self, inner: Any, body: Body, length: int | None = None) -> None:
        self._inner = inner
        self._body = body
        self._closed = False
        self._chunks: Any = None

    def __iter__(self) -> Self:
        if self._chunks is None:
            self._chunks = iter(self._inner)
        return self

    def __next__(self) -> bytes:
        chunk = drive(self._body.next(self._fetch))
        if chunk is END:
            raise StopIteration
        return chunk  # type: ignore[no-any-return]

    def _fetch(self) -> Any:
        return next(self._chunks, END)

    def close(self) -> None:
        self._body.close()
        if not self._closed:
            self._closed = True
            self._inner.close()

    def __del__(self) -> None:
        if not self._closed:
            leave_word(self._body, self._inner.close)


def look(response: Any) -> tuple[bool, int | None]:
    """Whether the body may pause for as long as it likes, as event streams and upgraded connections do; and its length."""
    silent, length = response.status_code == 101, None
    for name, value in response.headers.raw:
        # Most fields are neither, which their names' lengths tell at once.
        if len(name) == 12 and name.lower() == b"content-type":
            silent = silent or value.lower().startswith(b"text/event-stream")
        elif len(name) == 14 and name.lower() == b"content-length" and len(value) < 16 and value.isdigit():
            length = int(value)
    return silent, length


async def drain(call: HttpCall, response: Any) -> bool:
    """Read a failed answer's body into memory, so that its connection can be used again and the answer kept.

    Returns:
        False if it was too large or too slow (64 KiB, 50 ms) and has been closed instead.
    """
    runtime, stream = call.runtime, response.stream
    memory = call.library.module.ByteStream
    if isinstance(stream, memory):
        return True
    _, length = look(response)
    whole = length is None or length <= DRAIN_BYTES
    chunks: list[bytes] = []
    parts: Any = None
    if whole:
        # A synchronous read cannot be interrupted; its timeout is looked up when it begins.
        call.read_limit = DRAIN_SECONDS
        until = runtime.now() + DRAIN_SECONDS
        parts = iter(stream) if call.sync else aiter(stream)
        read = partial(_read_sync, parts, chunks, lambda: runtime.now() >= until) if call.sync else partial(_read_async, parts, chunks)
        try:
            complete = await runtime.bounded(until, read)
        except Exception:
            logger.debug("a failed answer broke while it was read to keep its connection", exc_info=True)
            whole = False
        else:
            whole = complete is True
    await close_stream(stream, sync=call.sync)
    await finish(parts)
    call.response = None
    if whole:
        response.stream = memory(b"".join(chunks))
    return whole


async def _read_async(parts: Any, chunks: list[bytes]) -> bool:
    size = 0
    async for chunk in parts:
        size += len(chunk)
        if size > DRAIN_BYTES:
            return False
        chunks.append(chunk)
    return True


def _read_sync(parts: Any, chunks: list[bytes], late: Callable[[], bool]) -> bool:
    size = 0
    for chunk in parts:
        size += len(chunk)
        if size > DRAIN_BYTES or late():
            return False
        chunks.append(chunk)
    return True


async def close_stream(stream: Any, *, sync: bool) -> None:
    """Close a stream that nobody will read. One that cannot be closed any more is as good as closed."""
    try:
        if sync:
            stream.close()
        else:
            await stream.aclose()
    except Exception:
        logger.debug("closing a response that nobody reads failed", exc_info=True)


def answer_with(library: Library, value: Any, call: HttpCall) -> Any:
    """A response made of a fallback's value: a copy of a response, or 200 with the value as JSON.

    A response whose body is in memory may serve any number of times; one that still streams is handed on as it is.

    Raises:
        TypeError: the value is neither a response of this library nor anything that JSON can say, or a response whose
            body this client cannot read.
    """
    module = library.module
    if isinstance(value, module.Response):
        answer = _copy_of(value, module, sync=call.sync)
    elif library_of(value) is not None:
        raise TypeError(f"fallback: expected a response of {library.name}, got one of {library_of(value)}: {value!r}")
    else:
        try:
            content = json.dumps(value, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise TypeError(f"fallback: expected a response or a value that JSON can say, got {value!r}") from error
        answer = module.Response(200, headers={"content-type": "application/json"}, content=content)
    answer.extensions["degraded"] = {"dependency": call.owner.name, "cause": call.degraded}
    return answer


def _copy_of(response: Any, module: Any, *, sync: bool) -> Any:
    extensions = dict(response.extensions)
    if not hasattr(response, "_content"):
        kind = module.SyncByteStream if sync else module.AsyncByteStream
        if response.is_closed or response.is_stream_consumed or not isinstance(response.stream, kind):
            raise TypeError(f"fallback: expected a response whose body this client can still read, got {response!r}")
        return module.Response(response.status_code, headers=response.headers.raw, stream=response.stream, extensions=extensions)
    # What was read is decoded, so the fields that tell how it was encoded are true no more.
    fields = [(name, value) for name, value in response.headers.raw if name.lower() not in ENCODED]
    return module.Response(response.status_code, headers=fields, content=response.content, extensions=extensions)
