"""The bare calls above which every cost is counted: a function, a client on an in-memory transport, an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any

URL = "http://catalog.test/item/7"
BODY = b'{"name": "kettle", "price": 30}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def noop() -> None:
    """The function that succeeds at once."""


async def pause() -> None:
    """The function that lets the event loop turn once, as one does that waits for a socket."""
    await asyncio.sleep(0)


async def refused() -> None:
    """The function that a breaker is opened with."""
    raise ConnectionError("refused")


def wire(module: ModuleType, base: str = "AsyncBaseTransport") -> Any:
    """An inner transport for `module` (httpx or httpx2) that answers from memory.

    With `base="AsyncHTTPTransport"` it passes for the library's own pooled transport.
    """

    # Not the library's ByteStream: what comes from a pool is a stream of unknown length, and is treated as one.
    class Stream(module.AsyncByteStream):  # type: ignore[misc, name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield BODY

    class Wire(getattr(module, base)):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            return module.Response(200, headers=HEADERS, stream=Stream())

    return Wire()


def getter(module: ModuleType, transport: Any) -> Callable[[], Awaitable[Any]]:
    """One GET through a client of `module` on `transport`, its body read."""
    client = module.AsyncClient(transport=transport)

    async def get() -> None:
        response = await client.get(URL)
        if response.content != BODY:
            raise AssertionError(f"answered {response!r}")

    return get


SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/product/7",
    "raw_path": b"/product/7",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"shop.test"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A bare ASGI app: one start, one body."""
    await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
    await send({"type": "http.response.body", "body": BODY})


def request(asgi: Callable[..., Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """One request to `asgi` with a scope of its own, as a server makes it, and a send that drops what it is given."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        pass

    async def serve() -> None:
        await asgi({**SCOPE, "headers": list(SCOPE["headers"])}, receive, send)

    return serve


def crowded(around: Callable[..., Callable[..., Awaitable[None]]]) -> Callable[[], Awaitable[None]]:
    """One request to a server of one slot that is taken: the first one to come goes on for ever.

    Args:
        around: puts the middleware around an app.
    """
    held: list[asyncio.Task[None]] = []

    async def once(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.get_running_loop().create_future()

    one = request(around(once))

    async def serve() -> None:
        if not held:
            held.append(asyncio.ensure_future(one()))
            await asyncio.sleep(0)
        await one()

    return serve
