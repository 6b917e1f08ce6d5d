"""A task of its own for code that must not meet a native cancellation.

`task.cancel()` (the caller's `asyncio.wait_for`, a server's shutdown) pierces the shields that httpcore 1.0 puts around
its clean-up, and a connection pool that is hit there is dead for good. So on asyncio sending and closing run in a task
that nobody cancels natively: it is cancelled through an anyio scope, which httpcore survives, and the caller leaves at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

__all__ = ["on_asyncio", "run_isolated"]

# Tasks that their callers have left; each leaves this set when it is done.
_RUNNING: set[asyncio.Task[Any]] = set()


def on_asyncio() -> bool:
    """Whether the running code is a native asyncio task."""
    loop = asyncio._get_running_loop()
    return loop is not None and asyncio.current_task(loop) is not None


async def run_isolated(fn: Callable[[], Awaitable[Any]], *, leftover: Callable[[Any], None], cancel: bool = True) -> Any:
    """Await `fn()` in a task of its own.

    Args:
        fn: what to run.
        leftover: called once `fn` has ended without anybody waiting for it any more: with its result, or with None if
            it was cancelled or failed, or has not even begun, as where all tasks of the loop are cancelled.
        cancel: False lets it come to its end when its caller leaves.
    """
    scope = anyio.CancelScope()

    async def isolated() -> Any:
        with scope:
            return await fn()
        return None

    task = asyncio.get_running_loop().create_task(isolated())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Until now its caller held it; an event loop by itself holds its tasks only weakly.
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)
        if cancel:
            scope.cancel()
        if task.done():  # it ended in the very moment that its caller left, and the loop may do nothing more
            _hand_over(task, leftover)
        else:
            task.add_done_callback(lambda done: _hand_over(done, leftover))
        raise
    finally:
        del task  # it holds what it raised, whose traceback holds this frame


def _hand_over(task: asyncio.Task[Any], leftover: Callable[[Any], None]) -> None:
    failed = task.cancelled() or task.exception() is not None  # looking at the exception also marks it as seen
    leftover(None if failed else task.result())
