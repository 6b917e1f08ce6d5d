"""What is done on a thread for a task that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

__all__ = ["AsyncioErrand", "Errand"]


class Errand:
    """Something to be done on a thread.

    Attributes:
        value, error: what came of it.
    """

    __slots__ = ("_act", "error", "value")

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self.error: BaseException | None = None

    def do(self) -> None:
        """On the thread."""
        try:
            self.value = self._act()
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            self.error = error

    def outcome(self) -> Any:
        """What came of it.

        Raises:
            Exception: likewise.
        """
        error, self.error = self.error, None  # what its traceback leads to is not to lead back to it
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error


class AsyncioErrand(Errand):
    """One that a task of asyncio's awaits, once; that returns None, and `outcome` has what came of it.

    It is to the task what a future is (`asyncio.isfuture`), but the thread has the task itself called by the event loop,
    where it could but have a future told, which calls the task in the loop's next turn: a turn is a third of a way there
    and back.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_loop", "_over", "_waiting")

    def __init__(self, act: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._act = act
        self.error = None
        self._loop = loop
        self._asyncio_future_blocking = False
        # The task's callback, which is taken out by whoever calls it: the thread, or who cancels the task.
        self._waiting: list[tuple[Callable[[Any], object], Context | None]] = []
        self._over = False
        self._cancelled: tuple[Any, ...] | None = None

    def tell(self) -> None:
        """On the thread, once it is done."""
        self._over = True
        try:
            self._call(self._loop.call_soon_threadsafe)
        except RuntimeError:
            return  # the loop was closed: its tasks are gone

    def _call(self, soon: Callable[..., object]) -> bool:
        try:
            callback, context = self._waiting.pop()
        except IndexError:  # nobody waits yet, or any more
            return False
        soon(callback, self, context=context)
        return True

    # -- what a task asks of a future ---------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._waiting.append((callback, context))
        if self._over:  # since before it was waited for, or in this moment
            self._call(self._loop.call_soon)

    def cancel(self, msg: Any = None) -> bool:
        """The task is to wait no longer. False if it is about to be called anyway."""
        if not self._call(self._loop.call_soon):
            return False
        self._cancelled = () if msg is None else (msg,)
        return True

    def result(self) -> None:
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)
