"""Bodies that come as a script says, for both client libraries, async and sync."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from resilient.testing import FakeClock

__all__ = ["scripted", "stream"]


class Scripted:
    """Yields bytes, pauses for numbers of seconds, raises exceptions. Counts what happens to it."""

    def __init__(self, steps: tuple[Any, ...], clock: FakeClock | None) -> None:
        self._steps = steps
        self._clock = clock
        self.begun = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        for step in self._steps:
            if isinstance(step, int | float):
                await anyio.sleep(step)
            elif isinstance(step, BaseException):
                raise step
            else:
                yield step

    def __iter__(self) -> Iterator[bytes]:
        self.begun += 1
        for step in self._steps:
            if isinstance(step, int | float):
                assert self._clock is not None
                self._clock.advance(step)
            elif isinstance(step, BaseException):
                raise step
            else:
                yield step

    async def aclose(self) -> None:
        self.closed += 1

    def close(self) -> None:
        self.closed += 1


def stream(library: Any, *steps: Any, clock: FakeClock | None = None) -> Any:
    """A byte stream of `library`, fit for a request or a response, async and sync."""
    kind = type("Stream", (Scripted, library.AsyncByteStream, library.SyncByteStream), {})
    return kind(steps, clock)


def scripted(library: Any, *steps: Any, status: int = 200, clock: FakeClock | None = None, **headers: str) -> Any:
    """For a FaultyTransport: a function of the request that answers with such a body; `.body` is the last one made."""

    def respond(request: Any) -> Any:
        respond.body = stream(library, *steps, clock=clock)  # type: ignore[attr-defined]
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return library.Response(status, headers=fields, stream=respond.body)  # type: ignore[attr-defined]

    return respond
