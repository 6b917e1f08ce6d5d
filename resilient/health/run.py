"""The background of one service on one event loop: whatever is started in it ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any

import anyio
import anyio.abc

from ..background import Task, begin_task
from ..wheel import current_home

__all__ = ["Run"]

logger = logging.getLogger("resilient")
LAST_WORDS = 5.0  # seconds for those who do not end when they are asked to

Work = Callable[..., Awaitable[None]]


class Run:
    """Work on the event loop that runs where this is made, and none of the context of whoever makes it.

    Args:
        begun: is called there first, and takes on what is to be done from the start.
        left: is called when all of it has ended, for whatever reason.
    """

    __slots__ = ("_begun", "_group", "_home", "_left", "_over", "_taken", "_task")

    def __init__(self, begun: Callable[[Run], None], left: Callable[[Run], None]) -> None:
        self._begun = begun
        self._left = left
        self._home = current_home()
        self._group: anyio.abc.TaskGroup | None = None
        self._taken: set[Any] = set()
        self._over = anyio.Event()
        self._task: Task | None = None

    def start(self) -> None:
        """Begin. To be called once, where it was made."""
        # An empty context: the request that happens to be the first one is none of their business.
        self._task = Context().run(begin_task, self._work, self._end)

    @property
    def stuck(self) -> bool:
        """Whether it goes no further, for its event loop stands still or is closed."""
        return self._task is not None and self._task.stuck

    def take(self, key: object, work: Work, *arguments: Any) -> None:
        """Do one thing, once for each `key`. From whichever thread."""
        act = partial(self._start, key, work, *arguments)
        if self._home is _home():
            act()
            return
        with contextlib.suppress(RuntimeError):  # of a closed loop, and trio's RunFinishedError
            if isinstance(self._home, asyncio.AbstractEventLoop):
                self._home.call_soon_threadsafe(act, context=Context())
            else:
                self._home.run_sync_soon(act)

    def _start(self, key: object, work: Work, *arguments: Any) -> None:
        group = self._group
        if group is None or key in self._taken:
            return  # it has not begun, and will ask for all there is; or it is over
        self._taken.add(key)
        Context().run(group.start_soon, work, *arguments)

    async def _work(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._begun(self)
                await anyio.sleep_forever()
        finally:
            self._group = None
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


def _home() -> Any:
    """What runs here; None on a thread without an event loop."""
    if asyncio._get_running_loop() is None and "trio" not in sys.modules:
        return None
    try:
        return current_home()
    except RuntimeError:
        return None
