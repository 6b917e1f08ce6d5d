"""A reverse proxy that adds nothing of its own, so that what the suite sees is the transport in its middle."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http import h11_impl

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

# RFC 9110 section 7.6.1. Each side of the proxy has connections of its own, and frames its messages itself.
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
STARTING = 10.0

# The suite's origin answers 999 where a request should have had a condition; uvicorn can send what it has a phrase for.
h11_impl.STATUS_PHRASES.setdefault(999, b"")

Fields = list[tuple[bytes, bytes]]


class Proxy:
    """An ASGI app that sends each request to `origin` through `transport`, and the answer back as it comes.

    Method, path, query, fields (in their order, with duplicates) and body are those that came; Host is the origin's.
    Bodies keep their Content-Encoding. A failure of the transport becomes a 502 without a word of the origin's.

    Args:
        library: httpx2 or httpx, whose transport it is.
        transport: an async transport.
        origin: scheme and authority.
    """

    def __init__(self, library: ModuleType, transport: Any, origin: str) -> None:
        self._library = library
        self._origin = library.URL(origin)
        self._client = library.AsyncClient(transport=transport, trust_env=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._forward(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A request that is made by hand gets none of the client's own fields, cookies and timeouts.
        request = self._library.Request(scope["method"], self._url(scope), headers=_asked(scope["headers"]), content=await _body(receive))
        try:
            response = await self._client.send(request, stream=True)
        except self._library.TransportError as error:
            await _bad_gateway(error, send)
            return
        try:
            await send({"type": "http.response.start", "status": response.status_code, "headers": _answered(response.headers.raw)})
            # The stream has the body as it was sent, also where an answer was made with its body in memory, which
            # aiter_raw would take for one that is read already.
            async for chunk in response.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()

    def _url(self, scope: Scope) -> Any:
        query = scope["query_string"]
        return self._origin.copy_with(raw_path=scope["raw_path"] + (b"?" + query if query else b""))


def _asked(fields: Fields) -> Fields:
    """The fields of a request without what concerns the connection it came on, and those that Connection names."""
    named = {name.strip().lower() for field, value in fields if field == b"connection" for name in value.split(b",")}
    return [(name, value) for name, value in fields if name not in HOP_BY_HOP | named | {b"host"}]


def _answered(fields: Fields) -> Fields:
    """The same for an answer, except that what Connection names stays: whether a cache keeps it is one of the tests."""
    lower = ((name.lower(), value) for name, value in fields)
    return [(name, value) for name, value in lower if name not in HOP_BY_HOP]


async def _body(receive: Receive) -> bytes | None:
    """The request's body; None where it has none, for an empty one would be announced."""
    parts: list[bytes] = []
    more = True
    while more:
        message: Message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts) or None


async def _bad_gateway(error: Exception, send: Send) -> None:
    body = f"{type(error).__name__}: {error}\n".encode()
    fields = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 502, "headers": fields})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(app: Proxy) -> Iterator[str]:
    """Serves `app` on a free loopback port in a thread, for as long as the block lasts; gives its URL."""
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        loop="asyncio",
        date_header=False,
        server_header=False,
        proxy_headers=False,
        access_log=False,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="proxy", daemon=True)
    thread.start()
    try:
        waited = time.monotonic() + STARTING
        while not server.started:
            if not thread.is_alive() or time.monotonic() > waited:
                raise RuntimeError("the proxy did not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STARTING)
        listener.close()
