"""An origin that answers from memory, and clients that ask it: what every cost is counted above."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from email.utils import formatdate
from itertools import count
from types import ModuleType
from typing import Any

__all__ = ["BODY", "URL", "VARIANTS", "Origin", "asking", "asking_sync", "closing"]

URL = "https://catalog.test/items"
BODY = json.dumps([{"id": number, "name": f"kettle {number}", "price": 30.5} for number in range(43)]).encode()  # 2 KB
VARIANTS = "X-Variant"


class Origin:
    """Answers with `BODY`, and says 304 to whoever has it already.

    Args:
        module: httpx2 or httpx.
        policy: its `Cache-Control`.
        vary: its `Vary`.

    Attributes:
        asked: how often it was.
        fields: of its answers.
    """

    def __init__(self, module: ModuleType, policy: str = "max-age=86400", vary: str = "") -> None:
        self.asked = 0
        self._module = module
        fields = {
            "Date": formatdate(usegmt=True),
            "Server": "origin",
            "Content-Type": "application/json",
            "Content-Length": str(len(BODY)),
            "Cache-Control": policy,
            "ETag": '"7f3a"',
            "Last-Modified": formatdate(0, usegmt=True),
            "X-Request-Id": "0c2b1d6e",
        } | ({"Vary": vary} if vary else {})
        self.fields = [(name.encode(), value.encode()) for name, value in fields.items()]
        self._short = [field for field in self.fields if field[0] != b"Content-Length"]

    def __call__(self, request: Any, stream: Any) -> Any:
        self.asked += 1
        if "if-none-match" in request.headers:
            return self._module.Response(304, headers=self._short, stream=self._module.ByteStream(b""))
        return self._module.Response(200, headers=self.fields, stream=stream)

    def transport(self) -> Any:
        """A transport of the library that asks it, for its async client."""
        module, answer = self._module, self

        # Not the library's ByteStream: what comes from a network is a stream of unknown length, and is treated as one.
        class Stream(module.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield BODY

        class Transport(module.AsyncBaseTransport):  # type: ignore[misc, name-defined]
            async def handle_async_request(self, request: Any) -> Any:
                return answer(request, Stream())

        return Transport()

    def sync_transport(self) -> Any:
        """The same for its sync client."""
        module, answer = self._module, self

        class Stream(module.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                yield BODY

        class Transport(module.BaseTransport):  # type: ignore[misc, name-defined]
            def handle_request(self, request: Any) -> Any:
                return answer(request, Stream())

        return Transport()


Asking = Callable[[], Awaitable[None]]


def asking(module: ModuleType, transport: Any, *, variants: int = 0, urls: int = 0, anew: bool = False) -> Asking:
    """One GET through an async client on `transport`, its body read.

    Args:
        module: httpx2 or httpx.
        transport: of it.
        variants: ask for one after the other of so many variants; 0 for an answer that does not vary.
        urls: ask for one after the other of so many URLs.
        anew: ask for another URL each time.
    """
    client = module.AsyncClient(transport=transport)
    next_request = _requests(variants, urls, anew)

    async def ask() -> None:
        url, fields = next_request()
        response = await client.get(url, headers=fields)
        if response.content != BODY:
            raise AssertionError(f"answered {response!r}")

    return ask


def asking_sync(module: ModuleType, transport: Any) -> Asking:
    """One GET through a sync client on `transport`; a coroutine all the same, for the rounds."""
    client = module.Client(transport=transport)

    async def ask() -> None:
        response = client.get(URL)
        if response.content != BODY:
            raise AssertionError(f"answered {response!r}")

    return ask


def _requests(variants: int, urls: int, anew: bool) -> Callable[[], tuple[str, dict[str, str] | None]]:
    numbers = count()
    if anew:
        return lambda: (f"{URL}/{next(numbers)}", None)
    if urls:
        return lambda: (f"{URL}/{next(numbers) * 7919 % urls}", None)  # a prime, so that neighbours are far apart
    if variants:
        return lambda: (URL, {VARIANTS: str(next(numbers) % variants)})
    return lambda: (URL, None)


def closing(ask: Asking, turns: int) -> Asking:
    """The same, and so many turns of the event loop."""

    async def whole() -> None:
        await ask()
        for _ in range(turns):
            await asyncio.sleep(0)

    return whole
