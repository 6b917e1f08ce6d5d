"""Who waits in a queue, and is woken from any thread: on asyncio, on trio, or a thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocols import Runtime, Waiter

__all__ = ["AsyncioWaiter", "Moment", "ThreadWaiter", "TrioWaiter", "waiter_here"]


class AsyncioWaiter:
    """Belongs to one event loop for as long as it waits; nothing keeps the loop after that.

    For the one who waits it is an `asyncio.Event`, which costs three times as much.
    """

    __slots__ = ("_future", "_loop", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._future: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._set

    async def wait(self) -> bool:
        if not self._set:
            self._future = self._loop.create_future()
            await self._future
        return True

    def wake(self) -> bool:
        if asyncio._get_running_loop() is self._loop:
            self._wake()
            return True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop was closed: its tasks are gone, and this waiter with them
            return False
        return True

    def _wake(self) -> None:
        self._set = True
        future = self._future
        if future is not None and not future.done():  # who waited for it may have been cancelled
            future.set_result(None)


class TrioWaiter:
    """Belongs to one trio run."""

    __slots__ = ("event", "thread", "token")

    def __init__(self) -> None:
        import trio

        self.event = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.thread = threading.get_ident()

    def is_set(self) -> bool:
        return self.event.is_set()

    async def wait(self) -> bool:
        await self.event.wait()
        return True

    def wake(self) -> bool:
        import trio

        try:
            if threading.get_ident() == self.thread:
                self.event.set()
            else:
                self.token.run_sync_soon(self.event.set)
        except trio.RunFinishedError:
            return False
        return True


class ThreadWaiter:
    """A thread that blocks."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = threading.Event()

    def wake(self) -> bool:
        self.event.set()
        return True


def waiter_here() -> AsyncioWaiter | TrioWaiter:
    """A waiter for the running task."""
    loop = asyncio._get_running_loop()
    # Trio can run as a guest of an asyncio loop, whose tasks are none of asyncio's.
    if loop is None or ("trio" in sys.modules and asyncio.current_task(loop) is None):
        return TrioWaiter()
    return AsyncioWaiter(loop)


class Moment:
    """Something that comes, and that many wait for: on any event loop, in any thread. It may be taken back.

    Unlike an event of asyncio or trio it belongs to no loop.
    """

    __slots__ = ("_come", "_lock", "_waiters")

    def __init__(self) -> None:
        self._come = False
        self._lock = threading.Lock()
        self._waiters: set[Any] = set()

    def __repr__(self) -> str:
        return f"<Moment {'come' if self._come else 'to come'}>"

    def is_set(self) -> bool:
        """Whether it has come."""
        return self._come

    async def wait(self) -> None:
        """Wait until it comes; not at all if it has."""
        waiter = waiter_here()
        if self.add(waiter):
            try:
                await waiter.wait()
            finally:
                self.discard(waiter)

    async def pause(self, runtime: Runtime, seconds: float) -> bool:
        """Let so much time pass, or less: until it comes. Returns whether it has."""
        waiter = runtime.waiter()
        if self.add(waiter):
            try:
                await runtime.wait(waiter, runtime.now() + seconds)
            finally:
                self.discard(waiter)
        return self._come

    def add(self, waiter: Waiter) -> bool:
        """Wake `waiter` when it comes. False if it has."""
        with self._lock:
            if not self._come:
                self._waiters.add(waiter)
            return not self._come

    def discard(self, waiter: Waiter) -> None:
        """Wake it no more."""
        with self._lock:
            self._waiters.discard(waiter)

    def set(self) -> bool:
        """It comes. False if it has come before."""
        with self._lock:
            if self._come:
                return False
            self._come = True
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.wake()
        return True

    def clear(self) -> None:
        """It has not come, after all."""
        with self._lock:
            self._come = False
