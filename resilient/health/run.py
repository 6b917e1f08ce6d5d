"""The background of one service on one event loop: whatever is started in it ends with it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import anyio
import anyio.abc

from ..background import Task, begin_task
from ..protocols import Waiter
from ..runtime import AsyncRuntime

__all__ = ["Run"]

logger = logging.getLogger("resilient")
LAST_WORDS = 5.0  # seconds for those who do not end when they are asked to

Work = Callable[..., Coroutine[Any, Any, None]]


class Run:
    """Work on the event loop that runs where this is made, and none of the context of whoever makes it.

    Args:
        runtime: waits.
        look: is called there, first at the start and then after each `news`, and takes on what is to be done.
        left: is called when all of it has ended, for whatever reason.
    """

    __slots__ = ("_group", "_left", "_look", "_over", "_runtime", "_taken", "_task", "_waiter")

    def __init__(self, runtime: AsyncRuntime, look: Callable[[Run], None], left: Callable[[Run], None]) -> None:
        self._runtime = runtime
        self._look = look
        self._left = left
        self._over = anyio.Event()
        self._taken: set[Any] = set()
        self._task: Task | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._waiter: Waiter | None = None

    def start(self) -> None:
        """Begin. To be called once, where it was made."""
        # An empty context: the request that happens to be the first one is none of their business.
        self._task = Context().run(begin_task, self._work, self._end)

    @property
    def stuck(self) -> bool:
        """Whether it goes no further, for its event loop stands still or is closed."""
        return self._task is not None and self._task.stuck

    def news(self) -> None:
        """There may be more to do. From whichever thread."""
        if self._waiter is not None:
            self._waiter.wake()

    def take(self, key: object, work: Work, *arguments: Any) -> None:
        """Do one thing, once for each `key`. Only for `look`."""
        if self._group is not None and key not in self._taken:
            self._taken.add(key)
            self._group.start_soon(work, *arguments)

    async def _work(self) -> None:
        try:
            async with anyio.create_task_group() as self._group:
                while True:
                    self._waiter = self._runtime.waiter()  # before it looks, so that no news is missed
                    self._look(self)
                    await self._runtime.wait(self._waiter, math.inf)
        finally:
            self._end()

    def _end(self) -> None:
        self._over.set()
        self._left(self)

    def cancel(self) -> None:
        """Let it end. From whichever thread."""
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """End it all, and wait until it has ended. To be called on its own event loop."""
        self.cancel()
        with anyio.move_on_after(LAST_WORDS, shield=True) as scope:
            await self._over.wait()
        if scope.cancelled_caught:
            logger.warning("a check or a start-up task does not let itself be cancelled; the service ends without it")
