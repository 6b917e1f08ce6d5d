"""Races of tasks, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from ..wheel import current_home, current_slot, new_scope
from .entrant import Entrant
from .race import Race

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Runtime
    from ..runtime import AsyncRuntime

__all__ = ["AsyncioRace", "TrioRace"]

# Tasks that have lost: an event loop by itself holds its tasks only weakly. Each leaves this set when it is done.
_LOSERS: set[asyncio.Task[Any]] = set()


class _Alarm:
    """What a slot of the wheel holds in place of a scope: it wakes one future."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def wake(self) -> bool:
        if not self._future.done():
            self._future.set_result(None)
        return True

    cancel = wake


class AsyncioRace(Race):
    """Entrants are tasks."""

    def __init__(self, runtime: AsyncRuntime) -> None:
        super().__init__(runtime)
        self.home = asyncio.get_running_loop()
        self._exact = runtime.exact

    async def next(self, until: float) -> Entrant | None:
        # As the base does, with the wheel's timer and without an event and a scope: nearly every call comes this way.
        if not self._ended:
            loop = self.home
            future: asyncio.Future[None] = loop.create_future()
            self._waiter = alarm = _Alarm(future)
            seconds = max(until - self._runtime.now(), 0.0)
            slot = None if self._exact or not seconds else current_slot(seconds)
            timer = loop.call_later(seconds, alarm.cancel) if slot is None and seconds != math.inf else None
            if slot is not None:
                slot.add(alarm)
            try:
                await future
            finally:
                self._waiter = None
                if slot is not None:
                    slot.discard(alarm)
                if timer is not None:
                    timer.cancel()
        return self._ended.popleft() if self._ended else None

    def _entrant(self, call: Call) -> Entrant:
        return Entrant(self, call, new_scope())

    def _start(self, entrant: Entrant, job: Callable[[], Any]) -> bool:
        entrant.task = task = asyncio.get_running_loop().create_task(job())
        task.add_done_callback(entrant.stopped)
        return True

    def _leave(self, entrant: Entrant) -> None:
        task = entrant.task
        if not task.done():
            _LOSERS.add(task)
            task.add_done_callback(_LOSERS.discard)

    async def abandon(self) -> None:
        self.close()
        tasks = [entrant.task for entrant in self._entrants]
        if tasks:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(tasks)

    def passes_on(self, error: BaseException, *, lost: bool) -> bool:
        return isinstance(error, asyncio.CancelledError) or (lost and isinstance(error, KeyboardInterrupt | SystemExit))


class TrioRace(Race):
    """Entrants are system tasks, which don't keep the run alive."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.home = current_home()

    def _entrant(self, call: Call) -> Entrant:
        return Entrant(self, call, anyio.CancelScope())

    def _start(self, entrant: Entrant, job: Callable[[], Any]) -> bool:
        import trio

        trio.lowlevel.spawn_system_task(job, context=contextvars.copy_context())
        return True

    async def abandon(self) -> None:
        self.close()
        with anyio.CancelScope(shield=True):
            while self._lost:
                self._waiter = waiter = self._runtime.waiter()
                await self._runtime.wait(waiter, math.inf)

    def passes_on(self, error: BaseException, *, lost: bool) -> bool:
        return isinstance(error, anyio.get_cancelled_exc_class())
