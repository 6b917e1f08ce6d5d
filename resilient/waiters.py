"""Who waits in a queue, and is woken from any thread: on asyncio, on trio, or a thread."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["AsyncioWaiter", "ThreadWaiter", "TrioWaiter"]


class AsyncioWaiter:
    """Belongs to one event loop for as long as it waits; nothing keeps the loop after that."""

    __slots__ = ("event", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.event = asyncio.Event()
        self.loop = loop
        self.thread = threading.get_ident()

    def wake(self) -> bool:
        if threading.get_ident() == self.thread:
            if self.loop.is_closed():
                return False
            self.event.set()
            return True
        try:
            self.loop.call_soon_threadsafe(self.event.set)
        except RuntimeError:  # the loop was closed: its tasks are gone, and this waiter with them
            return False
        return True


class TrioWaiter:
    """Belongs to one trio run."""

    __slots__ = ("event", "thread", "token")

    def __init__(self) -> None:
        import trio

        self.event = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.thread = threading.get_ident()

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
