"""Responses that were dropped without being closed: what they held is taken back.

A finalizer runs wherever the garbage collector happens to be, perhaps inside one of our locks or the pool's. So it only
leaves word: with the event loop that the response was opened on, or, where there is none, with the pipeline, whose next
call settles it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..events import ResponseAbandoned

if TYPE_CHECKING:
    from ..body import Body

__all__ = ["close_later", "home", "leave_word", "send_back"]

logger = logging.getLogger("resilient")
CLOSING = 30.0  # seconds that closing a stream may take that nobody waits for


def settle(body: Body) -> None:
    """Give back what the call holds, and tell of it: also where the body had ended, for its connection was held still."""
    owner = body.call.owner
    body.close()
    body.within(functools.partial(owner.outbox.emit, ResponseAbandoned(at=owner.clock.now(), dependency=owner.name)))


def leave_word(body: Body, close: Callable[[], Any] | None) -> None:
    """Let the pipeline's next call settle `body` and close its stream. Takes no lock and raises nothing."""

    def reclaim() -> None:
        settle(body)
        if close is None:
            return
        try:
            close()
        except Exception:  # it is not the next caller's connection that broke
            logger.debug("closing an abandoned response failed", exc_info=True)

    body.call.owner.abandoned.append(reclaim)


def home() -> Any:
    """The event loop that runs now: where a response belongs to that is made now. On trio: its token; outside any: None."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token()
    return asyncio._get_running_loop()


def send_back(home: Any, body: Body, inner: Any) -> None:
    """Settle `body` and close its stream on its event loop; with that gone, only the permits are left to take back."""
    # A loop that stands still may be closed without running what it was given, so word is left in any case.
    leave_word(body, None)
    if isinstance(home, asyncio.AbstractEventLoop):
        _to_asyncio(home, body, inner)
    elif home is not None:
        _to_trio(home, body, inner)


def _to_asyncio(loop: asyncio.AbstractEventLoop, body: Body, inner: Any) -> None:
    def reclaim() -> None:
        body.call.owner.reclaim()
        close_later(inner, loop)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(reclaim)


def _to_trio(token: Any, body: Body, inner: Any) -> None:
    import trio

    def reclaim() -> None:
        body.call.owner.reclaim()
        trio.lowlevel.spawn_system_task(_close_quietly, inner)

    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(reclaim)


def close_later(stream: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Close a stream that nobody waits for, in a task of its own on the event loop, within `CLOSING` seconds.

    An event loop holds its tasks weakly. The timer that ends this one holds it, and the loop the timer: so it lives as
    long as it needs to, and no longer than the loop.
    """
    loop = loop or asyncio.get_running_loop()
    task = loop.create_task(stream.aclose())
    timer = loop.call_later(CLOSING, task.cancel, context=contextvars.Context())
    task.add_done_callback(functools.partial(_closed, timer))


def _closed(timer: asyncio.TimerHandle, task: asyncio.Task[Any]) -> None:
    timer.cancel()
    if not task.cancelled():
        task.exception()  # seen: closing a connection that is broken anyway may fail


async def _close_quietly(inner: Any) -> None:
    try:
        await inner.aclose()
    except Exception:
        # A system task that raises would end the whole run; the connection is given up either way.
        logger.debug("closing an abandoned response failed", exc_info=True)
