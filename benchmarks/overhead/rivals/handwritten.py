"""What one would write by hand with the standard library, anyio or starlette; for reference, not a rival."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anyio
from starlette.middleware.base import BaseHTTPMiddleware

from overhead.bare import app, noop, pause, request
from overhead.entry import Entry


async def asyncio_timeout() -> None:
    """A no-op under the standard library's timeout."""
    async with asyncio.timeout(30.0):
        await noop()


async def _anyio_fail_after() -> None:
    with anyio.fail_after(30.0):
        await noop()


async def _asyncio_timeout_waiting() -> None:
    async with asyncio.timeout(30.0):
        await pause()


async def _anyio_fail_after_waiting() -> None:
    with anyio.fail_after(30.0):
        await pause()


async def _pass_on(request: Any, call_next: Any) -> Any:
    return await call_next(request)


async def _scoped_app(scope: Any, receive: Any, send: Any) -> None:
    with anyio.move_on_after(30.0):
        await app(scope, receive, send)


def entries() -> Iterator[Entry]:
    """What each case costs when written by hand."""
    slots = asyncio.Semaphore(100)

    async def in_a_slot() -> None:
        async with slots:
            await noop()

    yield Entry("bulkhead", in_a_slot, variant="asyncio.Semaphore", lacks="one event loop, unbounded queue")
    yield Entry("deadline", asyncio_timeout, variant="asyncio.timeout")
    yield Entry("deadline", _anyio_fail_after, variant="anyio.fail_after")
    yield Entry("deadline_wait", _asyncio_timeout_waiting, variant="asyncio.timeout")
    yield Entry("deadline_wait", _anyio_fail_after_waiting, variant="anyio.fail_after")
    yield Entry("middleware", request(_scoped_app), variant="anyio.move_on_after", lacks="deadline only")
    yield Entry("middleware", request(BaseHTTPMiddleware(app, _pass_on)), variant="empty BaseHTTPMiddleware", lacks="does nothing")
