"""One drain that is going on, for whoever waits for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from ..waiters import Moment

__all__ = ["Departure"]


class Departure:
    """A drain that is going on. Awaited, it says whether all that was under way has ended in time."""

    __slots__ = ("begun", "complete", "home", "hooks_done", "over", "waiter")

    def __init__(self) -> None:
        self.begun = False
        self.home: Any = None  # the event loop that looks after it
        self.complete = False
        self.hooks_done = Moment()
        self.over = Moment()
        self.waiter: Any = None

    def __repr__(self) -> str:
        state = ("drained" if self.complete else "over") if self.over.is_set() else "going on"
        return f"<Departure {state}>"

    def __await__(self) -> Generator[Any, Any, bool]:
        return self._end().__await__()

    async def _end(self) -> bool:
        await self.over.wait()
        return self.complete

    @property
    def stuck(self) -> bool:
        """Whether its event loop was closed, or stands still. Trio ends its tasks with a run."""
        return isinstance(self.home, asyncio.AbstractEventLoop) and not self.home.is_running()

    def wake(self) -> None:
        """Look again: the order has changed."""
        waiter = self.waiter
        if waiter is not None:
            waiter.wake()

    def end(self) -> None:
        self.hooks_done.set()
        self.over.set()
