"""Several calls for one answer: each runs in a task or a thread of its own, so that nobody waits for one that has lost.

Not a task group, whose end waits for the clean-up of everybody in it and packs errors into groups. A task here runs in a
copy of its caller's context and inside a cancel scope that the race holds: it is cancelled through that, never natively,
which connection pools survive. One that has lost lets go of its answer and of what it holds by itself, when its end has
come. A thread cannot be interrupted: it comes to its end in its own time, and its late answer is closed.

A caller who is cancelled himself waits for his tasks to end, as he would have waited for the call in their place; a
second native cancellation lets him go at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from .core.outcome import Outcome
from .wheel import ANYWHERE, current_home, current_slot, new_scope

if TYPE_CHECKING:
    from .call import Call
    from .protocols import Inner, Runtime, Waiter
    from .runtime import AsyncRuntime
    from .threads import Threads

__all__ = ["AsyncioRace", "Entrant", "Race", "ThreadRace", "TrioRace"]

logger = logging.getLogger("resilient")

# Tasks that have lost: an event loop by itself holds its tasks only weakly. Each leaves this set when it is done.
_LOSERS: set[asyncio.Task[Any]] = set()


class Entrant:
    """One call of a race, and how it ended.

    Attributes:
        call: a call of its own, which holds what it holds.
        value, error: its end, once it has one.
        outcome: what that says of the dependency; nothing, unless somebody has looked at it.
        lost: nobody waits for it any more.
        task: where it is one, the event loop's.
    """

    __slots__ = ("_gone", "_race", "_scope", "call", "ended", "error", "lost", "outcome", "task", "value")

    def __init__(self, race: Race, call: Call, scope: Any) -> None:
        self._race = race
        self._scope = scope
        self._gone = False
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.outcome = Outcome.IGNORED
        self.ended = self.lost = False
        self.task: Any = None

    async def run(self, inner: Inner) -> None:
        """Run the call to its end, and hand that over; if it has lost, let go of everything."""
        left = None
        try:
            with self._scope:
                if not self.lost:
                    self.value = await inner(self.call)
        except Exception as error:  # noqa: BLE001  # handed to whoever waits
            self.error = error
        except BaseException as error:  # noqa: BLE001  # likewise, and to the event loop where it is its doing
            self.error = left = error
        try:
            if not self._race.finish(self):
                if isinstance(left, GeneratorExit):
                    self.settle()  # nothing can be awaited any more
                else:
                    await self.let_go()
            if left is not None and self._race.passes_on(left, lost=self.lost):
                raise left
        finally:
            del left

    async def let_go(self) -> None:
        """Close the answer that nobody will read, and settle what the call holds."""
        value, self.value, self.error = self.value, None, None
        try:
            await self.call.abandon(value)
        except Exception:
            logger.debug("the answer of a call that had lost a race could not be closed", exc_info=True)
        finally:
            self.settle()

    def settle(self) -> None:
        """Give back what the call holds, once it has lost. However often it is asked, it does so once."""
        if self._gone:
            return
        self._gone = True
        self.call.settle(0, self.outcome, None)
        self.call.owner.outbox.flush()
        self._race.gone()

    def stopped(self, task: asyncio.Task[Any]) -> None:
        """The task is done: perhaps it was cancelled before it had even begun."""
        if self.lost:
            self.settle()
        elif not self.ended:
            self.error = asyncio.CancelledError()
            self._race.finish(self)

    def cancel(self) -> None:
        self.call.lost = True
        self._scope.cancel()


def _leaves_something(entrant: Entrant) -> bool:
    """Whether one that has ended still holds or has anything. Of one that failed it was settled when that was seen."""
    call = entrant.call
    return bool(call.held) or entrant.value is not None or call.response is not None


class Race:
    """Who is out, and who has come in. One for each logical call, whose task or thread it belongs to."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # An entrant may end on another thread.
        self._lock = threading.Lock()
        self._ended: deque[Entrant] = deque()
        self._entrants: list[Entrant] = []
        self._lost = 0
        self._waiter: Waiter | None = None
        self._hurried = False

    home: Any = ANYWHERE
    """Where `cancel` has to be called."""

    # -- for whoever waits ----------------------------------------------------------------------------------------

    def enter(self, call: Call, inner: Inner) -> Entrant | None:
        """Start `inner(call)` beside the caller. None if there is no thread for it."""
        entrant = self._entrant(call)
        if not self._start(entrant, partial(entrant.run, inner)):
            return None
        self._entrants.append(entrant)
        return entrant

    async def next(self, until: float) -> Entrant | None:
        """The next one to end, in the order of their ends; None if nobody has by `until`, or by the time of a `cancel`."""
        with self._lock:
            if self._ended:
                return self._ended.popleft()
            if self._hurried:
                self._hurried = False
                return None
            self._waiter = waiter = self._runtime.waiter()
        try:
            await self._runtime.wait(waiter, until)
        finally:
            self._waiter = None
        # It may have ended in the very moment that the time was over.
        with self._lock:
            return self._ended.popleft() if self._ended else None

    def close(self, winner: Entrant | None = None) -> None:
        """Everybody but `winner` has lost. Nobody waits for them."""
        with self._lock:
            losers = [entrant for entrant in self._entrants if entrant is not winner]
            running = [entrant for entrant in losers if not entrant.ended]
            unread = [entrant for entrant in losers if entrant.ended and _leaves_something(entrant)]
            for entrant in losers:
                entrant.lost = True
                entrant.error = None  # its traceback leads to the frame that leads here
            self._lost = len(running) + len(unread)
            self._ended.clear()
        self._entrants = [*running, *unread]
        for entrant in running:
            entrant.cancel()
            self._leave(entrant)
        for entrant in unread:
            self._start(entrant, entrant.let_go)
            self._leave(entrant)

    async def abandon(self) -> None:
        """The caller leaves: everybody has lost."""
        self.close()

    # -- for whoever ends the call --------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Its call has to end at another time than was thought, perhaps now: see that whoever waits looks at that."""
        with self._lock:
            self._hurried = True
            waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def bring_forward(self, seconds: float) -> None:
        """As a scope and an interruption have it; here it is the call that knows when."""
        self.cancel()

    # -- for the entrants -----------------------------------------------------------------------------------------

    def finish(self, entrant: Entrant) -> bool:
        """An entrant has ended. True if somebody waits for it, who takes what it brings."""
        with self._lock:
            if entrant.lost:
                return False
            entrant.ended = True
            self._ended.append(entrant)
            waiter = self._waiter
        if waiter is not None:
            waiter.wake()
        return True

    def gone(self) -> None:
        """One that had lost holds nothing any more."""
        with self._lock:
            self._lost -= 1
            waiter = None if self._lost else self._waiter
        if waiter is not None:
            waiter.wake()

    # -- what differs ---------------------------------------------------------------------------------------------

    def _entrant(self, call: Call) -> Entrant:
        raise NotImplementedError

    def _start(self, entrant: Entrant, job: Callable[[], Any]) -> bool:
        """Run the coroutine function `job` beside the caller. False if that cannot be."""
        raise NotImplementedError

    def _leave(self, entrant: Entrant) -> None:
        """See that it comes to its end although nobody waits for it."""

    def passes_on(self, error: BaseException, *, lost: bool) -> bool:
        """Whether an error that is no `Exception` goes on to whatever runs the entrant."""
        return False


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


class _Uninterrupted(nullcontext[None]):
    """Where an async entrant has its cancel scope."""

    def cancel(self) -> None:
        """The call knows that it has lost: its next operation on the network is cut short, its end is ignored."""


class ThreadRace(Race):
    """Entrants are threads."""

    def __init__(self, runtime: Runtime, threads: Threads, drive: Callable[[Any], Any]) -> None:
        super().__init__(runtime)
        self._threads = threads
        self._drive = drive

    def _entrant(self, call: Call) -> Entrant:
        return Entrant(self, call, _Uninterrupted())

    def _start(self, entrant: Entrant, job: Callable[[], Any]) -> bool:
        if self._threads.start(partial(contextvars.copy_context().run, self._to_end, job)):
            return True
        if entrant.ended:  # what it holds has to be given back: by the caller, if by nobody else
            self._to_end(job)
        return False

    def _to_end(self, job: Callable[[], Any]) -> None:
        self._drive(job())
