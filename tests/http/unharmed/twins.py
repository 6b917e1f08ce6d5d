"""Two clients of a kind, one bare and one on our transport with default policies; what each of them sees must be the same.

A story is written once, as if every client were an async one. For a synchronous client the same story is run without
ever suspending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from resilient import Resilience
from resilient.runtime import drive

from .website import Website

__all__ = ["Web", "World", "failure", "seen"]

UNTOLD = {"date", "server", "x-connection"}


@dataclass(frozen=True)
class World:
    """Where a story takes place: on which library, in which colour, over which version of HTTP."""

    library: Any
    colour: str
    http2: bool

    def run(self, story: Coroutine[Any, Any, Any]) -> Any:
        if self.colour == "sync":
            return drive(story)

        async def tell() -> Any:
            return await story

        return trio.run(tell) if self.colour == "trio" else asyncio.run(tell())


class Web:
    """The site, and clients for it: bare ones, or ones on our transport where there is a `resilience`."""

    def __init__(self, world: World, site: Website, resilience: Resilience | None = None) -> None:
        self.world = world
        self.library = world.library
        self.site = site
        self.url = site.url
        self.version = "HTTP/2" if world.http2 else "HTTP/1.1"
        self._resilience = resilience

    def client(self, *, limits: Any = None, proxy: str | None = None, mounts: dict[str, str] | None = None, **options: Any) -> Any:
        """A client; what belongs to the transport is given to it where it is ours. Mounts are proxies by their patterns."""
        prefix = "" if self.world.colour == "sync" else "Async"
        below = {"verify": False, "trust_env": False, "http1": not self.world.http2, "http2": self.world.http2}
        if limits is not None:
            below["limits"] = limits
        inner = getattr(self.library, f"{prefix}HTTPTransport")
        if self._resilience is not None:
            inner = lambda **given: getattr(self.library.ours, f"{prefix}ResilientTransport")(self._resilience, **given)  # noqa: E731
            options["transport"] = inner(**below, proxy=proxy)
        else:
            options.update(below, proxy=proxy)
        if mounts is not None:
            options["mounts"] = {pattern: inner(**below, proxy=through) for pattern, through in mounts.items()}
        client = getattr(self.library, f"{prefix}Client")(**options)
        return _Client(client) if self.world.colour == "sync" else client

    def hook(self, note: Callable[[Any], None]) -> Any:
        """A function that a client calls as it goes along."""
        if self.world.colour == "sync":
            return note

        async def noting(subject: Any) -> None:
            note(subject)

        return noting

    def pieces(self, *pieces: bytes) -> Any:
        """A body that can be read once."""

        def sync() -> Iterator[bytes]:
            yield from pieces

        async def colourful() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return sync() if self.world.colour == "sync" else colourful()


class _Client:
    """A synchronous client with an async face."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def __aenter__(self) -> _Client:
        self._client.__enter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        self._client.__exit__(*raised)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name not in ("get", "head", "options", "post", "put", "patch", "delete", "query", "request", "send"):
            return attribute

        async def asked(*args: Any, **kwargs: Any) -> Any:
            return _Response(attribute(*args, **kwargs))

        return asked

    @asynccontextmanager
    async def stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with self._client.stream(*args, **kwargs) as response:
            yield _Response(response)


class _Response:
    """A synchronous client's response with an async face."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __getattr__(self, name: str) -> Any:
        if name.startswith("aiter_"):
            return lambda *args, **kwargs: _iterate(getattr(self._response, name[1:])(*args, **kwargs))
        if name not in ("aread", "aclose"):
            return getattr(self._response, name)

        async def called() -> Any:
            return getattr(self._response, name[1:])()

        return called


async def _iterate(items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


def seen(response: Any) -> dict[str, Any]:
    """Everything about a response that a program can look at, and that two requests have in common."""
    request = response.request
    # What a redirect leaves to the next hop is ours; a program has no use for it.
    extensions = sorted(name for name in request.extensions if not name.startswith("resilient."))
    return {
        "status": (response.status_code, response.reason_phrase, response.is_success, response.is_redirect, response.is_error),
        "version": response.http_version,
        "url": str(response.url),
        "headers": [(name, value) for name, value in response.headers.multi_items() if name.lower() not in UNTOLD],
        "content": response.content,
        "text": response.text,
        "encoding": response.encoding,
        "cookies": dict(response.cookies),
        "history": [(answer.status_code, str(answer.url), answer.is_closed, answer.content) for answer in response.history],
        "next": None if response.next_request is None else (response.next_request.method, str(response.next_request.url)),
        "request": (request.method, str(request.url), sorted(request.headers.items()), extensions),
        "closed": (response.is_closed, response.is_stream_consumed, response.elapsed is not None),
        "downloaded": response.num_bytes_downloaded,
        "extensions": sorted(response.extensions),
    }


def failure(library: Any, error: BaseException) -> tuple[str, str, str]:
    """An error as an `except` clause sees it: which of the library's it is, what it says, and of which request."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__.partition(".")[0] == library.module.__name__)
    request = getattr(error, "request", None) if isinstance(error, library.RequestError | library.HTTPStatusError) else None
    return kind.__name__, str(error), "" if request is None else f"{request.method} {request.url}"
