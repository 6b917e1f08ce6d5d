"""Who is out, who has come in, and who waits for that: the same for tasks and for threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..wheel import ANYWHERE
from .entrant import Entrant

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Runtime, Waiter

__all__ = ["Race"]


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
